"""Do two samples come from one law? The maximum mean discrepancy, with a permutation test."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..inference.estimating import at_least_one
from ..inference.traces import isolated


@dataclass(frozen=True)
class TwoSample:
    r"""A two-sample statistic with its p-value: the level at which one law for both samples would be refused.

    Attributes:
        statistic: unbiased estimate of $\mathrm{MMD}^2$, no unit; below 0 about half of the time if the laws agree.
        p_value: share of the relabelled statistics that are as large, the one observed among them.
        bandwidth: length scale of the kernel, in the unit of the data.
        num_permutations: number B of relabellings; no p-value is below 1 / (B + 1).
    """

    statistic: float
    p_value: float
    bandwidth: float
    num_permutations: int

    def __str__(self) -> str:
        return f"MMD² {self.statistic:.2e}, p = {self.p_value:.4f} ({self.num_permutations} permutations)"


def mmd(x: Tensor, y: Tensor, bandwidth: float | None = None, num_permutations: int = 999, seed: int = 0) -> TwoSample:
    r"""$\mathrm{MMD}^2 = E\,k(x, x') + E\,k(y, y') - 2 E\,k(x, y)$ with $k(a, b) = e^{-\|a - b\|^2 / 2 h^2}$.

    Unbiased over independent pairs, and 0 exactly if the two laws agree. The p-value comes from random relabellings of
    the pooled sample and is valid in any dimension and for any sizes. Memory is $8 (m + n)^2$ bytes.

    Args:
        x: `(m, *event)`.
        y: `(n, *event)`.
        bandwidth: h; default: the median distance within the pooled sample, which does not know the labels.
        num_permutations: number of relabellings.
        seed: of the relabellings; the random state outside stays as it is.

    Raises:
        ValueError: for samples of fewer than two points or of different event shapes, or if all points are equal.

    References:
        Gretton et al. 2012, *A kernel two-sample test*, JMLR 13.

    Example:
        >>> x = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
        >>> mmd(x[:50], x[50:] + 1).p_value
        0.001
    """
    at_least_one(num_permutations=num_permutations)
    if x.shape[1:] != y.shape[1:] or min(len(x), len(y)) < 2:
        raise ValueError(
            "mmd: expected two samples (m, *event), (n, *event) with m, n >= 2, got "
            f"{tuple(x.shape)}, {tuple(y.shape)}."
        )
    squares = _square_distances(torch.cat([x, y]).detach().flatten(1).double())
    h = bandwidth or _median(squares) ** 0.5
    kernel = squares.div_(-2 * h**2).exp_().fill_diagonal_(0)
    with isolated(x, seed=seed):
        found = _statistics(kernel, _labels(len(x), len(y), num_permutations, x.device))
    # A relabelling that repeats the observed one gives the same number, up to the order of its sums.
    as_large = (found[1:] >= found[0] - 1e-12).sum().item()
    return TwoSample(found[0].item(), (1 + as_large) / (1 + num_permutations), h, num_permutations)


def _square_distances(points: Tensor) -> Tensor:
    return torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist").square_()


def _median(squares: Tensor) -> float:
    """Median square distance of two different points of the sample."""
    above = squares[torch.ones_like(squares, dtype=torch.bool).triu(1)]
    median = above.median().item() or above.mean().item()
    if median == 0:
        raise ValueError("mmd: expected points that differ, got one point repeated. Fix: bandwidth=1.0.")
    return median


def _labels(num_x: int, num_y: int, num: int, device: torch.device) -> Tensor:
    """Who belongs to the first sample `(1 + num, m + n)`: as observed, then relabelled at random."""
    first = torch.arange(num_x + num_y, device=device) < num_x
    orders = torch.rand(num, num_x + num_y, device=device).argsort(1)
    return torch.cat([first[None], first[orders]]).double()


def _statistics(kernel: Tensor, labels: Tensor) -> Tensor:
    """MMD² of each labelling `(B, m + n)` from one kernel matrix with a zero diagonal."""
    m = labels[0].sum()
    n = len(kernel) - m
    within_x = ((labels @ kernel) * labels).sum(1)
    of_x, total = labels @ kernel.sum(1), kernel.sum()
    across = of_x - within_x
    within_y = total - within_x - 2 * across
    return within_x / (m * (m - 1)) + within_y / (n * (n - 1)) - 2 * across / (m * n)
