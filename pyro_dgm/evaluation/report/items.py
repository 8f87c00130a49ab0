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
    VOID = "VOID"  # its number would pass, but can't be read beside an item that warns
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
        sign = "≥" if self.at_least else "≤"
        return f"{sign} {self.limit:g}"


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
        status: PASS, WARN, VOID or SKIP.
        finding: what was found, in a sentence with its numbers; for SKIP, why nothing was.
        name: what was checked; that of the `Check`, which fills it in.
        value: the number that the threshold is about, if there is one.
        unit: its unit.
        threshold: what it was held to.
        advice: what to do; empty unless the item warns or is void.
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

    @property
    def is_skipped_for_a_reason(self) -> bool:
        """Whether nothing was measured, so that its finding is a reason that other items may share."""
        return self.status is Status.SKIP and self.value is None

    def as_dict(self) -> dict[str, Any]:
        """The item in words and numbers that JSON knows; NaN and infinities become text."""
        is_number_of_json = self.value is None or isfinite(self.value)
        return {
            "name": self.name,
            "status": self.status.value,
            "finding": self.finding,
            "value": self.value if is_number_of_json else str(self.value),
            "unit": self.unit,
            "threshold": None if self.threshold is None else asdict(self.threshold),
            "advice": self.advice,
            "source": self.source,
            "rows": list(self.rows),
        }


def group_items(items: Sequence[Item]) -> list[list[Item]]:
    """The items in groups, by their first member in order: together are those that are skipped for one reason.

    Example:
        >>> skipped = [Item(Status.SKIP, "no z", name) for name in ("k-hat", "SBC")]
        >>> [merge_items(group).name for group in group_items(skipped)]
        ['k-hat, SBC']
    """
    groups: list[list[Item]] = []
    group_of_reason: dict[str, list[Item]] = {}
    for item in items:
        if item.is_skipped_for_a_reason and item.finding in group_of_reason:
            group_of_reason[item.finding].append(item)
            continue
        group = [item]
        groups.append(group)
        if item.is_skipped_for_a_reason:
            group_of_reason[item.finding] = group
    return groups


def merge_items(group: Sequence[Item]) -> Item:
    """The first item of a group under the names of all."""
    return replace(group[0], name=", ".join([item.name for item in group]))


def sentence(text: str) -> str:
    """The text with one full stop.

    Example:
        >>> sentence("x.float()."), sentence("x.float()"), sentence("swapped?")
        ('x.float().', 'x.float().', 'swapped?')
    """
    if text.endswith("?"):
        return text
    return f"{text.rstrip('.')}."


def judge(
    value: float,
    unit: str,
    threshold: Threshold,
    finding: str,
    advice: str,
    *,
    source: str = "",
    rows: tuple[int, ...] = (),
    pictures: tuple[Picture, ...] = (),
) -> Item:
    """An item that warns where its value misses the threshold, and advises only then.

    Args:
        value: the number that the threshold is about.
        unit: its unit.
        threshold: what it is held to.
        finding: a sentence with the numbers.
        advice: what to do where it warns.
        source: equation or paper.
        rows: indices of the data that it is about, worst first.
        pictures: the figures that show it.

    Example:
        >>> judge(0.2, "nats", Threshold(0.1, "noise"), "it is off", "train longer").advice
        'train longer'
    """
    passes = threshold.holds(value)
    return Item(
        Status.PASS if passes else Status.WARN,
        finding,
        value=value,
        unit=unit,
        threshold=threshold,
        advice="" if passes else advice,
        source=source,
        rows=rows,
        pictures=pictures,
    )
