"""The tail of importance weights, and the generalized Pareto distribution fitted to it, batched over data."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log, sqrt
from sys import float_info

import torch
from torch import Tensor

LEAST_TAIL = 5  # weights, to fit two parameters to
LEAST_DRAWS = 5 * LEAST_TAIL - 4  # of which the tail is a fifth, rounded up
UNDERFLOW = log(float_info.min)  # below it exp leaves the normal numbers
PRIOR_SHAPE, PRIOR_WEIGHT = 0.5, 10  # the prior of k, worth ten weights
GRID = 30  # values of θ, and sqrt(M) more


def tail_length(num: int) -> int:
    r"""$\lceil \min(K / 5, 3 \sqrt K) \rceil$: the rule of the paper and of ArviZ with `reff=1`."""
    return ceil(min(0.2 * num, 3 * sqrt(num)))


@dataclass(frozen=True)
class Tail:
    r"""The M largest weights of every datum, and the Pareto distribution of their excesses over the edge.

    Attributes:
        excess: weights minus the edge `(M, N)`, descending; 0 for a weight that ties with the edge.
        edge: the largest weight below the tail `(N,)`.
        num: how many weights lie above the edge `(N,)`; M where they are too few to fit.
        enough: whether they are enough `(N,)`; the fit of the others is not to be read.
        shape: k̂ `(N,)`.
        scale: σ̂ `(N,)`.
    """

    excess: Tensor
    edge: Tensor
    num: Tensor
    enough: Tensor
    shape: Tensor
    scale: Tensor


def fit_tail(log_tail: Tensor) -> Tail:
    """The tail of descending log weights `(M + 1, N)`, of which the first is 0 and the last the edge."""
    edge = log_tail[-1].clamp(min=UNDERFLOW).exp()
    excess = (log_tail[:-1].exp() - edge).clamp(min=0)
    length = len(excess)
    num = (excess > 0).sum(0)
    enough = num >= LEAST_TAIL
    # A tail that is too short is fitted as any other, on a ramp, so that no datum waits for a host.
    num = torch.where(enough, num, length)
    ramp = torch.arange(length, 0, -1, dtype=excess.dtype, device=excess.device)
    shape, scale = _fit_pareto(torch.where(enough, excess, ramp[:, None]), num)
    return Tail(excess, edge, num, enough, shape, scale)


def _fit_pareto(excess: Tensor, num: Tensor) -> tuple[Tensor, Tensor]:
    r"""Posterior-mean shape k̂ and scale σ̂ of a generalized Pareto distribution, each `(N,)`.

    The profile likelihood of $\theta = -k / \sigma$ weighs a grid of its values; k has a prior around 0.5.

    Args:
        excess: descending excesses `(M, N)`, 0 from row M_n on: they add nothing to sums of log1p.
        num: M_n `(N,)`.

    References:
        Zhang, Stephens 2009, *A new and efficient estimation method for the generalized Pareto distribution*.
    """
    theta, is_outside = _grid(excess, num)
    shapes = _shapes_at(theta, excess) / num
    profile = num * ((-theta / shapes).log() - shapes - 1)
    weight = profile.masked_fill(is_outside, -torch.inf).softmax(0)
    theta_hat = (weight * theta).sum(0)
    k_hat = torch.log1p(-theta_hat * excess).sum(0) / num
    pull = PRIOR_WEIGHT * PRIOR_SHAPE
    shape = (num * k_hat + pull) / (num + PRIOR_WEIGHT)
    return shape, -k_hat / theta_hat


def _grid(excess: Tensor, num: Tensor) -> tuple[Tensor, Tensor]:
    """Values of θ `(G, N)` by the quartile of a tail, and which of them lie beyond the grid of a shorter one."""
    length = GRID + int(sqrt(len(excess)))
    index = torch.arange(1, length + 1, dtype=excess.dtype, device=excess.device)[:, None]
    num_grid = GRID + num.double().sqrt().long()
    rank_of_quartile = num - (num / 4 + 0.5).long()
    quartile = excess.gather(0, rank_of_quartile[None])
    offset = 1 - (num_grid / (index - 0.5)).sqrt()
    theta = 1 / excess[0] + offset / (3 * quartile)
    return theta, index > num_grid


def _shapes_at(theta: Tensor, excess: Tensor) -> Tensor:
    r"""$\sum_m \log(1 - \theta_g e_m)$ `(G, N)`, in a workspace of one tail: it stays in the cache."""
    workspace = torch.empty_like(excess)
    sums = torch.empty_like(theta)
    for row, value in enumerate(theta):
        torch.mul(excess, -value, out=workspace)
        torch.sum(workspace.log1p_(), 0, out=sums[row])
    return sums
