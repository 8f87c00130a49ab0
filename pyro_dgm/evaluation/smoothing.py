"""Pareto-smoothed importance weights, and draws resampled with them."""

from __future__ import annotations

from math import ceil, log, sqrt
from sys import float_info

import torch
from torch import Tensor

LEAST_TAIL = 5  # weights, to fit two parameters to
UNDERFLOW = log(float_info.min)  # below it exp leaves the normal numbers


def smoothed(log_weight: Tensor) -> Tensor:
    r"""$\log \tilde w^{(k)}_i$, $\sum_k \tilde w^{(k)}_i = 1$: the largest weights become quantiles of a Pareto law.

    The M largest weights of a datum are replaced, in their order, by the quantiles $(m - 1/2) / M$ of the generalized
    Pareto law fitted to them, at most the largest raw weight. That bounds the variance for a little bias, which is
    small where `khat` is below its threshold. Where fewer than 5 weights lie above the edge of the tail, as where
    they tie, the raw weights stay.

    Args:
        log_weight: `(K, N)` log weights, $\log p - \log q$, which is the sign of `arviz.psislw` in 0.23.

    Shape:
        `(K, N)`  ->  `(K, N)`, float64.

    References:
        Vehtari et al. 2024, *Pareto smoothed importance sampling*, arXiv:1507.02646.

    Example:
        >>> log_w = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0))
        >>> smoothed(log_w).logsumexp(0).abs().max() < 1e-12
        tensor(True)
    """
    num = len(log_weight)
    num_tail = ceil(min(0.2 * num, 3 * sqrt(num)))
    log_w = log_weight.double() - log_weight.double().amax(0)
    if num_tail < LEAST_TAIL:
        return log_w.log_softmax(0)
    tail, index = log_w.topk(num_tail + 1, dim=0)
    return log_w.scatter(0, index[:-1], _smoothed_tail(tail)).log_softmax(0)


def resampled(log_weight: Tensor) -> Tensor:
    r"""$k_j \sim \mathrm{Categorical}(\tilde w_i)$: which of the K draws of each datum are taken, with replacement.

    Draws of the guide taken this way are draws of $p(z \mid x_i)$, up to the bias of `smoothed` weights.

    Shape:
        log weights `(K, N)`  ->  indices `(K, N)`.

    References:
        Rubin 1988, *Using the SIR algorithm to simulate posterior distributions*.
    """
    return torch.multinomial(smoothed(log_weight).exp().T, len(log_weight), replacement=True).T


def _smoothed_tail(tail: Tensor) -> Tensor:
    """New log weights `(M, N)` of descending ones `(M + 1, N)`, the largest 0, of which the last is the edge."""
    edge = tail[-1].clamp(min=UNDERFLOW).exp()
    excess = (tail[:-1].exp() - edge).clamp(min=0)  # 0 for a weight that ties with the edge
    num = (excess > 0).sum(0)
    enough = num >= LEAST_TAIL
    ramp = torch.arange(len(excess), 0, -1, dtype=excess.dtype, device=excess.device)[:, None]
    place = torch.where(enough, num, len(excess))
    # A tail that is too short is fitted as any other, so that no datum waits for a host; its fit is not read.
    shape, scale = _pareto_fit(torch.where(enough, excess, ramp), place)
    probability = ((place - ramp.flip(0) + 0.5) / place).clamp(min=0)
    smooth = (_quantile(probability, shape, scale) + edge).log().clamp(max=0)
    return torch.where((excess > 0) & enough & shape.isfinite(), smooth, tail[:-1])


def _quantile(probability: Tensor, shape: Tensor, scale: Tensor) -> Tensor:
    r"""$\sigma ((1 - p)^{-k} - 1) / k$ of a generalized Pareto law; $-\sigma \log(1 - p)$ at k = 0."""
    exponential = -torch.log1p(-probability)
    flat = shape.abs() < float_info.epsilon
    k = torch.where(flat, 1.0, shape)
    return scale * torch.where(flat, exponential, torch.expm1(k * exponential) / k)


def _pareto_fit(excess: Tensor, num: Tensor) -> tuple[Tensor, Tensor]:
    """Posterior-mean shape, with the prior k ~ 0.5, and scale of a generalized Pareto law, each `(N,)`.

    Args:
        excess: descending excesses `(M, N)`, 0 from row M_n on: they add nothing to sums of log1p.
        num: M_n `(N,)`.
    """
    num_grid = 30 + num.double().sqrt().long()
    grid = torch.arange(1, 31 + int(sqrt(len(excess))), dtype=excess.dtype, device=excess.device)[:, None]
    quartile = excess.gather(0, (num - (num / 4 + 0.5).long())[None])
    theta = 1 / excess[0] + (1 - (num_grid / (grid - 0.5)).sqrt()) / (3 * quartile)
    k = torch.stack([torch.log1p(-t * excess).sum(0) for t in theta]) / num
    profile = num * ((-theta / k).log() - k - 1)
    theta_hat = (profile.masked_fill(grid > num_grid, -torch.inf).softmax(0) * theta).sum(0)
    k_hat = torch.log1p(-theta_hat * excess).sum(0) / num
    return (num * k_hat + 10 * 0.5) / (num + 10), -k_hat / theta_hat
