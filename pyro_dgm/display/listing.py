"""Names in a message: the first of them, and how many more there are."""

from __future__ import annotations

from collections.abc import Sequence


def first_of(names: Sequence[str], most: int) -> str:
    """The first names, and how many more there are.

    Example:
        >>> first_of(["x", "y", "z"], 2), first_of(["x", "y"], 2)
        ('x, y and 1 more', 'x, y')
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def first_quoted(names: Sequence[str], most: int) -> str:
    """The same, each name in quotes."""
    return first_of([f"'{name}'" for name in names], most)
