"""Numbers as they are handed over: of the right kind, finite, and in their range, or refused by name."""

from __future__ import annotations

from math import inf, isfinite
from numbers import Integral, Real
from typing import Any

from torch import Tensor


def check_number(
    owner: str,
    name: str,
    value: Any,
    *,
    fix: str,
    least: float | None = None,
    above: float | None = None,
) -> None:
    """Refuse what is no finite number in its range.

    Args:
        owner: who was called, for the message.
        name: of the argument.
        value: what was handed over.
        fix: code that works.
        least: the least value that is allowed.
        above: what the value must be larger than.

    Raises:
        TypeError: for what is no number; True is none.
        ValueError: for one out of its range, NaN and infinity among them.

    Example:
        >>> check_number("Player", "lr", 1e-3, least=0, fix="lr=1e-3")
    """
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, Real):
        got = repr(value) if isinstance(value, (bool, str)) else type(value).__name__
        raise TypeError(f"{owner}: expected {name} as a number, got {got}. Fix: {fix}.")
    number = float(value)
    bound = ""
    in_range = isfinite(number)
    if least is not None:
        bound = f" >= {least:g}"
        in_range = in_range and number >= least
    if above is not None:
        bound = f" > {above:g}"
        in_range = in_range and number > above
    if not in_range:
        has_article = name.startswith("a ")
        kind = "a finite " if not has_article and (number == inf or not bound) else ""
        raise ValueError(f"{owner}: expected {kind}{name}{bound}, got {value}. Fix: {fix}.")


def check_count(owner: str, name: str, value: Any, *, fix: str, least: int = 1) -> None:
    """Refuse what is no whole number, or less than the least.

    Args:
        owner: who was called, for the message.
        name: of the argument.
        value: what was handed over.
        fix: code that works.
        least: the least number that is allowed.

    Raises:
        TypeError: for what is no integer; True is none.
        ValueError: for less than the least.

    Example:
        >>> check_count("Alternating", "n_critic", 5, fix="n_critic=1")
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        got = type(value).__name__ if not isinstance(value, (bool, float, str)) else repr(value)
        raise TypeError(f"{owner}: expected {name} as a whole number, got {got}. Fix: {fix}.")
    if value < least:
        raise ValueError(f"{owner}: expected {name} >= {least}, got {value}. Fix: {fix}.")
