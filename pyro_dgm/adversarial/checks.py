"""Checks of what is handed over to a game, a fit or a report: an instance of the class that is meant."""

from __future__ import annotations

from dataclasses import is_dataclass
from types import NoneType
from typing import Any


def require_instance(owner: str, value: Any, kind: type, expected: str, fix: str) -> None:
    """Refuse a value that is no instance of a class.

    Args:
        owner: who was called, for the message.
        value: what was handed over.
        kind: the class that it must have.
        expected: that class in words.
        fix: code that works.

    Raises:
        TypeError: if it has not.
    """
    if not isinstance(value, kind):
        raise TypeError(f"{owner}: expected {expected}, got {describe(value)}. Fix: {fix}.")


def describe(value: Any) -> str:
    """A value in a message: settings and numbers as their repr, anything else by its type alone.

    Example:
        >>> from torch import nn
        >>> describe(3), describe(nn.Linear), describe(nn.Linear(2, 1))
        ('3', 'the class Linear', 'Linear')
    """
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if is_dataclass(value) or isinstance(value, (int, float, str, NoneType)):
        return repr(value)
    return type(value).__name__
