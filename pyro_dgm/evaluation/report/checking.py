"""A check, and what becomes of an item that takes another for granted which warns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from .findings import Findings, Skipped
from .items import Item, Status


@dataclass(frozen=True)
class Check:
    """A function from `Findings` to an `Item`, and the name of that item.

    A function that finds nothing raises `Skipped` with the reason, as findings that a pair can't give do by themselves.

    Attributes:
        name: of the item.
        run: the function.
        presupposes: names of the items without which a number of this one can't be read: it is no PASS while one of
            them warns, see `withhold`.

    Raises:
        TypeError: if the function returns no item.

    Example:
        >>> def sample_size(findings):
        ...     return Item(Status.PASS, f"{findings.num_data} data")
        >>> mine = Check("sample size", sample_size)  # check(model, guide, x, checks=(*CHECKS, mine))
    """

    name: str
    run: Callable[[Findings], Item]
    presupposes: tuple[str, ...] = ()

    def __call__(self, findings: Findings) -> Item:
        """The item, skipped with the reason if there is none."""
        try:
            item = self.run(findings)
        except Skipped as reason:
            return Item(Status.SKIP, str(reason), self.name)
        if not isinstance(item, Item):
            raise TypeError(
                f"check '{self.name}': expected an Item from its function, got "
                f"{type(item).__name__}. Fix: return Item(Status.PASS, 'what it found')."
            )
        return replace(item, name=self.name)


def run_checks(checks: Sequence[Check], findings: Findings) -> tuple[Item, ...]:
    """One item for every check, in order; what can't be read beside the others is withheld."""
    items = [check(findings) for check in checks]
    warns = {item.name for item in items if item.status is Status.WARN}
    pairs = zip(checks, items, strict=True)
    return tuple([withhold(item, check.presupposes, warns) for check, item in pairs])


def withhold(item: Item, presupposes: Sequence[str], warns: set[str]) -> Item:
    """The item; VOID in place of PASS, and saying so, while something that it presupposes warns.

    Args:
        item: what a check found.
        presupposes: names of items that it takes for granted.
        warns: names of the items that warn.

    Example:
        >>> withhold(Item(Status.PASS, "Gap 0.1 nats", "gap"), ["SBC", "data"], {"SBC"}).finding
        "Can't be read while SBC warns: so small a number may come from a wrong guide or model as well. Gap 0.1 nats"
    """
    failed = [name for name in presupposes if name in warns]
    if item.status is not Status.PASS or not failed:
        return item
    verb = "warns" if len(failed) == 1 else "warn"
    return replace(
        item,
        status=Status.VOID,
        finding=f"Can't be read while {' and '.join(failed)} {verb}: so small a number may come "
        f"from a wrong guide or model as well. {item.finding}",
        advice=f"mend what {failed[0]} found first; ais(model, x) and hmc(model, x) take no guide at its word",
    )
