"""Local bits-back coding: flows, whose density is that of their noise and the slope there."""

from __future__ import annotations

from copy import deepcopy
from math import ceil, e, log2, pi, sqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..densities.precision import floating_tensors, in_float64
from ..programs.flows.transform import FlowTransform
from .digits import Codec
from .grids import Grid
from .normals import TriangularNormal, normal_digits
from .stack import Stack

SPREAD = 64.0  # cells of z: the standard deviation of the noise around T(u)
FINER = 10  # more digits of u than of z: those of directions that the inverse contracts
BITS_OF_NOISE = FINER + ceil(log2(SPREAD * sqrt(2 * pi * e)))  # per dim, beside the digits of z


class LocalBitsBack:
    r"""$z = T(u)$, $u \sim p$: z is coded beside the u that it comes from, and the freedom of u comes back.

    $$-\log p(z) \approx -\log p(u) - \log N(z; T(u), s^2 I) + \log N(u; T^{-1}(z), s^2 A A^T), \quad
    A = \partial T^{-1} / \partial z.$$

    Exact decoding whatever T and A are. The bits are those of the density where T is straight over s, which is 64 cells
    of z, and A contracts no direction by more than 1,000; a datum at which they aren't may take some 100 bits more.

    Args:
        distribution: of z, batch shape `(B,)`.
        base: the codec of u.
        noise: the grid of u.
        grid: the grid of z.

    References:
        Ho, Lohn, Abbeel 2019, *Compression with flows via local bits-back coding*, arXiv:1905.08500.
    """

    def __init__(self, distribution: Any, base: Codec, noise: Grid, grid: Grid):
        self.transforms = [in_float64_with_networks(part) for part in distribution.transforms]
        self.device = device_of(distribution)
        self.base = base
        self.noise = noise
        self.grid = grid

    def push(self, stack: Stack, cells: Tensor) -> None:
        """Add cells `(B, D)` of z."""
        noise = self._backward(cells).pop(stack)
        self._forward(noise).push(stack, cells)
        self.base.push(stack, noise)

    def pop(self, stack: Stack) -> Tensor:
        """Take cells `(B, D)` of z off."""
        noise = self.base.pop(stack)
        cells = self._forward(noise).pop(stack)
        self._backward(cells).push(stack, noise)
        return cells

    @property
    def spread(self) -> float:
        """The standard deviation s of the noise around T(u)."""
        return SPREAD * self.grid.width

    def _forward(self, noise: Tensor) -> Codec:
        r"""$N(T(u), s^2 I)$."""
        z = self.noise.values(noise).to(self.device)
        for transform in self.transforms:
            z = transform(z)
        loc = z.cpu().numpy()
        return normal_digits(loc, np.full_like(loc, self.spread), self.grid)

    def _backward(self, cells: Tensor) -> TriangularNormal:
        r"""$N(T^{-1}(z), s^2 A A^T)$."""
        z = self.grid.values(cells).to(self.device)
        u, slope = self._inverse_with_slope(z)
        # A A^T = R^T R with A^T = Q R
        upper = torch.linalg.qr(slope.cpu().mT).R
        lower = (upper * upper.diagonal(dim1=-2, dim2=-1).sign()[..., None]).mT
        return TriangularNormal(u.cpu(), self.spread * lower, self.noise)

    def _inverse_with_slope(self, z: Tensor) -> tuple[Tensor, Tensor]:
        r"""$T^{-1}(z)$ `(B, D)` and its Jacobian A `(B, D, D)`, by the direction of fewer network calls."""
        forward, inverse = calls_of(self.transforms)
        if inverse <= forward:
            return _with_jacobian(self._invert, z)
        u = self._invert(z)
        _, slope = _with_jacobian(self._map, u)
        return u, torch.linalg.inv(slope)

    def _map(self, u: Tensor) -> Tensor:
        for transform in self.transforms:
            u = transform(u)
        return u

    def _invert(self, z: Tensor) -> Tensor:
        for transform in reversed(self.transforms):
            z = transform.inv(z)
        return z


def in_float64_with_networks(transform: Any) -> Any:
    """A transform whose tensors, and whose networks' weights, are in float64: a rounded T would be no smooth map."""
    if not isinstance(transform, FlowTransform):
        return in_float64(transform)
    context = transform.context
    bijector = deepcopy(transform.bijector).double()
    return FlowTransform(bijector, None if context is None else context.double())


def device_of(distribution: Any) -> torch.device:
    """Where a distribution's tensors are."""
    for tensor in floating_tensors(distribution):
        return tensor.device
    return torch.device("cpu")


def calls_of(transforms: list[Any]) -> tuple[int, int]:
    """Network calls of a map and of its inverse."""
    forward, inverse = 0, 0
    for transform in transforms:
        if isinstance(transform, FlowTransform):
            forward += transform.bijector.num_forward or 0
            inverse += transform.bijector.num_inverse or 0
    return forward, inverse


def _with_jacobian(function: Any, at: Tensor) -> tuple[Tensor, Tensor]:
    r"""f(x) `(B, D)` and $\partial f_i / \partial x_j$ `(B, D, D)`, by D passes back."""
    with torch.enable_grad():
        x = at.detach().clone().requires_grad_()
        y = function(x)
        rows = []
        for i in range(y.shape[-1]):
            (row,) = torch.autograd.grad(y[:, i].sum(), x, retain_graph=True)
            rows.append(row)
    return y.detach(), torch.stack(rows, -2)
