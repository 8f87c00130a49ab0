"""Whatever a user calls data, as batches; and as estimates take them: on the device of the programs, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from ...contract import PyroProgram
from ..process.states import derive_seed, device_of, fork_rng, with_own_rng
from .arguments import Arguments, takes
from .batches import Batches
from .forms import (
    RowsByNumber,
    as_tensors,
    check_list,
    check_observation_argument,
    fix_of_form,
    is_stream,
)
from .loaders import LoaderBatches, collate, collate_batch
from .stored import is_stored
from .tensors import Batch, concat_rows, is_array, to_device

ROWS = 512  # of a batch, where a dataset does not say it


def read_stream(source: Any, program: Any, device: torch.device, seed: int) -> Iterator[Batch]:
    """The batches of a loader, a dataset or a list, on a device; its noise is not the estimate's.

    Args:
        source: where they come from.
        program: whose arguments they hold.
        device: where they go.
        seed: of the noise of what reads them.

    Raises:
        ValueError: if there are none.
    """
    if isinstance(source, Batches):
        source = source.in_order()
    batches = as_batches(source, ROWS, program, device, shuffle=False)
    found = False
    own_seed = derive_seed(seed, 1)
    for batch in with_own_rng(batches.epoch(own_seed), own_seed):
        found = True
        yield batch
    if not found:
        raise ValueError(
            "data: expected at least one batch, got a loader that yields none. Fix: drop_last=False."
        )


def place_data(module: object, batch: Batch) -> Batch:
    """The data as tensors where a module's weights are, checked as a session checks them."""
    check_observation_argument(batch)
    return to_device(as_tensors(batch), device_of(module))


def read_arguments(program: PyroProgram, batch: Batch) -> Batch:
    """The arguments of a program as tensors, checked; a stream of batches is read whole.

    Args:
        program: whose arguments they are; it orders batches that are dicts.
        batch: arrays, the observation first; or one stream.

    Raises:
        TypeError, ValueError: for what is no data, or bad data.
    """
    check_observation_argument(batch)
    if not is_stream(batch[0]):
        return as_tensors(batch)
    source = list(batch[0]) if isinstance(batch[0], Iterator) else batch[0]
    stream = as_batches(source, 512, program, device_of(program), shuffle=False)
    batches = [as_tensors(part) for part in with_own_rng(stream.epoch(), 0)]
    return concat_rows(batches or [stream.first()])


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
    return _Source(data, model, device, batch_size).read(shuffle=shuffle)


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

    def read(self, *, shuffle: bool) -> LoaderBatches:
        """The batches; single data are put together."""
        is_loader = isinstance(self.data, DataLoader)
        if isinstance(self.data, list) or (is_loader and self.data.batch_sampler is None):
            if not self._holds_data_alone():
                return self.batches()
            if is_loader:
                return self.batches(num_stacked=self.batch_size)
        elif is_loader or not isinstance(self.data, (Dataset, RowsByNumber)):
            return self.batches()
        return self.of_dataset(shuffle=shuffle)

    def batches(self, loader: Any = None, num_stacked: int | None = None) -> LoaderBatches:
        """The batches of a loader, by default of the data themselves."""
        loader = self.data if loader is None else loader
        return LoaderBatches(loader, Arguments.of(self.program), self.device, num_stacked)

    def of_dataset(self, *, shuffle: bool) -> LoaderBatches:
        """Batches of a dataset; a stream says itself what a rank reads, and its items may be batches."""
        is_batched = self._holds_batches()
        size, how = (None, collate_batch) if is_batched else (self.batch_size, collate)
        shuffled = shuffle and not isinstance(self.data, IterableDataset)
        return self.batches(DataLoader(self.data, size, shuffle=shuffled, collate_fn=how))

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
