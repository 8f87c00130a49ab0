"""What nearest neighbours tell of two samples: whether they differ, whether one copies, what each covers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...display.tabular import Tabular
from ...inference.process.states import estimation_mode
from ...inference.run.sessions import require_positive
from ..estimate import Estimate, estimate_columns
from .pools import (
    Pooled,
    balance,
    distance_blocks,
    over_halves,
    permutation_p,
    relabellings,
    two_samples,
)


@dataclass(frozen=True)
class NearestNeighbour(Tabular):
    r"""Leave-one-out accuracy of the 1-nearest-neighbour classifier, real against fake; ½ is the ideal.

    Above ½ the samples can be told apart. Below ½ a datum's neighbour is of the *other* kind: the fakes sit
    on the real data. Against the training set that is memorisation.

    Attributes:
        accuracy: share of all data whose nearest neighbour is of their own kind; its standard error is the
            spread under relabelling, right where the distributions agree.
        accuracy_real: share of the real data whose nearest neighbour is real.
        accuracy_fake: share of the fakes whose nearest neighbour is a fake.
        p_value: share of the relabelled accuracies that are as large, the one observed among them: are they
            apart?
        p_copied: share of those that are as small: are the fakes nearer to the real data than these to each
            other?
        num: data of either kind.
        num_permutations: number B of relabellings; no p-value is below 1 / (B + 1).
    """

    accuracy: Estimate
    accuracy_real: float
    accuracy_fake: float
    p_value: float
    p_copied: float
    num: int
    num_permutations: int

    def columns(self) -> Mapping[str, Any]:
        """One row: each number, and the standard error of the accuracy."""
        return estimate_columns(vars(self))

    def __str__(self) -> str:
        return (
            f"1-NN accuracy {self.accuracy} "
            f"(ideal 0.5; real {self.accuracy_real:.3f}, fake {self.accuracy_fake:.3f}), "
            f"p = {self.p_value:.4f} of being apart, p = {self.p_copied:.4f} of being copied "
            f"({self.num} data of either kind, {self.num_permutations} permutations)"
        )


def nearest_neighbour(
    *, real: Any, fake: Any, num_permutations: int = 999, seed: int = 0
) -> NearestNeighbour:
    r"""$\frac{1}{2n} \sum_i 1[\text{label}_i = \text{label of the nearest other point}]$ over both samples.

    Once with the test set as `real`: do the distributions agree? And once with the **training** set: are the
    fakes copies? A memoriser passes the first, like every test on fresh data; the second falls below ½.
    Distances are computed in blocks; the neighbours do not know the labels, so that the relabellings are
    exact.

    Args:
        real: `(m, *event)`, an array or a tensor.
        fake: `(n, *event)`; of the larger sample as many are used as of the smaller. Against a training set,
            draw as many fakes as it has data: copies of data that are left out don't show.
        num_permutations: number B of relabellings.
        seed: of the choice, of the order among equally near neighbours, and of the relabellings.

    Raises:
        ValueError: for samples of fewer than two points, of different event shapes, or with NaN.

    References:
        Lopez-Paz, Oquab 2017, arXiv:1610.06545; Xu et al. 2018, *An empirical study on evaluation metrics of
        generative adversarial networks*, arXiv:1806.07755.

    Example:
        >>> x = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
        >>> nearest_neighbour(real=x, fake=x + 1e-6).accuracy.value
        0.0
    """
    require_positive(num_permutations=num_permutations)
    real, fake = two_samples("nearest_neighbour", real, fake)
    with estimation_mode(real, seed=seed):
        real, fake = balance(real, fake)
        is_right = _leave_one_out(real, fake, num_permutations)
    accuracy = is_right.mean(1)
    spread = accuracy[1:].std(correction=0)
    of_real, of_fake = is_right[0].split(len(real))
    return NearestNeighbour(
        accuracy=Estimate(accuracy[0].item(), spread.item()),
        accuracy_real=of_real.mean().item(),
        accuracy_fake=of_fake.mean().item(),
        p_value=permutation_p(accuracy),
        p_copied=permutation_p(-accuracy),
        num=len(real),
        num_permutations=num_permutations,
    )


def _leave_one_out(real: Tensor, fake: Tensor, num_permutations: int) -> Tensor:
    """Whether the nearest other point of each is of its own kind, in every labelling `(1 + B, 2n)`."""
    num = len(real)
    labels = relabellings(num, num, num_permutations, real.device)
    order = torch.randperm(2 * num).to(real.device)
    neighbours = _nearest(torch.cat([real, fake]), order)
    return (labels == labels[:, neighbours]).double()


def _nearest(points: Tensor, order: Tensor) -> Tensor:
    """Index of the nearest other point of each; among equally near ones the first in an order."""
    nearest = torch.empty_like(order)
    ordered = points[order]
    for rows, distances in distance_blocks(ordered, ordered):
        distances.diagonal(rows.start).fill_(torch.inf)  # a point is not its own neighbour
        first = distances.argmin(1)
        nearest[order[rows]] = order[first]
    return nearest


@dataclass(frozen=True)
class PRDC(Tabular):
    """Precision, recall, density, coverage by k-nearest-neighbour balls, each with its standard error.

    Attributes:
        precision: share of the fakes inside a ball around a real datum: are the fakes like the data?
        recall: share of the real data inside a ball around a fake: are all data reached?
        density: number of real balls that a fake lies in, over k: like precision, but hard to please by one
            outlier; about 1 if the distributions agree, and it may exceed 1.
        coverage: share of the real data with a fake in their ball: like recall, but with the balls of the
            real data.
        k: which neighbour sets the radius of a ball.
        num_real: number m of real data.
        num_fake: number n of fakes.
    """

    precision: Estimate
    recall: Estimate
    density: Estimate
    coverage: Estimate
    k: int
    num_real: int
    num_fake: int

    def columns(self) -> Mapping[str, Any]:
        """One row: the four numbers with their standard errors, k and the sizes."""
        return estimate_columns(vars(self))

    def __str__(self) -> str:
        return (
            f"precision {self.precision}, recall {self.recall}, "
            f"density {self.density}, coverage {self.coverage} "
            f"(k = {self.k}, {self.num_real} real, {self.num_fake} fake)"
        )


def prdc(*, real: Any, fake: Any, k: int = 5, num_resamples: int = 20, seed: int = 0) -> PRDC:
    r"""$\mathrm{precision} = \frac1n \sum_j 1[\exists i: |y_j - x_i| \le r_k(x_i)]$ and its three relatives.

    $r_k(x_i)$ is the distance of a datum to its k-th neighbour in its own sample. The balls are closed, so
    that a sample of one repeated point agrees with itself. All four depend on the sizes, also where the
    distributions agree: compare results of equal sizes, and with those of real data against real data.
    Swapping the samples swaps precision and recall. Standard errors come from random halves: a bootstrap
    would repeat points and shrink the balls.

    Args:
        real: `(m, *event)`, an array or a tensor.
        fake: `(n, *event)`.
        k: which neighbour sets the radius.
        num_resamples: number of halves for the standard errors.
        seed: of the halves; the random state outside stays as it is.

    Raises:
        ValueError: for samples of fewer than 2k + 2 points, of different event shapes, or with NaN.

    References:
        Kynkäänniemi et al. 2019, *Improved precision and recall metric*, arXiv:1904.06991; Naeem et al. 2020,
        *Reliable fidelity and diversity metrics*, arXiv:2002.09797.

    Example:
        >>> x = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
        >>> prdc(real=x, fake=x + 100).precision.value
        0.0
    """
    require_positive(k=k, num_resamples=num_resamples)
    real, fake = two_samples("prdc", real, fake, at_least=2 * k + 2)
    m = len(real)
    n = len(fake)
    pooled = Pooled(torch.cat([real, fake]))
    places = torch.arange(m + n, device=real.device)
    of_real, of_fake = places.split([m, n])
    numbers = partial(_prdc, pooled, k)
    with estimation_mode(real, seed=seed):
        halves = over_halves(numbers, of_real, of_fake, num_resamples)
        values = numbers(of_real, of_fake)
    precision, recall, density, coverage = _estimates(values, halves)
    return PRDC(precision, recall, density, coverage, k, num_real=m, num_fake=n)


def _estimates(values: Tensor, halves: Tensor) -> list[Estimate]:
    """Statistics `(S,)` with their standard errors over random halves `(num, S)`."""
    estimates = []
    stderrs = halves.std(0, correction=0)
    for value, stderr in zip(values.tolist(), stderrs.tolist(), strict=True):
        estimates.append(Estimate(value, stderr, degrees=len(halves) - 1))
    return estimates


def _prdc(pooled: Pooled, k: int, real: Tensor, fake: Tensor) -> Tensor:
    """Precision, recall, density and coverage `(4,)` of points that are given by their places."""
    radius_real = _radii(pooled, real, k)
    radius_fake = _radii(pooled, fake, k)
    num_balls = torch.zeros_like(radius_fake)  # real balls that each fake lies in
    reached = []  # real data in a ball of a fake
    covered = []  # real data with a fake in their ball
    for rows, distances in pooled.blocks(real, fake):
        in_real_ball = distances <= radius_real[rows, None]
        in_fake_ball = distances <= radius_fake
        num_balls += in_real_ball.sum(0)
        covered.append(in_real_ball.any(1))
        reached.append(in_fake_ball.any(1))
    precision = _share(num_balls > 0)
    recall = _share(torch.cat(reached))
    density = (num_balls / k).mean()
    coverage = _share(torch.cat(covered))
    return torch.stack([precision, recall, density, coverage])


def _share(is_true: Tensor) -> Tensor:
    return is_true.double().mean()


def _radii(pooled: Pooled, places: Tensor, k: int) -> Tensor:
    """Distance of every point to its k-th neighbour."""
    radii = []
    for rows, distances in pooled.blocks(places, places):
        distances.diagonal(rows.start).fill_(torch.inf)  # a point is not its own neighbour
        radii.append(distances.kthvalue(k, dim=1).values)
    return torch.cat(radii)
