"""The tail of importance weights, and the generalized Pareto law fitted to it, batched over data."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log, sqrt
from sys import float_info

import torch
from torch import Tensor

LEAST_TAIL = 5  # weights, to fit two parameters to
LEAST_DRAWS = 5 * LEAST_TAIL - 4  # of which the tail is a fifth, rounded up
UNDERFLOW = log(float_info.min)  # below it exp leaves the normal numbers


def tail_length(num: int) -> int:
    r"""$\lceil \min(K / 5, 3 \sqrt K) \rceil$: the rule of the paper and of ArviZ with `reff=1`."""
    return ceil(min(0.2 * num, 3 * sqrt(num)))


@dataclass(frozen=True)
class Tail:
    r"""The M largest weights of every datum, and the Pareto law of their excesses over the edge.

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


def fitted_tail(log_tail: Tensor) -> Tail:
    """The tail of descending log weights `(M + 1, N)`, of which the first is 0 and the last the edge."""
    edge = log_tail[-1].clamp(min=UNDERFLOW).exp()
    excess = (log_tail[:-1].exp() - edge).clamp(min=0)
    num = (excess > 0).sum(0)
    enough = num >= LEAST_TAIL
    num = torch.where(enough, num, len(excess))
    # A tail that is too short is fitted as any other, so that no datum waits for a host.
    ramp = torch.arange(len(excess), 0, -1, dtype=excess.dtype, device=excess.device)[:, None]
    return Tail(excess, edge, num, enough, *_pareto_fit(torch.where(enough, excess, ramp), num))


def _pareto_fit(excess: Tensor, num: Tensor) -> tuple[Tensor, Tensor]:
    """Posterior-mean shape, with the prior k ~ 0.5, and scale of a generalized Pareto law, each `(N,)`.

    Args:
        excess: descending excesses `(M, N)`, 0 from row M_n on: they add nothing to sums of log1p.
        num: M_n `(N,)`.

    References:
        Zhang, Stephens 2009, *A new and efficient estimation method for the generalized Pareto distribution*.
    """
    num_grid = 30 + num.double().sqrt().long()
    grid = torch.arange(1, 31 + int(sqrt(len(excess))), dtype=excess.dtype, device=excess.device)[
        :, None
    ]
    quartile = excess.gather(0, (num - (num / 4 + 0.5).long())[None])
    theta = 1 / excess[0] + (1 - (num_grid / (grid - 0.5)).sqrt()) / (3 * quartile)
    room = torch.empty_like(excess)
    k = torch.stack([torch.mul(excess, -t, out=room).log1p_().sum(0) for t in theta]) / num
    profile = num * ((-theta / k).log() - k - 1)
    weight = profile.masked_fill(grid > num_grid, -torch.inf).softmax(0)
    theta_hat = (weight * theta).sum(0)
    k_hat = torch.log1p(-theta_hat * excess).sum(0) / num
    return (num * k_hat + 10 * 0.5) / (num + 10), -k_hat / theta_hat
