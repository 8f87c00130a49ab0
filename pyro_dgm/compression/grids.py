"""What a site's values are coded as: whole numbers of cells."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor, log2
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


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
    def around(cls, low: float, high: float, bits: int) -> Grid:
        """A grid that covers an interval twice, with edges that float64 holds exactly."""
        span = max(high - low, 1e-6 * max(abs(low), abs(high), 1e-6))
        width = 2.0 ** ceil(log2(2 * span / 2**bits))
        middle = floor((low + high) / 2 / width)
        return cls((middle - 2 ** (bits - 1)) * width, width, bits)

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


Space = Grid | Integers


def space_of(written: dict[str, Any]) -> Space:
    """A space as `vars(space)` has written it down."""
    return Integers(**written) if "size" in written else Grid(**written)
