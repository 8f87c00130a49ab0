"""Correlated normals as conditionals: posteriors with a full or a low-rank covariance."""

from __future__ import annotations

from math import log, pi
from typing import Any

import pyro.distributions as dist
import torch
from torch import Size, Tensor, nn

from ..flows.transform import Evaluation
from .conditional import POSITIVE_FLOOR, positive


class MultivariateNormal(nn.Module):
    r"""$q(z \mid c) = \mathcal N(z;\ \mu,\ L L^\top)$ with $L = \mathrm{diag}(\sigma)\,(I + N / \sqrt D)$; exact.

    N is strictly lower triangular. Its entries are measured in σ, so that a learning rate moves all of L by like
    amounts: read as they are, they swamped a 40-dimensional posterior with noise. Own draws are scored without solving
    for ε, see `CholeskyNormal`.

    Args:
        net: maps contexts to `(*batch, D + D (D + 1) / 2)`: D locations, D raw scales, then the entries of N below the
            diagonal, row by row.
        dim: size D of z.
        floor: smallest entry of σ.

    Shape:
        c: `(*batch, C)`  ->  batch_shape `(*batch)`, event_shape `(dim,)`.

    Raises:
        ValueError: if the network's last dim is another.

    Example:
        >>> MultivariateNormal(nn.Linear(3, 4 + 10), dim=4)(torch.zeros(7, 3)).event_shape
        torch.Size([4])
    """

    entry: Tensor

    def __init__(self, net: nn.Module, dim: int, floor: float = POSITIVE_FLOOR):
        super().__init__()
        self.net, self.dim, self.floor = net, dim, floor
        entry = torch.zeros(
            dim, dim, dtype=torch.long
        )  # where in [0, entries below the diagonal] each one stands
        rows, columns = torch.tril_indices(dim, dim, -1)
        entry[rows, columns] = torch.arange(1, len(rows) + 1)
        self.register_buffer("entry", entry, persistent=False)

    def forward(self, *contexts: Tensor) -> dist.TorchDistribution:
        raw, num_below = self.net(*contexts), self.dim * (self.dim - 1) // 2
        _check_width("MultivariateNormal", raw, 2 * self.dim + num_below, "D + D (D + 1) / 2")
        loc, diagonal, below = raw.split([self.dim, self.dim, num_below], dim=-1)
        padded = torch.cat([torch.zeros_like(diagonal[..., :1]), below], dim=-1)
        scale = positive(diagonal, self.floor)
        scale_tril = scale[..., None] * padded[..., self.entry] / self.dim**0.5 + torch.diag_embed(
            scale
        )
        return CholeskyNormal(loc, scale_tril=scale_tril)


class CholeskyNormal(dist.MultivariateNormal):
    r"""$z = \mu + L \varepsilon$ with $\log p(z) = -\frac12 \|\varepsilon\|^2 - \sum_d \log(L_{dd} \sqrt{2\pi})$.

    A `MultivariateNormal` that scores its own draw from the ε that made it. The way back, $L^{-1} (z - \mu)$, loses all
    digits where L is ill-conditioned, as it is for D = 40 after a few steps with a KL annealed from 0.
    """

    _last: Evaluation | None = None

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(Size(sample_shape))
        eps = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        z = self.loc + (self._unbroadcasted_scale_tril @ eps[..., None])[..., 0]
        log_det = self._unbroadcasted_scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        self._last = Evaluation(eps, z, log_det)
        return z

    def log_prob(self, value: Tensor) -> Tensor:
        if self._last is None or not self._last.fits(y=value):
            return super().log_prob(value)
        eps, log_det = self._last.x, self._last.log_det
        return -eps.square().sum(-1) / 2 - log_det - eps.shape[-1] / 2 * log(2 * pi)


class LowRankMultivariateNormal(nn.Module):
    r"""$q(z \mid c) = \mathcal N(z;\ \mu(c),\ W(c) W(c)^\top + \mathrm{diag}\, v(c))$ with W of rank R. Exact.

    Args:
        net: maps contexts to `(*batch, (2 + R) D)`: D locations, D raw variances, then W row by row.
        dim: size D of z.
        rank: R.
        floor: smallest entry of v.

    Shape:
        c: `(*batch, C)`  ->  batch_shape `(*batch)`, event_shape `(dim,)`.

    Raises:
        ValueError: if the network's last dim is another.

    Example:
        >>> LowRankMultivariateNormal(nn.Linear(3, 4 * 4), dim=4, rank=2)(torch.zeros(7, 3)).event_shape
        torch.Size([4])
    """

    def __init__(self, net: nn.Module, dim: int, rank: int, floor: float = POSITIVE_FLOOR):
        super().__init__()
        if not 1 <= rank <= dim:
            raise ValueError(
                f"LowRankMultivariateNormal: expected 1 <= rank <= dim={dim}, got {rank}."
            )
        self.net, self.dim, self.rank, self.floor = net, dim, rank, floor

    def forward(self, *contexts: Tensor) -> dist.TorchDistribution:
        raw = self.net(*contexts)
        _check_width("LowRankMultivariateNormal", raw, (2 + self.rank) * self.dim, "(2 + R) D")
        loc, variance, factor = raw.split([self.dim, self.dim, self.rank * self.dim], dim=-1)
        return dist.LowRankMultivariateNormal(
            loc, factor.unflatten(-1, (self.dim, self.rank)), positive(variance, self.floor)
        )


def _check_width(name: str, raw: Tensor, width: int, formula: str) -> None:
    if raw.shape[-1] != width:
        raise ValueError(
            f"{name}: expected a network output (*batch, {width}), which is {formula}; got {tuple(raw.shape)}. "
            f"Fix: end the network with nn.Linear(hidden, {width})."
        )
