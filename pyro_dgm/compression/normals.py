"""Normals, with a covariance or without one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .digits import Digits, Edges, Masses, clipped
from .grids import Grid
from .stack import Stack

Array = NDArray[np.float64]


def normal_digits(loc: Array, scale: Array, grid: Grid) -> Digits:
    """The codec of independent normals of the shape of `loc`."""
    from scipy.special import ndtr

    def tails(edges: Edges) -> Masses:
        at = (grid.edges(edges) - loc) / scale
        return clipped(ndtr(at), ndtr(-at), edges, grid.size)

    return Digits(tails, torch.Size(loc.shape), grid.size)


class TriangularNormal:
    r"""$z = m + L e$ with $e \sim N(0, I)$ and L lower triangular: $z_i$ is normal given $z_1, \dots, z_{i-1}$.

    Args:
        loc: m `(B, D)`, float64.
        scale_tril: L `(B, D, D)`.
        grid: of z.
    """

    def __init__(self, loc: Tensor, scale_tril: Tensor, grid: Grid):
        self.loc = loc.cpu().numpy()
        self.scale_tril = scale_tril.cpu().expand(*loc.shape, loc.shape[-1]).numpy()
        self.grid = grid

    def push(self, stack: Stack, cells: Tensor) -> None:
        """Add cells `(B, D)`."""
        columns: list[Digits] = []

        def known(column: Digits, i: int) -> Tensor:
            columns.append(column)
            return cells[:, i]

        self._walk(known)
        for i in reversed(range(len(columns))):
            columns[i].push(stack, cells[:, i])

    def pop(self, stack: Stack) -> Tensor:
        """Take cells `(B, D)` off."""
        return self._walk(lambda column, _: column.pop(stack))

    def _walk(self, cells_of: Callable[[Digits, int], Tensor]) -> Tensor:
        """The cells, one dim after the other."""
        noise = np.zeros_like(self.loc)
        found = []
        for i in range(self.loc.shape[-1]):
            grid = self.grid.column(i)
            loc = self.loc[:, i] + (self.scale_tril[:, i, :i] * noise[:, :i]).sum(-1)
            scale = np.maximum(self.scale_tril[:, i, i], 1e-30)
            cells = cells_of(normal_digits(loc, scale, grid), i)
            noise[:, i] = (grid.values(cells).numpy() - loc) / scale
            found.append(cells)
        return torch.stack(found, -1)
