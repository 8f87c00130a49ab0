"""What a setting is searched over: a list of values, or a range of numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, inf, log
from random import Random
from typing import Any

import yaml

NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
RANGE = re.compile(rf"({NUMBER})\.\.({NUMBER})(:log)?")
SEARCHED = ("model", "objective", "trainer", "adversarial", "epochs", "batch_size", "patience")
FIX = "--over.model.latent=4,8,16, or --over.trainer.lr=1e-4..1e-2:log with --num=20"


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both among them: integers where both are, else reals.

    Args:
        low, high: the ends.
        log: whether draws are uniform in the logarithm.

    Raises:
        ValueError: for ends that are not finite or not in order, and for a logarithm of what is not positive.

    Example:
        >>> Range(1, 3).draw(Random(0)) in (1, 2, 3)
        True
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        least = 0.0 if self.log else -inf
        if not least < self.low < self.high < inf:
            positive = " and positive" if self.log else ""
            raise ValueError(
                f"over: expected ends of a range that are finite{positive}, the lower one first, got {self}. "
                f"Fix: {FIX}."
            )

    @property
    def is_integer(self) -> bool:
        """Whether it holds integers alone."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def draw(self, random: Random) -> int | float:
        """A number of the range, each as likely as any other, or each order of magnitude."""
        if self.is_integer and not self.log:
            return random.randint(int(self.low), int(self.high))
        if self.is_integer:
            real = exp(random.uniform(log(self.low - 0.5), log(self.high + 0.5)))
            return min(max(round(real), int(self.low)), int(self.high))
        if self.log:
            return min(max(exp(random.uniform(log(self.low), log(self.high))), self.low), self.high)
        return random.uniform(self.low, self.high)

    def __str__(self) -> str:
        return f"{self.low}..{self.high}{':log' if self.log else ''}"


Space = dict[str, list[Any] | Range]


def read_space(over: Mapping[str, Any]) -> Space:
    """What each setting is searched over, from lists, ranges and words.

    Args:
        over: path of a setting → a list of values, a `Range`, or what a flag says of either.

    Raises:
        ValueError: for no setting, no value, values that are there twice, and settings that make trials incomparable.

    Example:
        >>> read_space({"model.latent": "4,8", "trainer.lr": "1e-4..1e-2:log"})
        {'model.latent': [4, 8], 'trainer.lr': Range(low=0.0001, high=0.01, log=True)}
    """
    if not over:
        raise ValueError(f"over: expected one setting or more, got none. Fix: {FIX}.")
    return {path: _values(path, given) for path, given in over.items()}


def has_range(space: Space) -> bool:
    """Whether there is one that no list exhausts."""
    return any(isinstance(values, Range) for values in space.values())


def _values(path: str, given: Any) -> list[Any] | Range:
    if path.split(".")[0] not in SEARCHED:
        raise ValueError(
            f"over: expected a setting of {', '.join(SEARCHED)}, got '{path}': trials are compared on the same data "
            f"and seeds. Fix: {FIX}."
        )
    if isinstance(given, Range):
        return given
    found = _read(given) if isinstance(given, str) else given
    if isinstance(found, Range):
        return found
    if not isinstance(found, Sequence) or isinstance(found, str) or len(found) == 0:
        raise ValueError(
            f"over.{path}: expected a list of values or a range, got {given!r}. Fix: {FIX}."
        )
    values = list(found)
    if any(value in values[:place] for place, value in enumerate(values)):
        raise ValueError(f"over.{path}: expected each value once, got {values}. Fix: {FIX}.")
    return values


def _read(text: str) -> list[Any] | Range:
    """What a flag says: `a,b,c` in YAML, or `low..high`, with `:log` behind it."""
    found = RANGE.fullmatch(text.strip())
    if found:
        return Range(_number(found[1]), _number(found[2]), log=bool(found[3]))
    try:
        values = yaml.safe_load(f"[{text}]")
    except yaml.YAMLError as error:
        raise ValueError(
            f"over: expected a list of values or a range, got '{text}'. Fix: {FIX}."
        ) from error
    return [_number(value) if isinstance(value, str) else value for value in values]


def _number(text: str) -> Any:
    """An integer, a real (YAML takes 1e-3 for a word), or the word itself."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
