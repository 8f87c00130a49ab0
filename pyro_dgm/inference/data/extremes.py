"""Data in which a value outside a support shows: the rows to look at first, and batches that go beyond them later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from .tensors import Batch, take_rows

BLOCK = 2**18  # values that are looked at at once: they stay in the cache


@dataclass(frozen=True)
class Reach:
    """How far each row goes: its smallest and its largest value, and the distance of one from an integer; `(N,)`."""

    smallest: Tensor
    largest: Tensor
    fraction: Tensor

    @classmethod
    def concat(cls, parts: Sequence[Reach]) -> Reach:
        """The reach of several blocks of rows as that of all."""
        columns = zip(
            *[(part.smallest, part.largest, part.fraction) for part in parts], strict=True
        )
        return cls(*[torch.cat(column) for column in columns])

    def cpu(self) -> Reach:
        """The same on the CPU."""
        return Reach(self.smallest.cpu(), self.largest.cpu(), self.fraction.cpu())

    def extreme_rows(self, num: int) -> Tensor:
        """Indices of `num` rows: see the function of this name."""
        worst = torch.stack([self.smallest.argmin(), self.largest.argmax(), self.fraction.argmax()])
        found = worst.tolist()
        rows = list(dict.fromkeys([*found, *range(min(num, len(self.smallest)))]))
        return torch.tensor(rows[: max(num, len(set(found)))], device=self.smallest.device)


def reach_of(tensor: Tensor) -> Reach:
    """How far each row of a tensor goes."""
    flat = tensor.detach().reshape(len(tensor), -1)
    if flat.dtype is torch.bool:
        flat = flat.byte()
    largest = flat.amax(1)
    fraction = _fractions(flat) if flat.is_floating_point() else largest
    return Reach(flat.amin(1), largest, fraction)


def extreme_rows(tensor: Tensor, num: int) -> Tensor:
    """Indices of `num` rows: those of the smallest, the largest and the least integer value first, then the first ones.

    A check of these rows finds data outside an elementwise support wherever they hide in the set.
    """
    return reach_of(tensor).extreme_rows(num)


def _fractions(flat: Tensor) -> Tensor:
    """The distance of the least integer value of each row from an integer, in memory for a block of rows alone."""
    num = max(1, BLOCK // flat.shape[1])
    scratch = torch.empty_like(flat[:num])
    found = []
    for block in flat.split(num):
        rest = torch.round(block, out=scratch[: len(block)])
        found.append(rest.sub_(block).abs_().amax(1))
    return torch.cat(found)


def extreme_batch(batch: Batch) -> Batch:
    """The few data in which a value outside a support shows, wherever it hides in the set: what a check looks at."""
    return take_rows(batch, extreme_rows(batch[0], 1))


@dataclass(frozen=True)
class _Waiting:
    """The rows of a batch in which a value outside a support shows, and how far they go; not yet read on the host."""

    rows: Batch
    num_data: int
    reach: Tensor  # -smallest value, largest value, 1 if one is no integer


class Extremes:
    """Finds batches with values beyond those seen so far: outside their range, or not integer where all others were.

    A support of single numbers, an interval or the integers of one, holds every value between two that it holds. What
    `add` costs are reductions on the device; values are read on the host by `beyond` alone.
    """

    def __init__(self) -> None:
        self.reach: tuple[float, ...] = (-inf, -inf, -inf)
        self.waiting: list[_Waiting] = []

    def add(self, batch: Batch) -> None:
        """Take in a batch, of which three rows are held until `beyond`."""
        x = batch[0]
        if not isinstance(x, Tensor) or x.dim() == 0 or x.numel() == 0 or x.is_complex():
            return
        flat = x.detach().reshape(len(x), -1)
        flat = flat.byte() if flat.dtype is torch.bool else flat
        is_broken = (
            (flat != flat.round()).any(1) if flat.is_floating_point() else flat.new_zeros(len(x))
        )
        reach = [-flat.amin(1).double(), flat.amax(1).double(), is_broken.double()]
        worst = torch.stack(reach).max(1)
        rows = take_rows(batch, worst.indices)
        self.waiting.append(_Waiting(rows, len(x), worst.values))

    def beyond(self) -> list[Batch]:
        """Batches made of the rows that go beyond what was seen, each as long as the one it came in; now all are seen.

        They are long enough for a program whose plate has a fixed size.
        """
        if not self.waiting:
            return []
        found = []
        reaches = torch.stack([waiting.reach for waiting in self.waiting]).tolist()
        for waiting, reach in zip(self.waiting, reaches, strict=True):
            if any(new > seen for new, seen in zip(reach, self.reach, strict=True)):
                places = torch.arange(waiting.num_data, device=waiting.rows[0].device) % 3
                found.append(take_rows(waiting.rows, places))
                self.reach = _larger(self.reach, reach)
        self.waiting = []
        return found


def _larger(first: tuple[float, ...], second: list[float]) -> tuple[float, ...]:
    return tuple(max(pair) for pair in zip(first, second, strict=True))
