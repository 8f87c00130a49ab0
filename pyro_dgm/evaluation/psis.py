"""Pareto k-hat: how heavy the tail of the importance weights is, per datum."""

from __future__ import annotations

from math import ceil, log, log10, sqrt
from sys import float_info

import numpy as np
import torch
from torch import Tensor

LEAST_TAIL = 5  # weights, to fit two parameters to
CACHED = 2**16  # numbers of a block of tails, which stay in the cache while the grid goes over them: twice as fast
UNDERFLOW = log(float_info.min)  # below it exp leaves the normal numbers


def khat(log_weight: Tensor) -> Tensor:
    r"""Shape k̂ of the generalized Pareto law fitted to the largest weights of each datum.

    Importance estimates are reliable below `khat_threshold(K)`; above 1 the weights have no mean. It sees only
    where the guide draws: a mode that the guide misses altogether leaves no mark. Data are fitted in batches in
    float64: 10,000 data of 1,000 draws take 0.1 to 0.3 s on one core.

    The tail are the weights above the one of rank $\lceil \min(K / 5, 3 \sqrt K) \rceil + 1$: the rule of the paper and
    of `psislw` in ArviZ with `reff=1`, also where weights tie at that rank.

    Args:
        log_weight: `(K, N)` log weights, $\log p - \log q$ (the sign of ArviZ is opposite for `psislw` in 0.23).

    Shape:
        `(K, N)`  ->  `(N,)`; +∞ where fewer than 5 weights make up the tail, −∞ for constant weights (an exact guide),
        which have none.

    References:
        Vehtari et al. 2024, *Pareto smoothed importance sampling*, arXiv:1507.02646;
        Zhang, Stephens 2009, *A new and efficient estimation method for the generalized Pareto distribution*.

    Example:
        >>> bool(khat(torch.randn(1000, 3, generator=torch.Generator().manual_seed(0))).max() < 0.7)
        True
    """
    num = len(log_weight)
    num_tail = ceil(min(0.2 * num, 3 * sqrt(num)))
    blocks = log_weight.detach().split(max(1, CACHED // max(1, num_tail)), dim=1)
    return torch.cat([_shapes(block, num_tail) for block in blocks])


def khat_threshold(num: int) -> float:
    r"""$\min(1 - 1/\log_{10} K,\ 0.7)$: the largest k̂ at which K draws give a reliable estimate.

    Example:
        >>> khat_threshold(100_000)
        0.7
    """
    return min(1 - 1 / log10(num), 0.7) if num > 1 else 0.0


def _shapes(log_w: Tensor, num_tail: int) -> Tensor:
    """k̂ of a block of data; the order needs no float64, and the tail is a small part of the weights."""
    largest = _largest(log_w, num_tail + 1).double() if num_tail < len(log_w) else log_w.double()
    top = largest.amax(0)
    constant = (log_w.amin(0).double() - top > -1e-9) & (len(log_w) > 1)
    shape = _tail_shape(largest - top) if num_tail >= LEAST_TAIL else torch.full_like(top, torch.inf)
    return torch.where(constant, -torch.inf, shape)


def _largest(value: Tensor, num: int) -> Tensor:
    """The `num` largest of each column `(num, N)`, in descending order and in the dtype of the value."""
    if value.device.type != "cpu":
        return value.topk(num, dim=0).values
    # numpy selects with vector instructions, several times as fast as topk.
    rows = value.numpy().T.copy()
    rows.partition(rows.shape[1] - num, axis=1)
    return torch.from_numpy(np.sort(rows[:, -num:], axis=1)[:, ::-1].T.copy())


def _tail_shape(tail: Tensor) -> Tensor:
    """k̂ `(N,)` of descending log weights `(M + 1, N)`; the first is 0, the last the edge of the tail."""
    edge = tail[-1].clamp(min=UNDERFLOW).exp()
    excess = (tail[:-1].exp() - edge).clamp(min=0)  # 0 for a weight that ties with the edge
    num = (excess > 0).sum(0)
    enough = num >= LEAST_TAIL
    # A tail that is too short is fitted as any other, so that no datum waits for a host; its fit is not read.
    ramp = torch.arange(len(excess), 0, -1, dtype=excess.dtype, device=excess.device)[:, None]
    shape = _pareto_shape(torch.where(enough, excess, ramp), torch.where(enough, num, len(excess)))
    return torch.where(enough, shape, torch.inf)


def _pareto_shape(excess: Tensor, num: Tensor) -> Tensor:
    """Posterior-mean shape of a generalized Pareto law, prior k ~ 0.5, from the first M_n of descending excesses.

    Args:
        excess: `(M, N)`, 0 from row M_n on: they add nothing to sums of log1p.
        num: M_n `(N,)`.
    """
    num_grid = 30 + num.double().sqrt().long()
    grid = torch.arange(1, 31 + int(sqrt(len(excess))), dtype=excess.dtype, device=excess.device)[:, None]
    quartile = excess.gather(0, (num - (num / 4 + 0.5).long())[None])
    theta = 1 / excess[0] + (1 - (num_grid / (grid - 0.5)).sqrt()) / (3 * quartile)
    k = torch.stack([torch.log1p(-t * excess).sum(0) for t in theta]) / num
    profile = num * ((-theta / k).log() - k - 1)
    weight = profile.masked_fill(grid > num_grid, -torch.inf).softmax(0)
    theta_hat = (weight * theta).sum(0)
    k_hat = torch.log1p(-theta_hat * excess).sum(0) / num
    return (num * k_hat + 10 * 0.5) / (num + 10)
