"""Minibatches of whatever a user calls data, as tuples of tensors on one device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, IterableDataset, TensorDataset

from ...contract import PyroProgram
from ..process.ambient import read_on_cpu
from ..process.numbers import check_count
from ..process.states import derive_seed, fork_rng
from .arguments import arguments_of, takes_as_one_datum
from .extremes import extreme_rows
from .rests import batch_sizes, batches_before_one_datum
from .sharding import length_of, loader_of, part_of_rank, require_parts, sampler_of
from .tensors import (
    Batch,
    as_tensors,
    check_list,
    concat_rows,
    fix_of_form,
    is_array,
    is_option,
    is_stream,
    take_rows,
    to_device,
    to_tensor,
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
        own = order.to(self.tensors[0].device)
        for rows in own.split(batch_sizes(len(own), self.batch_size, join=even)):
            if len(rows):  # of fewer data than ranks some have none
                yield self._rows(rows)

    @property
    def length(self) -> str | None:
        """What fixes how many batches an epoch has, in words."""
        return f"{len(self)} data in batches of {self.batch_size}"

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


class LoaderBatches:
    """The batches of a user's own DataLoader, moved to the device; tensors, tuples, or dicts of tensors.

    Args:
        loader: any re-iterable over batches.
        arguments: names of the program's arguments, by which a dict batch is ordered.
        device: where the tensors go.
    """

    def __init__(self, loader: Any, arguments: Sequence[str], device: torch.device):
        self.loader, self.arguments, self.device = loader, tuple(arguments), device

    def to(self, device: torch.device) -> LoaderBatches:
        """The same batches on another device."""
        return LoaderBatches(self.loader, self.arguments, device)

    def epoch(self, seed: int = 0, epoch: int = 0, *, even: bool = False) -> Iterator[Batch]:
        """The minibatches of one epoch, in the loader's own order.

        For training (`even`) a last batch of a single datum goes into the one before, where the loader says its sizes.
        """
        sampler = sampler_of(self.loader)
        if isinstance(sampler, DistributedSampler):
            sampler.set_epoch(epoch)
        joined = batches_before_one_datum(self.loader) if even else None
        batches = iter(read_on_cpu(self.loader))
        for position, batch in enumerate(batches):
            moved = self._moved(batch)
            if position + 1 == joined:  # the last but one takes in the last
                moved = concat_rows([moved, *map(self._moved, batches)])
            yield moved

    def _moved(self, batch: Any) -> Batch:
        return tuple(self._to_device(value) for value in self._ordered(batch))

    @property
    def length(self) -> str | None:
        """How many batches an epoch has, in words; `None` where only reading them tells."""
        return length_of(self.loader)

    def first(self) -> Batch:
        """The first batch.

        Raises:
            ValueError: if the loader yields nothing.
        """
        for batch in self.epoch():
            return batch
        raise ValueError(
            "data: expected at least one batch, got a loader that yields nothing. Fix: drop_last=False."
        )

    def _to_device(self, value: Any) -> Any:
        return to_tensor(value).to(self.device, non_blocking=True) if is_array(value) else value

    def _ordered(self, batch: Any) -> Batch:
        """The arguments of the program that a batch holds, in their order."""
        if not isinstance(batch, Mapping):
            return tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)
        if not set(batch) <= set(self.arguments):
            raise ValueError(
                f"data: expected a dict batch with keys among the model's arguments {self.arguments}, got "
                f"{sorted(batch)}. Fix: name the keys as the arguments of model.forward."
            )
        names = self.arguments[: len(batch)]
        if set(names) != set(
            batch
        ):  # arguments go by position: none may be left out before the last
            raise ValueError(
                f"data: expected a dict batch with the model's first arguments {names}, got {sorted(batch)}. "
                "Fix: give every argument before the last one."
            )
        return tuple(batch[name] for name in names)


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
    if is_array(data) or (isinstance(data, tuple) and data):
        found = Batches(data, batch_size, shuffle=shuffle, name=name).to(device)
        return found if split else found.whole()
    if isinstance(data, Dataset):
        loader = _loader_of(data, batch_size, model, device, shuffle=shuffle, split=split)
        return LoaderBatches(loader, arguments_of(model), device)
    if isinstance(data, list):
        check_list(data, name)
    if isinstance(data, Iterator):
        raise TypeError(
            f"{name}: expected something to read once per epoch, got an iterator ({type(data).__name__}), which "
            "is read only once. Fix: a DataLoader, or list(data) joined by torch.cat."
        )
    if is_stream(data):
        if split and shuffle:
            require_parts(data, name)
        return LoaderBatches(data, arguments_of(model), device)
    fix = (
        fix_of_form(data) if isinstance(data, Mapping) else "torch.as_tensor(x), one row per datum"
    )
    raise TypeError(
        f"{name}: expected a Tensor, ndarray, DataFrame, tuple of them, Batches, Dataset, DataLoader or list of "
        f"batches, got {type(data).__name__}. Fix: {fix}."
    )


def _loader_of(
    data: Dataset[Any], batch_size: int, model: PyroProgram, device: torch.device, **how: bool
) -> DataLoader[Any]:
    """A loader over a Dataset; a stream says itself what a rank reads, and may be batched already."""
    if not isinstance(data, IterableDataset):
        return loader_of(data, batch_size, **how)
    return DataLoader(data, None if _comes_in_batches(data, model, device) else batch_size)


def _comes_in_batches(
    stream: IterableDataset[Any], model: PyroProgram, device: torch.device
) -> bool:
    """Whether the items of a stream are batches, and not single data."""
    one = LoaderBatches(DataLoader(stream, 1), arguments_of(model), device)
    with fork_rng():
        return not takes_as_one_datum(model, one.first)
