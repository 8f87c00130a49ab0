"""What nearest neighbours say of two samples: told apart, copied, precise, covering."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...inference.run.session import require_positive
from ...inference.run.states import fork_rng
from ..estimate import Estimate
from .pools import (
    Pooled,
    balanced,
    distance_blocks,
    over_halves,
    permutation_p,
    relabellings,
    two_samples,
)


@dataclass(frozen=True)
class NearestNeighbour:
    r"""Leave-one-out accuracy of the 1-nearest-neighbour classifier, real against fake; ½ is the ideal.

    Above ½ the samples can be told apart. Below ½ a datum's neighbour is of the *other* kind: the fakes sit on the real
    data. Against the training set that is memorisation.

    Attributes:
        accuracy: share of all data whose nearest neighbour is of their own kind; its standard error is the spread under
            relabelling, right where the laws agree.
        accuracy_real: share of the real data whose nearest neighbour is real.
        accuracy_fake: share of the fakes whose nearest neighbour is a fake.
        p_value: share of the relabelled accuracies that are as large, the one observed among them: are they apart?
        p_copied: share of those that are as small: are the fakes nearer to the real data than these to each other?
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

    def __str__(self) -> str:
        return (
            f"1-NN accuracy {self.accuracy} (ideal 0.5; real {self.accuracy_real:.3f}, fake {self.accuracy_fake:.3f}), "
            f"p = {self.p_value:.4f} of being apart, p = {self.p_copied:.4f} of being copied ({self.num} data of "
            f"either kind, {self.num_permutations} permutations)"
        )


def nearest_neighbour(
    *, real: Any, fake: Any, num_permutations: int = 999, seed: int = 0
) -> NearestNeighbour:
    r"""$\frac{1}{2n} \sum_i 1[\text{label}_i = \text{label of the nearest other point}]$ over the pooled sample.

    Once with the test set as `real`: do the laws agree? And once with the **training** set: are the fakes copies? A
    memoriser passes the first, like every test on fresh data; the second falls below ½. Distances are computed in
    blocks; the neighbours do not know the labels, so that the relabellings are exact.

    Args:
        real: `(m, *event)`, an array or a tensor.
        fake: `(n, *event)`; of the larger sample as many are used as of the smaller. Against a training set, draw as
            many fakes as it has data: copies of data that are left out don't show.
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
    with fork_rng(real, seed=seed):
        real, fake = balanced(real, fake)
        labels = relabellings(len(real), len(fake), num_permutations, real.device)
        neighbours = _nearest(
            torch.cat([real, fake]), torch.randperm(2 * len(real)).to(real.device)
        )
    own = labels == labels[:, neighbours]
    accuracy = own.double().mean(1)
    return NearestNeighbour(
        accuracy=Estimate(accuracy[0].item(), accuracy[1:].std(correction=0).item()),
        accuracy_real=own[0, : len(real)].double().mean().item(),
        accuracy_fake=own[0, len(real) :].double().mean().item(),
        p_value=permutation_p(accuracy),
        p_copied=permutation_p(-accuracy),
        num=len(real),
        num_permutations=num_permutations,
    )


def _nearest(points: Tensor, order: Tensor) -> Tensor:
    """Index of the nearest other point of each; among equally near ones the first in an order."""
    found = torch.empty_like(order)
    for rows, distances in distance_blocks(points[order], points[order]):
        distances.diagonal(rows.start).fill_(torch.inf)
        found[order[rows]] = order[distances.argmin(1)]
    return found


@dataclass(frozen=True)
class PRDC:
    """Precision, recall, density, coverage by k-nearest-neighbour balls, each with its standard error.

    Attributes:
        precision: share of the fakes inside a ball around a real datum: are the fakes like the data?
        recall: share of the real data inside a ball around a fake: are all data reached?
        density: number of real balls that a fake lies in, over k: like precision, but hard to please by one outlier;
            about 1 if the laws agree, and it may exceed 1.
        coverage: share of the real data with a fake in their ball: like recall, but with the balls of the real data.
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

    def __str__(self) -> str:
        return (
            f"precision {self.precision}, recall {self.recall}, density {self.density}, coverage {self.coverage} "
            f"(k = {self.k}, {self.num_real} real, {self.num_fake} fake)"
        )


def prdc(*, real: Any, fake: Any, k: int = 5, num_resamples: int = 20, seed: int = 0) -> PRDC:
    r"""$\mathrm{precision} = \frac1n \sum_j 1[\exists i: |y_j - x_i| \le r_k(x_i)]$ and its three relatives.

    $r_k(x_i)$ is the distance of a datum to its k-th neighbour in its own sample. The balls are closed, so that a
    sample of one repeated point agrees with itself. All four depend on the sizes, also where the laws agree: compare
    results of equal sizes, and with those of real data against real data. Swapping the samples swaps precision and
    recall. Standard errors come from random halves: a bootstrap would repeat points and shrink the balls.

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
    pooled = Pooled(torch.cat([real, fake]))
    first, second = torch.arange(len(pooled.points), device=real.device).tensor_split([len(real)])
    with fork_rng(real, seed=seed):
        halves = over_halves(lambda x, y: _prdc(pooled, x, y, k), first, second, num_resamples)
    values, errors = _prdc(pooled, first, second, k).tolist(), halves.std(0, correction=0).tolist()
    precision, recall, density, coverage = (
        Estimate(*pair) for pair in zip(values, errors, strict=True)
    )
    return PRDC(precision, recall, density, coverage, k, len(real), len(fake))


def _prdc(pooled: Pooled, real: Tensor, fake: Tensor, k: int) -> Tensor:
    """The four numbers `(4,)` of some of the points, given by their places."""
    radius_real, radius_fake = _radii(pooled, real, k), _radii(pooled, fake, k)
    recalled, covered, balls = [], [], torch.zeros_like(radius_fake)
    for rows, distances in pooled.blocks(real, fake):
        inside = distances <= radius_real[rows, None]
        balls += inside.sum(0)
        covered.append(inside.any(1))
        recalled.append((distances <= radius_fake).any(1))
    shares = [
        (balls > 0).double(),
        torch.cat(recalled).double(),
        balls / k,
        torch.cat(covered).double(),
    ]
    return torch.stack([share.mean() for share in shares])


def _radii(pooled: Pooled, places: Tensor, k: int) -> Tensor:
    """Distance of every point to its k-th neighbour."""
    radii = []
    for rows, distances in pooled.blocks(places, places):
        distances.diagonal(rows.start).fill_(torch.inf)
        radii.append(distances.kthvalue(k, dim=1).values)
    return torch.cat(radii)
