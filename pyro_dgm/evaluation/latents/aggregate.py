r"""The aggregated posterior: sums of $q(z_i \mid x_j)$ over the data, tile by tile under a memory bound."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from time import perf_counter

import torch
from torch import Tensor

from ...contract import PyroProgram
from ...inference.data.tensors import Batch, take_rows
from .pairwise import PairwiseDensity, Points, pairwise_density

ROWS = 256  # data whose distributions are asked of the guide at once
PATIENCE = 600.0  # seconds


@dataclass(frozen=True)
class Aggregate:
    r"""The sum over the other data, $\log \sum_{j \neq i} q(z_i \mid x_j)$.

    Attributes:
        joint: of the whole of z `(S,)`, float64; −∞ without other data.
        dims: of each dim `(S, D)` if asked for, else `(S, 0)`.
        num: how many other data each sum holds `(S,)`.
    """

    joint: Tensor
    dims: Tensor
    num: Tensor

    def to(self, device: torch.device | str) -> Aggregate:
        """The same sums on a device."""
        return Aggregate(self.joint.to(device), self.dims.to(device), self.num.to(device))

    def log_density(self, own: Tensor, num_data: int) -> Tensor:
        r"""$\log \frac1N \left(q(z_i \mid x_i) + \frac{N-1}{m_i} \sum_{j \neq i} q(z_i \mid x_j)\right)$.

        Args:
            own: $\log q(z_i \mid x_i)$ `(S,)`, or of each dim `(S, D)`.
            num_data: number N of data.
        """
        if num_data == 1:
            return own
        log_sum = self.joint
        log_num = self.num.log()
        if own.dim() == 2:
            log_sum = self.dims
            log_num = log_num[:, None]
        others = log_sum + log(num_data - 1) - log_num
        return torch.logaddexp(own, others) - log(num_data)


def joined(parts: Sequence[Aggregate]) -> Aggregate:
    """The sums of all draws from those of some of them after the other."""
    return Aggregate(
        torch.cat([part.joint for part in parts]),
        torch.cat([part.dims for part in parts]),
        torch.cat([part.num for part in parts]),
    )


def sum_over_others(
    guide: PyroProgram,
    batch: Batch,
    points: Points,
    others: Tensor,
    depth: int,
    chunk: int,
    *,
    dims: bool,
) -> Aggregate:
    r"""Sums of $q(z_i \mid x_j)$ over the data $j \neq i$ of `others`, at most `chunk` pairs in memory at once.

    Args:
        guide: a Pyro guide.
        batch: the data.
        points: draws of the guide.
        others: indices j `(M,)` of the data to sum over.
        depth: number of plates of the guide.
        chunk: how many pairs are in memory at once.
        dims: whether to sum over each dim alone as well; the distribution of the guide's only latent site must be a
            product over its dims.
    """
    rows = min(ROWS, chunk)
    stopwatch = Stopwatch(len(points) * len(others))
    log_sums = torch.tensor(-torch.inf, dtype=torch.float64, device=points.rows.device)
    for index in others.split(rows):
        block = take_rows(batch, index)
        density = pairwise_density(guide, block, points.sites, depth)
        of_block = []
        for tile in points.split(max(1, chunk // rows)):
            of_block.append(_log_sums(density, tile, index, dims=dims))
            stopwatch.count(len(tile) * len(index))
        log_sums = torch.logaddexp(log_sums, torch.cat(of_block))
    return Aggregate(log_sums[:, 0], log_sums[:, 1:], _num_others(points, others))


def _num_others(points: Points, others: Tensor) -> Tensor:
    """How many data each sum holds `(S,)`, float64."""
    return len(others) - torch.isin(points.rows, others).double()


def _log_sums(density: PairwiseDensity, points: Points, index: Tensor, *, dims: bool) -> Tensor:
    """Log sums over a block of data, without a draw's own datum: of the whole of z, then each dim `(S, 1 + D)`."""
    own = (points.rows[:, None] == index).nonzero(as_tuple=True)
    log_sums = [_log_sum(density(points), own)]
    if dims:
        for log_q in density.dims(points):
            log_sums.append(_log_sum(log_q, own))
    return torch.stack(log_sums, -1)


def _log_sum(log_q: Tensor, own: tuple[Tensor, ...]) -> Tensor:
    log_q = log_q.double().contiguous()  # a constant density may be a view of one number
    log_q[own] = -torch.inf
    return log_q.logsumexp(1)


class Stopwatch:
    """Says once, from the pairs scored so far, that the whole will take longer than `PATIENCE`.

    The first pairs, which take longer (memory is new, kernels are loaded), do not count.

    Args:
        total: how many pairs there are to score.
    """

    def __init__(self, total: int):
        self.total = total
        self.left = total
        self.num_timed = 0
        self.start: float | None = None
        self.has_warned = False

    def count(self, num: int) -> None:
        """Note that `num` pairs more are done."""
        self.left -= num
        if self.start is None:
            self.start = perf_counter()
            return
        self.num_timed += num
        seconds_per_pair = (perf_counter() - self.start) / self.num_timed
        seconds = seconds_per_pair * self.total
        if self.has_warned or seconds <= PATIENCE or not self.left:
            return
        self.has_warned = True
        warnings.warn(
            f"surgery: {self.total:,} pairs (z_i, x_j) at {1e6 * seconds_per_pair:.2g} µs each "
            f"with this guide, about {seconds / 60:.0f} minutes; an autoregressive flow takes one "
            "network call per dim to score a given point. Fix: a smaller num, or others=1000 for "
            "a bound in expectation.",
            stacklevel=2,
        )
