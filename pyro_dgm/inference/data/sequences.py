"""Sequences of unequal lengths as batches of a few lengths, with their masks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil
from typing import Any

import torch
from torch import Tensor

from ..process.numbers import check_count
from ..process.states import derive_seed
from .tensors import to_tensor


class LengthBuckets:
    r"""Ragged sequences $(T_i, *event)$ as batches `(x, mask)` of a few lengths: x `(B, T, *event)`, mask `(B, T)`.

    A program takes `mask[:, t]` into `poutine.mask` around the sites of step t, so that what was padded scores nothing.
    A batch holds sequences of nearly one length, and is padded to a multiple of `step`: a compiled program needs few
    graphs. All batches are full but that of the shortest: long sequences are never alone in a step.

    Args:
        sequences: N tensors or arrays, the steps along dim 0.
        batch_size: sequences per batch.
        step: lengths of batches are rounded up to its multiples.
        shuffle: whether every pass has a new order, of batches and of sequences of one rounded length, a function of
            (seed, pass).
        seed: of the order.

    Raises:
        ValueError: for no sequences, an empty one, counts below 1, or sequences of different events.

    Example:
        >>> buckets = LengthBuckets([torch.ones(3, 2), torch.ones(4, 2), torch.ones(9, 2)], batch_size=2, step=5)
        >>> for x, mask in buckets:
        ...     print(tuple(x.shape), mask.sum(1).tolist())
        (1, 5, 2) [3]
        (2, 10, 2) [4, 9]
    """

    def __init__(
        self,
        sequences: Sequence[Any],
        batch_size: int = 32,
        step: int = 16,
        *,
        shuffle: bool = False,
        seed: int = 0,
    ):
        check_count("LengthBuckets", "batch_size", batch_size, fix="batch_size=32")
        check_count("LengthBuckets", "step", step, fix="step=16")
        self.sequences = [to_tensor(x, f"sequences[{i}]") for i, x in enumerate(sequences)]
        _check(self.sequences)
        self.batch_size, self.step, self.shuffle, self.seed = batch_size, step, shuffle, seed
        self._num_passes = 0

    @property
    def num_steps(self) -> int:
        """The number of steps of all sequences, without what was padded."""
        return sum(len(x) for x in self.sequences)

    def __len__(self) -> int:
        """Number of batches."""
        return ceil(len(self.sequences) / self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, self._num_passes))
        self._num_passes += self.shuffle
        batches = self._batches(generator)
        order = list(range(len(batches)))
        if self.shuffle:
            order = torch.randperm(len(batches), generator=generator, device="cpu").tolist()
        for place in order:
            yield self._padded(batches[place])

    def _batches(self, generator: torch.Generator) -> list[list[int]]:
        """Which sequences each batch has, the shortest first; those of one rounded length in any order."""
        rows = list(range(len(self.sequences)))
        if self.shuffle:
            rows = torch.randperm(len(rows), generator=generator, device="cpu").tolist()
        rows.sort(key=self._rounded)
        short = len(rows) % self.batch_size
        starts = range(short, len(rows), self.batch_size)
        batches = [rows[start : start + self.batch_size] for start in starts]
        return [rows[:short], *batches] if short else batches

    def _rounded(self, row: int) -> int:
        return self.step * ceil(len(self.sequences[row]) / self.step)

    def _padded(self, rows: list[int]) -> tuple[Tensor, Tensor]:
        length = max(self._rounded(row) for row in rows)
        first = self.sequences[rows[0]]
        x = first.new_zeros(len(rows), length, *first.shape[1:])
        mask = torch.zeros(len(rows), length, dtype=torch.bool, device=first.device)
        for place, row in enumerate(rows):
            sequence = self.sequences[row]
            x[place, : len(sequence)] = sequence
            mask[place, : len(sequence)] = True
        return x, mask


def _check(sequences: list[Tensor]) -> None:
    if not sequences:
        raise ValueError(
            "LengthBuckets: expected at least one sequence, got none. Fix: [torch.zeros(5, 2), …]."
        )
    for row, x in enumerate(sequences):
        if x.dim() == 0 or len(x) == 0:
            raise ValueError(
                f"LengthBuckets: expected sequences of one step or more, got shape {tuple(x.shape)} at {row}. "
                "Fix: leave it out."
            )
        if x.shape[1:] != sequences[0].shape[1:] or x.dtype != sequences[0].dtype:
            raise ValueError(
                f"LengthBuckets: expected events of one shape and dtype, {tuple(sequences[0].shape[1:])} of "
                f"{sequences[0].dtype}, got {tuple(x.shape[1:])} of {x.dtype} at {row}. "
                "Fix: the same numbers at each step of each sequence."
            )
