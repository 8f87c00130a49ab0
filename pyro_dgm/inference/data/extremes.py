"""Data in which a value outside a support shows: the rows to look at first, and batches that go beyond them later."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from .tensors import Batch, take_rows

BLOCK = 2**18  # values that are looked at at once: they stay in the cache


def extreme_rows(tensor: Tensor, num: int) -> Tensor:
    """Indices of `num` rows: those of the smallest, the largest and the least integer value first, then the first ones.

    A check of these rows finds data outside an elementwise support wherever they hide in the set.
    """
    flat = tensor.detach().reshape(len(tensor), -1)
    if flat.dtype is torch.bool:
        flat = flat.byte()
    smallest, largest = flat.amin(1), flat.amax(1)
    fraction = _fractions(flat) if flat.is_floating_point() else largest
    worst = torch.stack([smallest.argmin(), largest.argmax(), fraction.argmax()]).tolist()
    rows = list(dict.fromkeys([*worst, *range(min(num, len(tensor)))]))
    return torch.tensor(rows[: max(num, len(set(worst)))], device=tensor.device)


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
