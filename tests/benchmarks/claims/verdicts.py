"""One rule for all rows: whether a figure reaches what stands beside it."""

from __future__ import annotations

from dataclasses import dataclass

# The rule in words, as `tutorials/reproduce.md` has it.
RULE = """\
- **reached**: at least as good as the published figure, up to two of our standard errors or half a unit of the last
  decimal that was published, whichever is more. A published count has no decimals, and is exact.
- **at smaller size**: the same, of fewer epochs, smaller networks, images or data than were published; never "reached".
- A bar, ≤ or ≥, is strict: no error is granted.
- **not reached**: all others. Rows that have nothing beside them, –, have no verdict."""

BARS = {"≤": "lower", "≥": "higher"}
NOTHING = "–"


@dataclass(frozen=True)
class Aim:
    """What a figure is held against.

    Attributes:
        number: published, exact, or the bar.
        better: `lower`, `higher` or, of an exact number, `equal`.
        slack: half a unit of the last published decimal; 0 of counts and bars.
        is_bar: whether no error is granted.
    """

    number: float
    better: str
    slack: float
    is_bar: bool

    @classmethod
    def of(cls, published: str, better: str) -> Aim:
        """Read `−5.99` with a direction, or `≤ 0.7`, which has one."""
        sign, _, rest = published.rpartition(" ")
        text = rest.replace("−", "-").replace(",", "")
        if sign in BARS and not better:
            return cls(float(text), BARS[sign], 0.0, True)
        if sign or better not in ("lower", "higher", "equal"):
            raise ValueError(
                f"published: expected ≤ or ≥ and a number, or a number with better: lower, higher or equal, "
                f"got {published!r} with better: {better!r}."
            )
        decimals = len(text.partition(".")[2])
        return cls(float(text), better, 0.5 * 10.0**-decimals if decimals else 0.0, False)

    def is_reached(self, figure: float, error: float | None) -> bool:
        """Whether a figure is at least as good, by the rule."""
        short = figure - self.number
        if self.better == "higher":
            short = -short
        elif self.better == "equal":
            short = abs(short)
        granted = 0.0 if self.is_bar else max(2 * (error or 0.0), self.slack)
        return short <= granted + 1e-9


def verdict(
    published: str, better: str, figure: float | None, error: float | None, smaller: str
) -> str:
    """`reached`, `at smaller size`, `not reached`, `not run`, or nothing where nothing stands beside it."""
    if figure is None:
        return "not run"
    if published == NOTHING:
        return ""
    if not Aim.of(published, better).is_reached(figure, error):
        return "not reached"
    return "at smaller size" if smaller else "reached"
