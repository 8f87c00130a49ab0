"""Minibatches of whatever a user calls data, as tuples of tensors on one device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from ...contract import PyroProgram
from ..process.numbers import check_count
from ..process.states import derive_seed, fork_rng
from .arguments import Arguments, takes
from .extremes import reach_of
from .forms import (
    RowsByNumber,
    check_lengths,
    check_list,
    fix_of_form,
    is_option,
    is_stream,
)
from .loaders import LoaderBatches, collate, collate_batch
from .rests import batch_sizes
from .sharding import loader_of, part_of_rank, require_parts
from .stored import StoredRows, as_stored, is_stored
from .tensors import Batch, check_data, has_rows, is_array, take_rows, to_tensor


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

    def epoch(self, seed: int = 0, epoch: int = 0, *, even: bool = False) -> Iterator[Batch]:
        """The minibatches of one epoch; with several processes those of this rank.

        Args:
            seed: the order is a function of it
            epoch: and of this.
            even: for training: as many batches as of any other rank, and no last one of a single datum, which
                batch normalization can't be trained on; the batch before takes that datum in.
        """
        order = torch.arange(len(self), device="cpu")
        if self.shuffle:
            generator = torch.Generator().manual_seed(derive_seed(seed, epoch))
            order = torch.randperm(len(self), generator=generator, device="cpu")
        if self.split:
            order = part_of_rank(order, pad=even)
        is_read = any(isinstance(part, StoredRows) for part in self.tensors)
        own = order if is_read else order.to(self.tensors[0].device)
        for rows in own.split(batch_sizes(len(own), self.batch_size, join=even)):
            if len(rows):  # of fewer data than ranks some have none
                yield self._rows(rows)

    @property
    def length(self) -> str | None:
        """What fixes how many batches an epoch has, in words."""
        return f"{len(self)} data in batches of {self.batch_size}"

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
        split: whether each of several processes takes a part of the data, as training does.
        name: of the argument, for messages.

    Raises:
        TypeError: for anything else.
        ValueError: for a loader to be split and shuffled that gives all data to each of several processes.
    """
    if isinstance(data, Batches):
        return (data if split else data.whole()).to(device)
    if isinstance(data, LoaderBatches):
        return data.to(device)
    if isinstance(data, TensorDataset):
        data = data.tensors
    if is_array(data) or is_stored(data) or (isinstance(data, tuple) and data):
        found = Batches(data, batch_size, shuffle=shuffle, name=name).to(device)
        return found if split else found.whole()
    if isinstance(data, list):
        check_list(data, name)
    if not is_stream(data):
        fix = (
            fix_of_form(data)
            if isinstance(data, Mapping)
            else "torch.as_tensor(x), one row per datum"
        )
        raise TypeError(
            f"{name}: expected a Tensor, ndarray, DataFrame, tuple of them, Batches, Dataset, DataLoader or list of "
            f"batches, got {type(data).__name__}. Fix: {fix}."
        )
    _refuse_read_once(data, name)
    if split and shuffle:
        require_parts(data, name)
    return _Source(data, model, device, batch_size).read(shuffle=shuffle, split=split)


def _refuse_read_once(data: Any, name: str) -> None:
    is_same = isinstance(data, IterableDataset) and iter(data) is iter(data)
    if isinstance(data, Iterator) or is_same:
        raise TypeError(
            f"{name}: expected something to read once per epoch, got an iterator ({type(data).__name__}), which "
            "is read only once. Fix: a DataLoader, or list(data) joined by torch.cat."
        )


@dataclass(frozen=True)
class _Source:
    """Data that come one after the other, and the program that says whether an item is one datum or a batch."""

    data: Any
    program: PyroProgram
    device: torch.device
    batch_size: int

    def read(self, *, shuffle: bool, split: bool) -> LoaderBatches:
        """The batches; single data are put together."""
        is_loader = isinstance(self.data, DataLoader)
        if isinstance(self.data, list) or (is_loader and self.data.batch_sampler is None):
            if not self._holds_data_alone():
                return self.batches()
            if is_loader:
                return self.batches(num_stacked=self.batch_size)
        elif is_loader or not isinstance(self.data, (Dataset, RowsByNumber)):
            return self.batches()
        return self.of_dataset(shuffle=shuffle, split=split)

    def batches(self, loader: Any = None, num_stacked: int | None = None) -> LoaderBatches:
        """The batches of a loader, by default of the data themselves."""
        loader = self.data if loader is None else loader
        return LoaderBatches(loader, Arguments.of(self.program), self.device, num_stacked)

    def of_dataset(self, *, shuffle: bool, split: bool) -> LoaderBatches:
        """Batches of a dataset; a stream says itself what a rank reads, and its items may be batches."""
        is_batched = self._holds_batches()
        size, how = (None, collate_batch) if is_batched else (self.batch_size, collate)
        if isinstance(self.data, IterableDataset):
            return self.batches(DataLoader(self.data, size, collate_fn=how))
        return self.batches(loader_of(self.data, size, how, shuffle=shuffle, split=split))

    def _holds_data_alone(self) -> bool:
        """Whether the items of a list, or of a loader that does not batch, are data and no batches."""
        is_batch = self._takes(None, collate_batch, strictly=True)
        return not is_batch and self._takes(1, collate)

    def _holds_batches(self) -> bool:
        """Whether the items of a dataset are batches; where the program takes neither its error is that of data."""
        if self._takes(1, collate):
            return False
        if self._takes(None, collate_batch):
            return True
        if not isinstance(self.data, IterableDataset):
            return False
        with fork_rng():
            x = self._first(None, collate_batch)[0]
        return x.dim() > 1

    def _takes(
        self, size: int | None, how: Callable[[Any], Any], *, strictly: bool = False
    ) -> bool:
        with fork_rng():
            return takes(self.program, lambda: self._first(size, how), strictly=strictly)

    def _first(self, size: int | None, how: Callable[[Any], Any]) -> Batch:
        data = self.data.dataset if isinstance(self.data, DataLoader) else self.data
        return self.batches(DataLoader(data, size, collate_fn=how)).first()
