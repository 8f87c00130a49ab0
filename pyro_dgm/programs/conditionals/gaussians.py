"""Correlated normals as conditionals: posteriors with a full or a low-rank covariance."""

from __future__ import annotations

from math import log, pi
from typing import Any

import pyro.distributions as dist
import torch
from torch import Size, Tensor, nn

from ...densities.precision import network_output, without_autocast
from ...display.representation import SettingsFirst
from ..flows.transform import Evaluation
from ..requirements import require_network, require_sizes
from .conditional import POSITIVE_FLOOR, positive


class MultivariateNormal(SettingsFirst):
    r"""$q(z \mid c) = \mathcal N(z; \mu, L L^\top)$, $L = \mathrm{diag}(\sigma)\,(I + N / \sqrt D)$. Exact.

    N is strictly lower triangular. Its entries are in units of σ, so that a learning rate changes all of L by
    like amounts: as entries of L itself they swamped a 40-dimensional posterior with noise. Own draws are
    scored without solving for ε, see `CholeskyNormal`.

    Args:
        net: maps contexts to `(*batch, D + D (D + 1) / 2)`: D locations, D raw scales, then the entries of N
            below the diagonal, row by row.
        dim: size D of z.
        floor: smallest entry of σ.

    Shape:
        c: `(*batch, C)`  ->  batch_shape `(*batch)`, event_shape `(dim,)`.

    Raises:
        TypeError: if `net` is no network.
        ValueError: for a `dim` below 1, or if the network's last dim is another.

    Example:
        >>> MultivariateNormal(nn.Linear(3, 4 + 10), dim=4)(torch.zeros(7, 3)).event_shape
        torch.Size([4])
    """

    entry: Tensor

    def __init__(self, net: nn.Module, dim: int, floor: float = POSITIVE_FLOOR):
        super().__init__()
        require_network("MultivariateNormal", net)
        require_sizes("MultivariateNormal", dim=dim)
        self.net = net
        self.dim = dim
        self.floor = floor
        self.register_buffer("entry", _positions_below_diagonal(dim), persistent=False)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, floor={self.floor}"

    def forward(self, *contexts: Tensor) -> dist.TorchDistribution:
        raw = network_output(self.net(*contexts))
        num_below = self.dim * (self.dim - 1) // 2
        width = 2 * self.dim + num_below
        _check_width("MultivariateNormal", raw, width, "D + D (D + 1) / 2")
        loc, raw_scale, below = raw.split([self.dim, self.dim, num_below], dim=-1)
        scale_tril = self._scale_tril(positive(raw_scale, self.floor), below)
        return CholeskyNormal(loc, scale_tril=scale_tril)

    def _scale_tril(self, scale: Tensor, below: Tensor) -> Tensor:
        r"""$L = \mathrm{diag}(\sigma)\,(I + N / \sqrt D)$ `(*batch, D, D)`, of σ and the entries of N."""
        zero = torch.zeros_like(scale[..., :1])
        entries = torch.cat([zero, below], dim=-1)
        strictly_lower = entries[..., self.entry]
        off_diagonal = scale[..., None] * strictly_lower / self.dim**0.5
        return off_diagonal + torch.diag_embed(scale)


def _positions_below_diagonal(dim: int) -> Tensor:
    r"""The index of each entry of N in `[0, *entries below the diagonal]`, `(D, D)`."""
    positions = torch.zeros(dim, dim, dtype=torch.long)
    rows, columns = torch.tril_indices(dim, dim, -1)
    num_below = len(rows)
    positions[rows, columns] = torch.arange(1, num_below + 1)
    return positions


class CholeskyNormal(dist.MultivariateNormal):
    r"""$z = \mu + L \varepsilon$, $\log p(z) = -\frac12 \|\varepsilon\|^2 - \sum_d \log(L_{dd} \sqrt{2\pi})$.

    A `MultivariateNormal` that scores its own draw from the ε that made it. The way back, $L^{-1} (z - \mu)$,
    loses all digits where L is ill-conditioned, as it is for D = 40 after a few steps with a KL annealed from
    0.
    """

    _last: Evaluation | None = None

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(Size(sample_shape))
        eps = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        scale_tril = self._unbroadcasted_scale_tril
        with without_autocast():
            deviation = (scale_tril @ eps[..., None])[..., 0]
        z = self.loc + deviation
        diagonal = scale_tril.diagonal(dim1=-2, dim2=-1)
        log_det = diagonal.log().sum(-1)
        self._last = Evaluation(eps, z, log_det)
        return z

    def log_prob(self, value: Tensor) -> Tensor:
        if self._last is None or not self._last.fits(y=value):
            with without_autocast():
                return super().log_prob(value)
        eps = self._last.x
        log_det = self._last.log_det
        log_normalizer = eps.shape[-1] / 2 * log(2 * pi)
        return -eps.square().sum(-1) / 2 - log_det - log_normalizer


class LowRankMultivariateNormal(SettingsFirst):
    r"""$q(z \mid c) = \mathcal N(z;\ \mu(c),\ W(c) W(c)^\top + \mathrm{diag}\, v(c))$, W of rank R. Exact.

    Args:
        net: maps contexts to `(*batch, (2 + R) D)`: D locations, D raw variances, then W row by row.
        dim: size D of z.
        rank: R.
        floor: smallest entry of v.

    Shape:
        c: `(*batch, C)`  ->  batch_shape `(*batch)`, event_shape `(dim,)`.

    Raises:
        TypeError: if `net` is no network.
        ValueError: for a `dim` below 1, a rank outside 1, …, D, or if the network's last dim is another.

    Example:
        >>> LowRankMultivariateNormal(nn.Linear(3, 4 * 4), dim=4, rank=2)(torch.zeros(7, 3)).event_shape
        torch.Size([4])
    """

    def __init__(self, net: nn.Module, dim: int, rank: int, floor: float = POSITIVE_FLOOR):
        super().__init__()
        require_network("LowRankMultivariateNormal", net)
        require_sizes("LowRankMultivariateNormal", dim=dim)
        if not 1 <= rank <= dim:
            raise ValueError(
                f"LowRankMultivariateNormal: expected 1 <= rank <= dim={dim}, got {rank}. "
                f"Fix: rank={min(dim, 2)}, or MultivariateNormal for a full covariance."
            )
        self.net = net
        self.dim = dim
        self.rank = rank
        self.floor = floor

    def extra_repr(self) -> str:
        return f"dim={self.dim}, rank={self.rank}, floor={self.floor}"

    def forward(self, *contexts: Tensor) -> dist.TorchDistribution:
        raw = network_output(self.net(*contexts))
        num_factors = self.rank * self.dim
        width = 2 * self.dim + num_factors
        _check_width("LowRankMultivariateNormal", raw, width, "(2 + R) D")
        loc, raw_variance, raw_factor = raw.split([self.dim, self.dim, num_factors], dim=-1)
        factor = raw_factor.unflatten(-1, (self.dim, self.rank))
        variance = positive(raw_variance, self.floor)
        with without_autocast():  # it factorizes a matrix product
            return dist.LowRankMultivariateNormal(loc, factor, variance)


def _check_width(name: str, raw: Tensor, width: int, formula: str) -> None:
    if raw.shape[-1] != width:
        raise ValueError(
            f"{name}: expected a network output (*batch, {width}), which is {formula}; "
            f"got {tuple(raw.shape)}. "
            f"Fix: end the network with nn.Linear(hidden, {width})."
        )
