"""Correlated normals as conditionals: posteriors with a full or a low-rank covariance."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from .conditional import POSITIVE_FLOOR, positive


class MultivariateNormal(nn.Module):
    r"""$q(z \mid c) = \mathcal N(z;\ \mu(c),\ L(c) L(c)^\top)$ with L lower triangular, its diagonal positive. Exact.

    Args:
        net: maps contexts to `(*batch, D + D (D + 1) / 2)`: D locations, D raw diagonal entries of L, then the entries
            below the diagonal, row by row.
        dim: size D of z.
        floor: smallest entry of L's diagonal.

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
        entry = torch.zeros(dim, dim, dtype=torch.long)  # where in [0, entries below the diagonal] each one stands
        rows, columns = torch.tril_indices(dim, dim, -1)
        entry[rows, columns] = torch.arange(1, len(rows) + 1)
        self.register_buffer("entry", entry, persistent=False)

    def forward(self, *contexts: Tensor) -> dist.TorchDistribution:
        raw, num_below = self.net(*contexts), self.dim * (self.dim - 1) // 2
        _check_width("MultivariateNormal", raw, 2 * self.dim + num_below, "D + D (D + 1) / 2")
        loc, diagonal, below = raw.split([self.dim, self.dim, num_below], dim=-1)
        padded = torch.cat([torch.zeros_like(diagonal[..., :1]), below], dim=-1)
        scale_tril = padded[..., self.entry] + torch.diag_embed(positive(diagonal, self.floor))
        return dist.MultivariateNormal(loc, scale_tril=scale_tril)


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
            raise ValueError(f"LowRankMultivariateNormal: expected 1 <= rank <= dim={dim}, got {rank}.")
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
