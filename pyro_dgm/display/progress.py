"""Progress bars of what takes longer than two seconds, and how to be without them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from torch import distributed
from tqdm import tqdm

Item = TypeVar("Item")

DELAY = 2.0  # seconds without a bar: what ends before needs none
ARE_SHOWN: ContextVar[bool] = ContextVar("are_shown", default=True)


@contextmanager
def bars(*, shown: bool) -> Iterator[None]:
    """While this lasts, bars are shown as before, or not at all.

    Args:
        shown: false for no bar.
    """
    token = ARE_SHOWN.set(shown and ARE_SHOWN.get())
    try:
        yield
    finally:
        ARE_SHOWN.reset(token)


def may_show() -> bool:
    """Whether this process shows bars: rank 0 does, unless they are switched off."""
    is_first = not distributed.is_initialized() or distributed.get_rank() == 0
    return ARE_SHOWN.get() and is_first


def progress_bar(total: int | None, unit: str, name: str = "") -> tqdm[Any]:
    """A bar that shows on a terminal after two seconds, and goes with its work.

    Args:
        total: so many units; `None` where nobody knows.
        unit: what is counted.
        name: before the bar.
    """
    only_on_a_terminal = None  # in the words of tqdm
    return tqdm(
        total=total,
        unit=unit,
        desc=name or None,
        leave=False,
        delay=DELAY,
        disable=only_on_a_terminal if may_show() else True,
    )


def watched(items: Iterable[Item], total: int | None, unit: str, name: str = "") -> Iterator[Item]:
    """The items, with a bar of those that were worked on.

    Example:
        >>> list(watched([1, 2], 2, "block"))
        [1, 2]
    """
    with progress_bar(total, unit, name) as bar:
        for item in items:
            yield item
            bar.update()
