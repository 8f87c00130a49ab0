"""Pareto-smoothed importance weights, and draws resampled with them."""

from __future__ import annotations

from sys import float_info

import torch
from torch import Tensor

from .pareto import LEAST_TAIL, fit_tail, tail_length


def smooth_weights(log_weight: Tensor) -> Tensor:
    r"""$\log \tilde w^{(k)}_i$, $\sum_k \tilde w^{(k)}_i = 1$: the largest weights become Pareto quantiles.

    The M largest weights of a datum are replaced, in their order, by the quantiles $(m - 1/2) / M$ of the generalized
    Pareto distribution fitted to them, at most the largest raw weight. That bounds the variance for a bias, which is
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
        >>> smooth_weights(log_w).logsumexp(0).abs().max() < 1e-12
        tensor(True)
    """
    num_tail = tail_length(len(log_weight))
    log_w = log_weight.double() - log_weight.double().amax(0)
    if num_tail < LEAST_TAIL:
        return log_w.log_softmax(0)
    tail, index = log_w.topk(num_tail + 1, dim=0)
    return log_w.scatter(0, index[:-1], _smoothed_tail(tail)).log_softmax(0)


def resampled_indices(log_weight: Tensor) -> Tensor:
    r"""$k_j \sim \mathrm{Categorical}(\tilde w_i)$: which of the K draws of each datum are taken, with replacement.

    Draws of the guide taken this way are draws of $p(z \mid x_i)$, up to the bias of `smooth_weights` weights.

    Shape:
        log weights `(K, N)`  ->  indices `(K, N)`.

    References:
        Rubin 1988, *Using the SIR algorithm to simulate posterior distributions*.
    """
    weight = smooth_weights(log_weight).exp()
    return torch.multinomial(weight.T, len(log_weight), replacement=True).T


def _smoothed_tail(log_tail: Tensor) -> Tensor:
    """New log weights `(M, N)` of descending ones `(M + 1, N)`, the largest 0, of which the last is the edge."""
    tail = fit_tail(log_tail)
    rank = torch.arange(len(tail.excess), dtype=log_tail.dtype, device=log_tail.device)[:, None]
    probability = ((tail.num - rank - 0.5) / tail.num).clamp(min=0)
    smooth = (_quantile(probability, tail.shape, tail.scale) + tail.edge).log().clamp(max=0)
    is_fitted = (tail.excess > 0) & tail.enough & tail.shape.isfinite()
    return torch.where(is_fitted, smooth, log_tail[:-1])


def _quantile(probability: Tensor, shape: Tensor, scale: Tensor) -> Tensor:
    r"""$\sigma ((1 - p)^{-k} - 1) / k$ of a generalized Pareto distribution; $-\sigma \log(1 - p)$ at k = 0."""
    exponential = -torch.log1p(-probability)
    is_exponential = shape.abs() < float_info.epsilon
    k = torch.where(is_exponential, 1.0, shape)
    curved = torch.expm1(k * exponential) / k
    return scale * torch.where(is_exponential, exponential, curved)
