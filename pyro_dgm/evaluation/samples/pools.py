"""What every comparison of two samples shares: features, equal sizes, blocks of distances, relabellings, halves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ...inference.run.data import check_data

BLOCK = 2**24  # distances that are in memory at once, 128 MiB


def two_samples(name: str, real: Any, fake: Any, at_least: int = 2) -> tuple[Tensor, Tensor]:
    """Both samples as feature vectors `(m, D)` and `(n, D)`, float64, on one device; the caller's stay as they are.

    Raises:
        ValueError: for too few data, different event shapes, or values that are NaN or infinite.
    """
    real, fake = (torch.as_tensor(x).detach() for x in (real, fake))
    if (
        min(real.dim(), fake.dim()) < 1
        or real.shape[1:] != fake.shape[1:]
        or min(len(real), len(fake)) < at_least
    ):
        raise ValueError(
            f"{name}: expected two samples (m, *event), (n, *event) with m, n >= {at_least}, got "
            f"{tuple(real.shape)}, {tuple(fake.shape)}."
        )
    check_data(real, f"{name}: real")
    check_data(fake, f"{name}: fake")
    return real.reshape(len(real), -1).double(), fake.reshape(len(fake), -1).to(
        real.device
    ).double()


def balanced(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """Of the larger sample as many as of the smaller, at random, so that ½ is the accuracy of a guess."""
    num = min(len(real), len(fake))
    return some(real, num), some(fake, num)


def distance_blocks(points: Tensor, others: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Euclidean distances `(rows, len(others))` of some rows of the points at a time.

    From differences, not from a multiplied-out square, so that equal points are 0 apart and both orders agree exactly.
    """
    step = max(1, BLOCK // len(others))
    for start in range(0, len(points), step):
        rows = slice(start, min(start + step, len(points)))
        yield rows, torch.cdist(points[rows], others, compute_mode="donot_use_mm_for_euclid_dist")


class Pooled:
    """Distances between any of some points `(N, D)`, kept whole where all of them fit into a block.

    Args:
        points: the points that rows and columns are chosen from.
    """

    def __init__(self, points: Tensor):
        fits = len(points) ** 2 <= BLOCK
        self.points = points
        self.whole = (
            torch.cat([block for _, block in distance_blocks(points, points)]) if fits else None
        )

    def blocks(self, rows: Tensor, columns: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Distances `(some rows, columns)` at a time; every block is the caller's own."""
        if self.whole is None:
            yield from distance_blocks(self.points[rows], self.points[columns])
        else:
            yield slice(0, len(rows)), self.whole[rows][:, columns]


def relabellings(num_real: int, num_fake: int, num: int, device: torch.device) -> Tensor:
    """Who belongs to the first sample `(1 + num, m + n)`: as observed, then relabelled at random."""
    first = torch.arange(num_real + num_fake, device=device) < num_real
    orders = torch.rand(num, num_real + num_fake, device=device).argsort(1)
    return torch.cat([first[None], first[orders]]).double()


def permutation_p(found: Tensor) -> float:
    """Share of statistics `(1 + B,)` that are as large as the first, the one observed, which counts itself.

    A relabelling that repeats the observed one gives the same number, up to the order of its sums.
    """
    return (found >= found[0] - 1e-12).double().mean().item()


def over_halves(
    statistic: Callable[[Tensor, Tensor], Tensor], real: Tensor, fake: Tensor, num: int
) -> Tensor:
    """A statistic `(S,)` of `num` random halves of both samples `(num, S)`.

    Their standard deviation is the standard error of the statistic of the whole (delete-half jackknife). A bootstrap
    repeats points, and a repeated point is its own neighbour at distance 0.

    References:
        Shao, Wu 1989, *A general theory for jackknife variance estimation*, Annals of Statistics 17.
    """
    keys = torch.rand(num, max(len(real), len(fake))).to(real.device)
    return torch.stack([statistic(_half(real, key), _half(fake, key)) for key in keys])


def some(sample: Tensor, num: int) -> Tensor:
    """A number of the data at random; all of them as they are."""
    return (
        sample
        if len(sample) == num
        else sample[torch.randperm(len(sample))[:num].to(sample.device)]
    )


def _half(sample: Tensor, key: Tensor) -> Tensor:
    return sample[key[: len(sample)].argsort()[: len(sample) // 2]]
