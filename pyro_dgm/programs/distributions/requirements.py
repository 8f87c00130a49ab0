"""What distributions ask of their arguments: levels to stand on, and a distribution to be made of."""

from __future__ import annotations

from typing import Any

from torch.distributions import Distribution

from ..requirements import describe


def require_levels(owner: str, levels: int) -> None:
    """Refuse fewer than two levels.

    Args:
        owner: name of what has the levels, for the message.
        levels: number L of levels.

    Raises:
        ValueError: if there are fewer.
    """
    if levels < 2:
        raise ValueError(
            f"{owner}: expected at least 2 levels, got {levels}. "
            "Fix: levels=256 for bytes, levels=2 for zeros and ones."
        )


def require_distribution(owner: str, value: Any, example: str) -> None:
    """Refuse what is no distribution: its class, or a conditional that has not met its context.

    Args:
        owner: name of what is built on the distribution, for the message.
        value: what was handed over.
        example: code that is right, for the message.

    Raises:
        TypeError: for anything else.
    """
    if not isinstance(value, Distribution):
        raise TypeError(f"{owner}: expected a distribution, got {describe(value)}. Fix: {example}.")
