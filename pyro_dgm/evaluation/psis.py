"""Pareto k-hat: how heavy the tail of the importance weights is, per datum."""

from __future__ import annotations

from math import ceil, log10, sqrt

import torch
from torch import Tensor


def khat(log_weight: Tensor) -> Tensor:
    r"""Shape k̂ of the generalized Pareto law fitted to the largest weights of each datum.

    Importance estimates are reliable below `khat_threshold(K)`; above 1 the weights have no mean. It sees only
    where the guide draws: a mode that the guide misses altogether leaves no mark. All data are fitted in one batched
    pass in float64.

    Args:
        log_weight: `(K, N)` log weights, $\log p - \log q$ (the sign of ArviZ is opposite for `psislw` in 0.23).

    Shape:
        `(K, N)`  ->  `(N,)`; +∞ where weights tie at the edge of the tail or draws are too few to fit, −∞ for constant
        weights (an exact guide), which have no tail.

    References:
        Vehtari et al. 2024, *Pareto smoothed importance sampling*, arXiv:1507.02646;
        Zhang, Stephens 2009, *A new and efficient estimation method for the generalized Pareto distribution*.

    Example:
        >>> bool(khat(torch.randn(1000, 3, generator=torch.Generator().manual_seed(0))).max() < 0.7)
        True
    """
    num = len(log_weight)
    num_tail = ceil(min(0.2 * num, 3 * sqrt(num)))
    log_w = log_weight.double() - log_weight.double().amax(0)
    constant = (log_w.amin(0) > -1e-9) & (num > 1)
    if num_tail < 5:
        return torch.where(constant, -torch.inf, torch.full_like(log_w[0], torch.inf))
    largest = log_w.topk(num_tail + 1, dim=0).values.flip(0)
    cutoff = largest[0].clamp(min=-708.0)  # below it exp underflows
    excess = largest[1:].exp() - cutoff.exp()
    degenerate = (excess <= 0).any(0)
    shape = _pareto_shape(torch.where(degenerate, torch.ones_like(excess).cumsum(0), excess))
    return torch.where(constant, -torch.inf, torch.where(degenerate, torch.inf, shape))


def khat_threshold(num: int) -> float:
    r"""$\min(1 - 1/\log_{10} K,\ 0.7)$: the largest k̂ at which K draws give a reliable estimate.

    Example:
        >>> khat_threshold(100_000)
        0.7
    """
    return min(1 - 1 / log10(num), 0.7) if num > 1 else 0.0


def _pareto_shape(excess: Tensor) -> Tensor:
    """Posterior-mean shape of a generalized Pareto law, from ascending excesses `(M, N)`, with the prior k ~ 0.5."""
    num = len(excess)
    num_grid = 30 + int(sqrt(num))
    grid = torch.arange(1, num_grid + 1, dtype=excess.dtype, device=excess.device)[:, None]
    quartile = excess[int(num / 4 + 0.5) - 1]
    theta = 1 / excess[-1] + (1 - (num_grid / (grid - 0.5)).sqrt()) / (3 * quartile)
    k = torch.stack([torch.log1p(-t * excess).mean(0) for t in theta])
    profile = num * ((-theta / k).log() - k - 1)
    theta_hat = (profile.softmax(0) * theta).sum(0)
    k_hat = torch.log1p(-theta_hat * excess).mean(0)
    return (num * k_hat + 10 * 0.5) / (num + 10)
