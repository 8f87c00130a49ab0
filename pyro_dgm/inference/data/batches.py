"""Minibatches of data in arrays, as tuples of tensors on one device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any

import torch
from torch import Tensor

from ..process.distributed import rank_and_world
from ..process.numbers import check_count
from .extremes import reach_of
from .forms import check_lengths, is_option
from .loaders import LoaderBatches as LoaderBatches
from .rests import batch_sizes
from .sharding import Stages, order_of_epoch, part_of_rank
from .stored import StoredRows, as_stored, is_stored
from .tensors import Batch, check_data, has_rows, is_array, refuse_complex, take_rows, to_tensor


class Batches:
    r"""Arrays cut into minibatches by index: on the device and without copies from the host where they are in memory.

    A memory map, an array of HDF5 or zarr and a sparse matrix stay where they are: the rows of a minibatch are read as
    it comes, and sparse ones become dense on the device. Bytes travel as bytes: `uint8` becomes floats where a program
    makes it so, as `mlp` and the image networks do, or by `transform=torch.Tensor.float`.

    Args:
        data: a tensor or an array `(N, *event)`, or a tuple of them of equal length: observation first, then context.
            Further arguments of a program that are `None`, numbers or dicts go with every minibatch as they are.
        batch_size: data per minibatch; the last one may be smaller.
        transform: applied to the observation of every minibatch, on the device; for example `binarize`.
        shuffle: whether every epoch has a new order, a function of (seed, epoch).

    Raises:
        ValueError: for empty, NaN or infinite data, or tensors of different lengths.

    Example:
        >>> [len(x) for (x,) in Batches(torch.zeros(10, 2), batch_size=4).epoch()]
        [4, 4, 2]
    """

    def __init__(
        self,
        data: Any,
        batch_size: int = 128,
        transform: Callable[[Tensor], Tensor] | None = None,
        *,
        shuffle: bool = True,
        name: str = "data",
    ):
        check_count("Batches", "batch_size", batch_size, fix="batch_size=128")
        parts = data if isinstance(data, (tuple, list)) else (data,)
        self.tensors: tuple[Any, ...] = _checked(parts, name)
        self.batch_size, self.transform, self.shuffle = batch_size, transform, shuffle
        self.split = True

    def to(self, device: torch.device) -> Batches:
        """The same batches with their data on a device."""
        moved = [part.to(device) if _is_of_rows(part) else part for part in self.tensors]
        return self._with(tensors=tuple(moved))

    def whole(self) -> Batches:
        """The same batches, all of them for each of several processes."""
        return self._with(split=False)

    def in_order(self) -> Batches:
        """The same batches without shuffling."""
        return self._with(shuffle=False)

    def __iter__(self) -> Iterator[Batch]:
        return self.in_order().epoch()

    def __len__(self) -> int:
        """Number of data."""
        return len(self.tensors[0])

    def epoch(
        self,
        seed: int = 0,
        epoch: int = 0,
        *,
        training: bool = False,
        stages: Stages = (),
        num_seen: int = 0,
    ) -> Iterator[Batch]:
        """The minibatches of one epoch; with several processes those of this rank, and each datum is with one of them.

        Args:
            seed: the order is a function of it
            epoch: and of this.
            training: this rank's data, in batches without a last one of a single datum, which batch normalization
                can't be trained on (the batch before takes that datum in); else every W-th batch of the whole set.
            stages: what other ranks have done of it, in training.
            num_seen: data that this rank has seen since then.
        """
        order = order_of_epoch(len(self), seed, epoch, shuffle=self.shuffle, stages=stages)
        is_shared = self.split and rank_and_world()[1] > 1
        if is_shared and training:
            order = part_of_rank(order)
        is_read = any(isinstance(part, StoredRows) for part in self.tensors)
        own = order[num_seen:] if is_read else order[num_seen:].to(self.tensors[0].device)
        batches = own.split(batch_sizes(len(own), self.batch_size, join=training))
        if is_shared and not training:
            batches = batches[slice(*self._places)]
        for rows in batches:
            if len(rows):  # of fewer data than ranks some have none
                yield self._rows(rows)

    def numbered(self) -> Iterator[tuple[int, Batch]]:
        """This rank's batches for evaluation, each with its number in the whole set."""
        start, _, step = self._places
        return zip(count(start, step), self.epoch(), strict=False)

    @property
    def _places(self) -> tuple[int, None, int]:
        """Start, end and step of this rank's batches among those of the whole set."""
        rank, world = rank_and_world() if self.split else (0, 1)
        return rank, None, world

    @property
    def num_batches(self) -> int | None:
        """How many batches an epoch of training has, for this rank."""
        start, _, step = self._places
        num_own = len(range(start, len(self), step))
        return len(batch_sizes(num_own, self.batch_size, join=True))

    @property
    def is_one_batch(self) -> bool:
        """Whether all data are in one batch, on one process."""
        is_alone = not self.split or rank_and_world()[1] == 1
        return is_alone and self.num_batches == 1

    def first(self) -> Batch:
        """A batch that holds the rows with extreme values: what a check finds there, it finds in the whole set."""
        x = self.tensors[0]
        reach = x.reach if isinstance(x, StoredRows) else reach_of(x)
        return self._rows(reach.extreme_rows(min(self.batch_size, len(self))))

    def _with(self, **changes: Any) -> Batches:
        new = object.__new__(type(self))
        new.__dict__ = {**self.__dict__, **changes}
        return new

    def _rows(self, rows: Tensor) -> Batch:
        taken: list[Any] = []
        for part in self.tensors:
            is_read = isinstance(part, StoredRows)
            taken += (part.take(rows),) if is_read else take_rows((part,), rows)
        x, *context = taken
        if self.transform is not None:
            x = self.transform(x)
        return (x, *context)


def _is_of_rows(part: Any) -> bool:
    return isinstance(part, (Tensor, StoredRows))


def _checked(parts: Sequence[Any], name: str) -> tuple[Any, ...]:
    """The arguments of a program, arrays in memory as tensors and others as rows to be read.

    Raises:
        TypeError, ValueError: for what is no array, or bad data.
    """
    found: list[Any] = []
    for position, part in enumerate(parts):
        own_name = f"{name}[{position}]"
        if is_stored(part):
            rows = as_stored(part, own_name)
            rows.check()
            found.append(rows)
        elif is_array(part):
            tensor = to_tensor(part, own_name)
            check_data(tensor, own_name)
            if position == 0:
                refuse_complex(tensor, own_name)
            found.append(tensor)
        elif position > 0 and is_option(part):
            found.append(part)
        else:
            raise TypeError(
                f"{own_name}: expected a tensor or an array (N, *event), got {type(part).__name__}. "
                "Fix: torch.as_tensor(x), or a DataLoader for data that come in batches."
            )
    x = found[0]
    if isinstance(x, Tensor) and x.dim() == 0:
        raise ValueError(
            f"{name}: expected a tensor (N, *event), got a 0-dim tensor {x}. Fix: x[None], for one datum."
        )
    check_lengths([len(part) for part in found if has_rows(part) or is_stored(part)], name)
    return tuple(found)
