"""What every comparison of two samples shares: their vectors, blocks of distances, relabellings, halves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...inference.data.tensors import check_data

BLOCK = 2**24  # distances that are in memory at once, 128 MiB
REAL_KINDS = "biuf"  # of NumPy's dtypes: no complex numbers, text, dates or objects
FROM_DIFFERENCES = "donot_use_mm_for_euclid_dist"  # of torch.cdist


def two_samples(
    name: str,
    real: Any,
    fake: Any,
    at_least: int = 2,
    roles: tuple[str, str] = ("real", "fake"),
) -> tuple[Tensor, Tensor]:
    """Both samples as feature vectors `(m, D)` and `(n, D)`, float64, on one device.

    The caller's samples stay as they are.

    Args:
        name: of the function that was called, for its messages.
        real: `(m, *event)`, a tensor, an array or a table of numbers of any dtype.
        fake: `(n, *event)`.
        at_least: number of data that either sample needs.
        roles: names of the two arguments.

    Raises:
        TypeError: for what holds no real numbers, such as a model or a loader in place of its draws.
        ValueError: for too few data, different event shapes, or values that are NaN or infinite.
    """
    real = as_numbers(f"{name}: {roles[0]}", real)
    fake = as_numbers(f"{name}: {roles[1]}", fake)
    _check_shapes(name, roles, real, fake, at_least)
    check_data(real, f"{name}: {roles[0]}")
    check_data(fake, f"{name}: {roles[1]}")
    real_vectors = real.reshape(len(real), -1)
    fake_vectors = fake.reshape(len(fake), -1)
    return real_vectors, fake_vectors.to(real.device)


def _check_shapes(
    name: str, roles: tuple[str, str], real: Tensor, fake: Tensor, at_least: int
) -> None:
    """Refuse samples without a row per datum, with too few data, or of different event shapes."""
    real_shape = tuple(real.shape)
    fake_shape = tuple(fake.shape)
    if not real_shape or not fake_shape:
        fix = "torch.stack(draws), a row per datum"
    elif min(real_shape[0], fake_shape[0]) < at_least:
        fix = f"more data; generate(model, {max(1000, at_least)}) of a model"
    elif real_shape[1:] != fake_shape[1:]:
        fix = f"{roles[1]}.reshape(-1, *{real_shape[1:]}) if it holds the same variables"
    else:
        return
    raise ValueError(
        f"{name}: expected two samples (m, *event), (n, *event) with m, n >= {at_least}, "
        f"got {real_shape}, {fake_shape}. Fix: {fix}."
    )


def as_numbers(name: str, values: Any) -> Tensor:
    """A tensor, an array of any dtype, a table or a list of numbers as a tensor of float64.

    Raises:
        TypeError: for what holds no real numbers.
    """
    if isinstance(values, Tensor) and not values.is_complex():
        return values.detach().double()
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError):  # rows of different lengths, tensors on a GPU
        array = np.empty((), dtype=object)
    if array.dtype.kind in REAL_KINDS:
        return torch.from_numpy(np.array(array, dtype=np.float64, order="C"))
    raise TypeError(
        f"{name}: expected real numbers as a tensor or an array (n, *event), "
        f"got {type(values).__name__}. "
        "Fix: torch.stack(list) for a list of data, torch.cat([x for x, *_ in loader]) "
        "for a loader, generate(model, 1000) for a model."
    )


def balance(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """Of the larger sample as many as of the smaller, at random, so that ½ is the accuracy of a guess."""
    num = min(len(real), len(fake))
    return subsample(real, num), subsample(fake, num)


def subsample(sample: Tensor, num: int) -> Tensor:
    """A number of the data at random; all of them in their order."""
    if len(sample) == num:
        return sample
    chosen = torch.randperm(len(sample))[:num]
    return sample[chosen.to(sample.device)]


def distance_blocks(points: Tensor, others: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Euclidean distances `(rows, len(others))` of a block of the points at a time.

    From differences, not from a multiplied-out square, so that equal points are 0 apart and both orders agree
    exactly.
    """
    step = max(1, BLOCK // len(others))
    for start in range(0, len(points), step):
        stop = min(start + step, len(points))
        rows = slice(start, stop)
        distances = torch.cdist(points[rows], others, compute_mode=FROM_DIFFERENCES)
        yield rows, distances


class Pooled:
    """Distances between any of some points `(N, D)`, kept whole where all of them fit into a block.

    Args:
        points: the points that rows and columns are chosen from.
    """

    def __init__(self, points: Tensor):
        self.points = points
        self.whole: Tensor | None = None
        if len(points) ** 2 <= BLOCK:
            blocks = [block for _, block in distance_blocks(points, points)]
            self.whole = torch.cat(blocks)

    def blocks(self, rows: Tensor, columns: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Distances `(a block of the rows, columns)` at a time; every block is the caller's own."""
        if self.whole is None:
            yield from distance_blocks(self.points[rows], self.points[columns])
        else:
            chosen_rows = self.whole[rows]
            yield slice(0, len(rows)), chosen_rows[:, columns]


def relabellings(num_real: int, num_fake: int, num: int, device: torch.device) -> Tensor:
    """Who belongs to the first sample `(1 + num, m + n)`: as observed, then relabelled at random."""
    total = num_real + num_fake
    first = torch.arange(total, device=device) < num_real
    keys = torch.rand(num, total, dtype=torch.float64, device=device)
    relabelled = first[keys.argsort(1)]
    return torch.cat([first[None], relabelled]).double()


def permutation_p(statistics: Tensor) -> float:
    """Share of statistics `(1 + B,)` that are as large as the first, the one observed, which counts itself.

    A relabelling that repeats the observed one gives the same number, up to the order of its sums.
    """
    as_large = statistics >= statistics[0] - 1e-12
    return as_large.double().mean().item()


def over_halves(
    statistic: Callable[[Tensor, Tensor], Tensor], real: Tensor, fake: Tensor, num: int
) -> Tensor:
    """A statistic `(S,)` of `num` random halves of both samples `(num, S)`.

    Their standard deviation is the standard error of the statistic of the whole (delete-half jackknife). A
    bootstrap repeats points, and a repeated point is its own neighbour at distance 0.

    References:
        Shao, Wu 1989, *A general theory for jackknife variance estimation*, Annals of Statistics 17.
    """
    size = max(len(real), len(fake))
    keys = torch.rand(num, size, dtype=torch.float64).to(real.device)
    values = []
    for key in keys:
        half_real = _half(real, key)
        half_fake = _half(fake, key)
        values.append(statistic(half_real, half_fake))
    return torch.stack(values)


def _half(sample: Tensor, key: Tensor) -> Tensor:
    order = key[: len(sample)].argsort()
    return sample[order[: len(sample) // 2]]
