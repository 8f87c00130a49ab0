"""What a site's values are coded as: whole numbers of cells."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor, log2
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MOST_BITS = 48  # of a cell's number, which float64 holds


@dataclass(frozen=True)
class Grid:
    r"""Real numbers as the cells $[a, b), [b, c), …$ of one width; a cell stands for its middle.

    Attributes:
        low: the lowest edge; a number, or one for each dim.
        width: of a cell, likewise.
        bits: the number of cells is $2^{\mathrm{bits}}$; the outermost ones take the tails.
    """

    low: Any
    width: Any
    bits: int

    @classmethod
    def around(cls, low: float, high: float, bits: int, scale: float | None = None) -> Grid:
        """A grid that covers an interval twice, with edges that float64 holds exactly.

        Args:
            low: the lower end.
            high: the upper end.
            bits: digits of what is as wide as `scale`; the interval has more where it is wider.
            scale: of the cells; default: that of the interval.
        """
        span = max(high - low, 1e-6 * max(abs(low), abs(high), 1e-6))
        width = 2.0 ** ceil(log2(2 * min(scale or span, span) / 2**bits))
        bits = max(bits, ceil(log2(2 * span / width)))
        middle = floor((low + high) / 2 / width)
        return cls((middle - 2 ** (bits - 1)) * width, width, min(bits, MOST_BITS))

    @property
    def size(self) -> int:
        """The number of cells."""
        return 2**self.bits

    def values(self, cells: Tensor) -> Tensor:
        """The middles of cells, in float64."""
        return torch.from_numpy(self.edges(cells.numpy() + 0.5))

    def edges(self, number: NDArray[Any]) -> NDArray[np.float64]:
        """The lower edges of cells."""
        return self.low + number * self.width

    def column(self, i: int) -> Grid:
        """The grid of one dim."""
        if isinstance(self.low, float):
            return self
        return Grid(self.low[:, i], self.width[:, i], self.bits)


@dataclass(frozen=True)
class Integers:
    """The integers 0, …, size − 1, as the cells that they are.

    Attributes:
        size: how many there are.
    """

    size: int

    def values(self, cells: Tensor) -> Tensor:
        """The integers, in float64."""
        return cells.double()

    def edges(self, number: NDArray[Any]) -> NDArray[np.float64]:
        """The largest integers below cells: F(k − 1) is the mass of those below k."""
        return number - 1.0


@dataclass(frozen=True)
class NoisyIntegers:
    """Integers 0, …, size − 1 with noise from [0, 1): cells of $v = x + u$, which stand for x.

    Attributes:
        size: how many integers there are.
        noise: the grid of u.
    """

    size: int
    noise: Grid

    @property
    def grid(self) -> Grid:
        """The grid of v."""
        bits = (self.size - 1).bit_length() + self.noise.bits
        return Grid(0.0, self.noise.width, bits)

    def values(self, cells: Tensor) -> Tensor:
        """The integers, in float64."""
        return (cells >> self.noise.bits).double()

    def join(self, integers: Tensor, noise: Tensor) -> Tensor:
        """The cells of v of integers and the cells of their noise."""
        return (integers << self.noise.bits) + noise

    def split(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Integers and the cells of their noise: undoes `join`."""
        return cells >> self.noise.bits, cells & (self.noise.size - 1)


Space = Grid | Integers | NoisyIntegers


def unit_grid(bits: int) -> Grid:
    """The interval [0, 1]."""
    return Grid(0.0, 2.0**-bits, bits)


def space_of(written: dict[str, Any]) -> Space:
    """A space as `asdict` has written it down."""
    return Integers(**written) if "size" in written else Grid(**written)
