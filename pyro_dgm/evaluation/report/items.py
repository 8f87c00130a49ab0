"""What a check says: one item, with its number, its threshold, its reason and its pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from math import isfinite
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Status(StrEnum):
    """The verdict of one item."""

    PASS = "PASS"
    WARN = "WARN"
    SKIP = "SKIP"  # it could not be checked, and nothing is claimed


@dataclass(frozen=True)
class Threshold:
    """The largest number that passes; the smallest, with `at_least`. NaN never passes.

    Attributes:
        limit: the number.
        reason: why this one.
        at_least: whether smaller numbers are the bad ones.

    Example:
        >>> print(Threshold(0.01, "one false alarm in a hundred", at_least=True))
        ≥ 0.01
    """

    limit: float
    reason: str
    at_least: bool = False

    def holds(self, value: float) -> bool:
        """Whether a number passes."""
        return value >= self.limit if self.at_least else value <= self.limit

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:g}"


@dataclass(frozen=True)
class Picture:
    """A figure that is drawn when a page asks for it.

    Attributes:
        caption: one or two sentences.
        draw: makes the figure.
    """

    caption: str
    draw: Callable[[], Figure]


@dataclass(frozen=True)
class Item:
    """One row of a report.

    Attributes:
        status: PASS, WARN or SKIP.
        finding: what was found, in a sentence with its numbers; for SKIP, why nothing was.
        name: what was checked; that of the `Check`, which fills it in.
        value: the number that the threshold is about, if there is one.
        unit: its unit.
        threshold: what it was held to.
        advice: what to do; empty unless the item warns.
        source: equation or paper.
        rows: indices of the data that it is about, worst first.
        pictures: the figures that show it.
    """

    status: Status
    finding: str
    name: str = ""
    value: float | None = None
    unit: str = ""
    threshold: Threshold | None = None
    advice: str = ""
    source: str = ""
    rows: tuple[int, ...] = ()
    pictures: tuple[Picture, ...] = field(default=(), compare=False, repr=False)

    def as_dict(self) -> dict[str, Any]:
        """The item in words and numbers that JSON knows; NaN and infinities become text."""
        value = self.value if self.value is None or isfinite(self.value) else str(self.value)
        threshold = None if self.threshold is None else asdict(self.threshold)
        plain = {key: getattr(self, key) for key in ("finding", "unit", "advice", "source")}
        return {
            "name": self.name,
            "status": self.status.value,
            "value": value,
            "threshold": threshold,
            **plain,
            "rows": [*self.rows],
        }


def group_items(items: Sequence[Item]) -> list[list[Item]]:
    """The items in groups, by their first member in order: together are those that are skipped for one reason.

    Example:
        >>> [merge_items(group).name for group in group_items([Item(Status.SKIP, "no z", name) for name in ("k-hat", "SBC")])]
        ['k-hat, SBC']
    """
    groups: dict[str | int, list[Item]] = {}
    for number, item in enumerate(items):
        reasoned = item.status is Status.SKIP and item.value is None
        groups.setdefault(item.finding if reasoned else number, []).append(item)
    return [*groups.values()]


def merge_items(group: Sequence[Item]) -> Item:
    """The first item of a group under the names of all."""
    return replace(group[0], name=", ".join(item.name for item in group))


def sentence(text: str) -> str:
    """The text with one full stop.

    Example:
        >>> sentence("x.float()."), sentence("x.float()"), sentence("swapped?")
        ('x.float().', 'x.float().', 'swapped?')
    """
    return text if text.endswith("?") else f"{text.rstrip('.')}."


def judge(
    value: float, unit: str, threshold: Threshold, finding: str, advice: str, **more: Any
) -> Item:
    """An item that warns where its value misses the threshold, and advises only then."""
    status = Status.PASS if threshold.holds(value) else Status.WARN
    advice = "" if status is Status.PASS else advice
    return Item(status, finding, value=value, unit=unit, threshold=threshold, advice=advice, **more)
