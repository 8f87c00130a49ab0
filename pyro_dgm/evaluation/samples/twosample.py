"""Do two samples come from one distribution? The maximum mean discrepancy, with a permutation test."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any

import torch
from torch import Tensor

from ...display.tabular import Tabular
from ...inference.process.states import estimation_mode
from ...inference.run.sessions import require_positive
from .pools import distance_blocks, permutation_p, relabellings, two_samples

MEDIAN_OF = 2048  # points whose distances choose the bandwidth


@dataclass(frozen=True)
class TwoSample(Tabular):
    r"""A two-sample statistic with its p-value: the level at which equal distributions are refused.

    Attributes:
        value: unbiased estimate of $\mathrm{MMD}^2$, no unit; below 0 about half of the time if the
            distributions agree.
        stderr: its standard error over samples of these sizes.
        p_value: share of the relabelled statistics that are as large, the one observed among them.
        bandwidth: length scale of the kernel, in the unit of the data.
        num_real: number m of real data.
        num_fake: number n of fake data.
        num_permutations: number B of relabellings; no p-value is below 1 / (B + 1).
    """

    value: float
    stderr: float
    p_value: float
    bandwidth: float
    num_real: int
    num_fake: int
    num_permutations: int

    def __str__(self) -> str:
        return (
            f"MMD² {self.value:.2e} ± {self.stderr:.2e}, p = {self.p_value:.4f} "
            f"({self.num_real} real, {self.num_fake} fake, {self.num_permutations} permutations)"
        )


def mmd(
    *,
    real: Any,
    fake: Any,
    bandwidth: float | None = None,
    num_permutations: int = 999,
    seed: int = 0,
) -> TwoSample:
    r"""$\mathrm{MMD}^2 = E\,k(x, x') + E\,k(y, y') - 2 E\,k(x, y)$ with $k(a, b) = e^{-\|a - b\|^2 / 2 h^2}$.

    Unbiased over independent pairs, and 0 exactly if the two distributions agree. The p-value comes from
    random relabellings of the pooled sample and is valid in any dimension and for any sizes. The kernel is
    computed in blocks: time grows as $(m + n)^2 (B + D)$, memory as $(m + n)(B + D)$.

    Args:
        real: `(m, *event)`, an array or a tensor.
        fake: `(n, *event)`.
        bandwidth: h; default: the median distance within the pooled sample (within 2,048 of it), which does
            not know the labels.
        num_permutations: number B of relabellings.
        seed: of the relabellings; the random state outside stays as it is.

    Raises:
        ValueError: for samples of fewer than two points, of different event shapes or with NaN, for a
            bandwidth that is not above 0 and finite, or without one if all points are equal.

    References:
        Gretton et al. 2012, *A kernel two-sample test*, JMLR 13.

    Example:
        >>> x = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
        >>> mmd(real=x[:50], fake=x[50:] + 1).p_value
        0.001
    """
    require_positive(num_permutations=num_permutations)
    _check_bandwidth(bandwidth)
    real, fake = two_samples("mmd", real, fake)
    points = torch.cat([real, fake])
    with estimation_mode(points, seed=seed):
        labels = relabellings(len(real), len(fake), num_permutations, points.device)
        h = median_distance(points) if bandwidth is None else bandwidth
        statistics, first_order = _statistics(points, labels, h)
    return TwoSample(
        value=statistics[0].item(),
        stderr=_stderr(statistics, first_order),
        p_value=permutation_p(statistics),
        bandwidth=h,
        num_real=len(real),
        num_fake=len(fake),
        num_permutations=num_permutations,
    )


def _check_bandwidth(bandwidth: float | None) -> None:
    if bandwidth is not None and not 0 < bandwidth < inf:
        raise ValueError(
            f"mmd: expected a finite bandwidth above 0, got {bandwidth}. "
            "Fix: None, the median distance."
        )


def median_distance(points: Tensor) -> float:
    """Median distance of two different points of the sample, or of a random part of it."""
    if len(points) > MEDIAN_OF:
        chosen = torch.randperm(len(points))[:MEDIAN_OF]
        points = points[chosen.to(points.device)]
    distances = torch.pdist(points)
    median = distances.median().item()
    if median == 0:  # more than half of the pairs are equal
        median = distances.mean().item()
    if median == 0:
        raise ValueError(
            "mmd: expected points that differ, got one point repeated. Fix: bandwidth=1.0."
        )
    return median


def _stderr(statistics: Tensor, first_order: float) -> float:
    """Standard error of the statistic, from its first-order variance and its variance over relabellings."""
    by_chance = statistics[1:].var(correction=0).item() if len(statistics) > 2 else 0.0
    # The projections' own noise has twice the variance that the statistic has under equal
    # distributions; it counts once.
    return max(first_order - by_chance, by_chance) ** 0.5


def _statistics(points: Tensor, labels: Tensor, h: float) -> tuple[Tensor, float]:
    """MMD² of each labelling `(B, m + n)`, and the first-order variance of the first one.

    Sums of the kernel are taken a block of rows at a time: over pairs within the first sample, from each
    point to the first sample as observed, and from each point to all points.
    """
    within_x = torch.zeros_like(labels[:, 0])
    to_x = []
    to_all = []
    for rows, distances in distance_blocks(points, points):
        kernel = distances.square_().div_(-2 * h**2).exp_()
        kernel.diagonal(rows.start).zero_()  # a point is no pair
        sums = labels @ kernel.mT
        within_x += (sums * labels[:, rows]).sum(1)
        to_x.append(sums[0])
        to_all.append(kernel.sum(1))
    of_points = torch.cat(to_all)
    from_x = labels @ of_points
    mmd2 = _mmd2(within_x, from_x, of_points.sum(), labels)
    first_order = _first_order(torch.cat(to_x), of_points, labels[0].bool())
    return mmd2, first_order


def _mmd2(within_x: Tensor, from_x: Tensor, total: Tensor, labels: Tensor) -> Tensor:
    """MMD² from sums of the kernel: over pairs of the first sample, from it to all points, over all pairs."""
    m = labels[0].sum()
    n = labels.shape[1] - m
    across = from_x - within_x
    within_y = total - within_x - 2 * across
    mean_x = within_x / (m * (m - 1))
    mean_y = within_y / (n * (n - 1))
    return mean_x + mean_y - 2 * across / (m * n)


def _first_order(to_x: Tensor, to_all: Tensor, is_x: Tensor) -> float:
    r"""$4 \mathrm{Var}[h_x] / m + 4 \mathrm{Var}[h_y] / n$, where $h_x(x) = E\,k(x, x') - E\,k(x, y)$."""
    m = int(is_x.sum())
    n = int((~is_x).sum())
    to_y = to_all - to_x
    h_x = (to_x / (m - 1) - to_y / n)[is_x]
    h_y = (to_y / (n - 1) - to_x / m)[~is_x]
    variance = 4 * h_x.var() / m + 4 * h_y.var() / n
    return variance.item()
