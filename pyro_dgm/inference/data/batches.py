"""Minibatches of whatever a user calls data, as tuples of tensors on one device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import count
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from ...contract import PyroProgram
from ..process.distributed import rank_and_world
from ..process.numbers import check_count
from ..process.states import fork_rng
from .arguments import arguments_of, takes_as_one_datum
from .extremes import extreme_rows
from .loaders import LoaderBatches as LoaderBatches
from .rests import batch_sizes
from .sharding import (
    Stages,
    order_of_epoch,
    part_of_rank,
)
from .tensors import (
    Batch,
    as_tensors,
    check_list,
    fix_of_form,
    is_array,
    is_option,
    is_stream,
    take_rows,
    to_device,
)


class Batches:
    r"""Tensors in memory, on the device, cut into minibatches by index: no workers, no copies from the host.

    Args:
        data: a Tensor or ndarray `(N, *event)`, or a tuple of them of equal length: observation first, then context.
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
        for position, part in enumerate(parts):
            if not is_array(part) and (position == 0 or not is_option(part)):
                raise TypeError(
                    f"{name}[{position}]: expected a tensor or an array (N, *event), got {type(part).__name__}. "
                    "Fix: torch.as_tensor(x), or a DataLoader for data that come in batches."
                )
        if parts[0].ndim == 0:
            raise ValueError(
                f"{name}: expected a tensor (N, *event), got a 0-dim tensor {parts[0]}. "
                "Fix: x[None], for one datum."
            )
        self.tensors: tuple[Tensor, ...] = as_tensors(parts, name)
        self.batch_size, self.transform, self.shuffle = batch_size, transform, shuffle
        self.split = True

    def to(self, device: torch.device) -> Batches:
        """The same batches with their data on a device."""
        return self._with(tensors=to_device(self.tensors, device))

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
        own = order[num_seen:].to(self.tensors[0].device)
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

    def first(self) -> Batch:
        """A batch that holds the rows with extreme values: what a check finds there, it finds in the whole set."""
        return self._rows(extreme_rows(self.tensors[0], min(self.batch_size, len(self))))

    def _with(self, **changes: Any) -> Batches:
        new = object.__new__(type(self))
        new.__dict__ = {**self.__dict__, **changes}
        return new

    def _rows(self, rows: Tensor) -> Batch:
        x, *context = take_rows(self.tensors, rows)
        if self.transform is not None:
            x = self.transform(x)
        return (x, *context)


def as_batches(
    data: Any,
    batch_size: int,
    model: PyroProgram,
    device: torch.device,
    *,
    shuffle: bool = True,
    split: bool = False,
    name: str = "data",
) -> Batches | LoaderBatches:
    """Batches of whatever a user calls data: arrays, a tuple of them, `Batches`, a Dataset, a loader, a list.

    Args:
        data: the data.
        batch_size: data per batch, where the data do not say it themselves.
        model: the program whose arguments a batch holds; it orders batches that are dicts.
        device: where the batches go.
        shuffle: whether every epoch has a new order, where the data do not say it themselves.
        split: whether each of several processes takes a part of what is in memory, as training does.
        name: of the argument, for messages.

    Raises:
        TypeError: for anything else.
    """
    if isinstance(data, Batches):
        return (data if split else data.whole()).to(device)
    if isinstance(data, LoaderBatches):
        return data.to(device)
    if isinstance(data, TensorDataset):
        data = data.tensors
    if is_array(data) or (isinstance(data, tuple) and data):
        found = Batches(data, batch_size, shuffle=shuffle, name=name).to(device)
        return found if split else found.whole()
    if isinstance(data, Dataset):
        loader = _loader_of(data, batch_size, model, device, shuffle=shuffle)
        return LoaderBatches(loader, arguments_of(model), device)
    if isinstance(data, list):
        check_list(data, name)
    if isinstance(data, Iterator):
        raise TypeError(
            f"{name}: expected something to read once per epoch, got an iterator ({type(data).__name__}), which "
            "is read only once. Fix: a DataLoader, or list(data) joined by torch.cat."
        )
    if is_stream(data):
        return LoaderBatches(data, arguments_of(model), device)
    fix = (
        fix_of_form(data) if isinstance(data, Mapping) else "torch.as_tensor(x), one row per datum"
    )
    raise TypeError(
        f"{name}: expected a Tensor, ndarray, DataFrame, tuple of them, Batches, Dataset, DataLoader or list of "
        f"batches, got {type(data).__name__}. Fix: {fix}."
    )


def _loader_of(
    data: Dataset[Any], batch_size: int, model: PyroProgram, device: torch.device, *, shuffle: bool
) -> DataLoader[Any]:
    """A loader over a Dataset; a stream says itself what a rank reads, and may be batched already."""
    if not isinstance(data, IterableDataset):
        return DataLoader(data, batch_size, shuffle=shuffle)
    return DataLoader(data, None if _comes_in_batches(data, model, device) else batch_size)


def _comes_in_batches(
    stream: IterableDataset[Any], model: PyroProgram, device: torch.device
) -> bool:
    """Whether the items of a stream are batches, and not single data."""
    one = LoaderBatches(DataLoader(stream, 1), arguments_of(model), device)
    with fork_rng():
        return not takes_as_one_datum(model, one.first)
