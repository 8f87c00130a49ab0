"""Scalars by the binary digits of their cells: each digit is a coin, whose probability two masses give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .stack import PRECISION, Coins, Counts, Stack

WHOLE = 1 << PRECISION
Edges = NDArray[np.int64]
Masses = NDArray[np.float64]  # (2, *edges.shape): those below edges, and those above
Tails = Callable[[Edges], Masses]


class Codec(Protocol):
    """A distribution over cells that a stack can code; `push` and `pop` are each other's exact inverse."""

    def push(self, stack: Stack, cells: Tensor) -> None:
        r"""Add cells `(B, *event)`, int64, of probability P: $-\log_2 P$ bits."""

    def pop(self, stack: Stack) -> Tensor:
        r"""Take cells `(B, *event)` off; of random bits they are a draw."""


class Digits:
    r"""$P(k) = \prod_j P(b_j \mid b_1 \dots b_{j-1})$: independent cells k of masses $F(k + 1) - F(k)$, digit by digit.

    The first digit says in which half of the cells k lies, the next in which quarter. Every cell can be coded, at a
    cost of at most 24 bits a digit, however far in a tail: no probability is below $2^{-24}$. Where float64 tells no
    two masses apart, both halves are equally probable. Above the median masses are differences of $1 - F$, which keeps
    the digits there that F has lost.

    Args:
        tails: F and 1 − F at edges `(B, *event)`, int64, in 0, …, size: the masses of the cells below and above, in
            float64, times any constant.
        shape: `(B, *event)`.
        size: number of cells.
    """

    def __init__(self, tails: Tails, shape: torch.Size, size: int):
        self.tails = tails
        self.shape = shape
        self.size = size

    def push(self, stack: Stack, cells: Tensor) -> None:
        """Add cells `(B, *event)`."""
        given = cells.numpy().reshape(self.shape)
        pushed: list[tuple[Coins, Counts]] = []

        def known(plane: int, counts: Counts) -> Coins:
            coins = ((given >> plane) & 1).astype(np.bool_)
            pushed.append((_rows(coins), counts))
            return coins

        self._walk(known)
        for coins, counts in reversed(pushed):
            stack.push(coins, counts)

    def pop(self, stack: Stack) -> Tensor:
        """Take cells `(B, *event)` off."""
        cells = self._walk(lambda _, counts: stack.pop(counts).reshape(self.shape))
        return torch.from_numpy(cells)

    def _walk(self, coins_of: Callable[[int, Counts], Coins]) -> Edges:
        """The cells that coins lead to, of the highest digit first."""
        low = np.zeros(self.shape, np.int64)
        start = self.tails(low)
        end = self.tails(low + self.size)
        for plane in reversed(range((self.size - 1).bit_length())):
            middle = low + (1 << plane)
            at = self.tails(np.minimum(middle, self.size))
            coins = coins_of(plane, _counts(_between(start, at), _between(start, end)))
            low = np.where(coins, middle, low)
            start, end = np.where(coins, at, start), np.where(coins, end, at)
        return low


def clipped(below: Masses, above: Masses, edges: Edges, size: int) -> Masses:
    """Both masses at edges, with all mass between the lowest edge, 0, and the highest one, size."""
    is_low, is_high = edges <= 0, edges >= size
    below = np.where(is_low, 0.0, np.where(is_high, 1.0, below))
    above = np.where(is_low, 1.0, np.where(is_high, 0.0, above))
    return np.stack([below, above])


def _between(start: Masses, end: Masses) -> Masses:
    """The mass between two edges, from the side where the lower one has less."""
    return np.where(start[0] < start[1], end[0] - start[0], start[1] - end[1])


def _counts(part: Masses, whole: Masses) -> Counts:
    """Probabilities of 0 as counts `(B, C)` in 1, …, 2^24 − 1; half of them where the whole has no mass."""
    is_void = ~(whole > 0)
    probability = np.where(is_void, 0.5, part / np.where(is_void, 1.0, whole))
    scaled = np.rint(np.nan_to_num(probability, nan=0.5) * WHOLE)
    return _rows(np.clip(scaled, 1, WHOLE - 1).astype(np.uint64))


def _rows(array: NDArray[Any]) -> NDArray[Any]:
    return array.reshape(len(array), -1)
