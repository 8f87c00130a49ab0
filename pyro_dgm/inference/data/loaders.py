"""Batches of data that come one after the other: a loader of the user's own, a dataset, a stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count, islice
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, RandomSampler

from ..process.ambient import read_on_cpu
from ..process.distributed import rank_and_world
from ..process.states import derive_seed, with_own_rng
from .arguments import Arguments
from .rests import batches_before_one_datum, join_one_datum
from .sharding import BatchesOfRank, OrderOfRank, Stages, num_batches_of, sampler_of
from .stored import SparseRows, is_sparse
from .tensors import Batch, concat_rows, is_array, to_tensor


@runtime_checkable
class OrderedByEpoch(Protocol):
    """A sampler or a stream whose order is a function of the epoch."""

    def set_epoch(self, epoch: int, /) -> Any:
        """Choose the order of an epoch."""


class LoaderBatches:
    """The batches of a loader, moved to the device: tensors, tuples, or dicts of tensors by the arguments' names.

    Args:
        loader: any re-iterable over batches.
        arguments: names of the program's arguments, by which a dict batch is ordered.
        device: where the tensors go.
        num_stacked: where the items are single data: how many of them make a batch.
    """

    def __init__(
        self,
        loader: Any,
        arguments: Arguments | Sequence[str],
        device: torch.device,
        num_stacked: int | None = None,
    ):
        names = arguments if isinstance(arguments, Arguments) else Arguments(tuple(arguments))
        self.loader, self.arguments, self.device = loader, names, device
        self.num_stacked = num_stacked

    def to(self, device: torch.device) -> LoaderBatches:
        """The same batches on another device."""
        return LoaderBatches(self.loader, self.arguments, device, self.num_stacked)

    def of_loader(self, loader: Any) -> LoaderBatches:
        """The batches of another loader over the same items."""
        return LoaderBatches(loader, self.arguments, self.device, self.num_stacked)

    def epoch(
        self, seed: int = 0, epoch: int = 0, *, training: bool = False, stages: Stages = ()
    ) -> Iterator[Batch]:
        """The minibatches of one epoch, in the loader's own order.

        What the loader draws is a function of (seed, epoch), and takes nothing from the noise of the programs.
        For training a last batch of a single datum goes into the one before, where the loader leaves its batches to a
        size, or is a stream.

        Args:
            seed: the order is a function of it
            epoch: and of this.
            training: whether a last batch of a single datum is joined.
            stages: what other ranks have done of it, where the data are shared out.
        """
        source = getattr(self.loader, "dataset", self.loader)
        sampler = sampler_of(self.loader)
        if isinstance(sampler, OrderOfRank):
            sampler.begin(seed, epoch, stages)
        for ordered in (sampler, source):
            if isinstance(ordered, OrderedByEpoch):
                ordered.set_epoch(epoch)
        batches = with_own_rng(self._batches(), derive_seed(seed, epoch))
        return self._joined(batches) if training else batches

    def numbered(self) -> Iterator[tuple[int, Batch]]:
        """This rank's batches for evaluation, each with its number in the whole set, where it is shared out."""
        rank, world = rank_and_world()
        samplers = (getattr(self.loader, name, None) for name in ("batch_sampler", "sampler"))
        if not any(isinstance(sampler, BatchesOfRank) for sampler in samplers):
            rank, world = 0, 1
        return zip(count(rank, world), self.epoch(), strict=False)

    @property
    def num_batches(self) -> int | None:
        """How many batches an epoch of training has; `None` where only reading them tells."""
        num = None if self.num_stacked else num_batches_of(self.loader)
        if num is None or num < 2:
            return num
        if comes_as_it_is(self.loader):  # the last one may be of one datum
            return None
        return batches_before_one_datum(self.loader) or num

    def in_order(self) -> LoaderBatches:
        """The same batches.

        Raises:
            ValueError: for a loader that shuffles.
        """
        sampler = sampler_of(self.loader)
        if isinstance(sampler, RandomSampler) or getattr(sampler, "shuffle", False):
            raise ValueError(
                "data: expected a loader in the order of the data, for the programs know each datum by its place, got "
                "one that shuffles. Fix: DataLoader(data, batch_size=len(data), shuffle=False)."
            )
        return self

    @property
    def is_one_batch(self) -> bool:
        """Whether all data are known to be in one batch."""
        return self.num_batches == 1

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

    def _batches(self) -> Iterator[Batch]:
        items = read_on_cpu(self.loader)
        if self.num_stacked:
            items = _stacks(items, self.num_stacked)
        for item in items:
            batch = tuple(self._to_device(value) for value in self.arguments.in_order(item))
            _require_tensor(batch[0])
            yield batch

    def _joined(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        if self.num_stacked or comes_as_it_is(self.loader):
            yield from join_one_datum(batches)
            return
        joined = batches_before_one_datum(self.loader)
        for position, batch in enumerate(batches):
            if position + 1 == joined:  # the last but one takes in the last
                yield concat_rows([batch, *batches])
            else:
                yield batch

    def _to_device(self, value: Any) -> Any:
        if is_sparse(value):
            return SparseRows.of(value).to(self.device).take(slice(None))
        return to_tensor(value).to(self.device, non_blocking=True) if is_array(value) else value


def _require_tensor(x: Any) -> None:
    """Refuse a batch whose observation is no array.

    Raises:
        TypeError: with what gives one.
    """
    if not isinstance(x, Tensor):
        got = f"a list of {type(x[0]).__name__}" if isinstance(x, list) and x else type(x).__name__
        raise TypeError(
            f"data: expected x as a tensor or an array in every batch, got {got}. Fix: "
            "data.with_format('torch') of a Hugging Face dataset, .decode('torchrgb') of a WebDataset, "
            "or a transform or collate_fn that gives tensors."
        )


def comes_as_it_is(loader: Any) -> bool:
    """Whether a loader reads a stream or ready batches, and can't say how many data they have."""
    if isinstance(loader, DataLoader):
        return loader.batch_sampler is None or isinstance(loader.dataset, IterableDataset)
    return isinstance(loader, IterableDataset)


def _stacks(items: Iterable[Any], num: int) -> Iterator[Any]:
    """Single data as batches of `num`."""
    items = iter(items)
    while rows := [*islice(items, num)]:
        yield collate(rows)


# -- single data as a batch ------------------------------------------------------------------------
def collate(rows: Sequence[Any]) -> Any:
    """A batch of single data: numbers, arrays, lists of numbers, sparse rows, in tuples or dicts.

    Texts and other values become a list. Numbers of Python become tensors as `torch.as_tensor` makes them.

    Raises:
        ValueError: for data of several shapes.
        TypeError: for pictures and other objects in place of x.

    Example:
        >>> collate([{"x": [1.0, 2.0], "label": 0}, {"x": [3.0, 4.0], "label": 1}])
        {'x': tensor([[1., 2.],
                [3., 4.]]), 'label': tensor([0, 1])}
    """
    first = rows[0]
    if isinstance(first, Mapping):
        return {key: collate([row[key] for row in rows]) for key in first}
    if isinstance(first, (tuple, list)) and not _is_of_numbers(first):
        columns = zip(*rows, strict=True)
        return tuple(collate(column) for column in columns)
    if is_sparse(first):
        return _stack_sparse(rows)
    values = [as_numbers(row) for row in rows]
    if not all(isinstance(value, Tensor) for value in values):
        return list(rows)
    shapes = sorted({tuple(value.shape) for value in values})
    if len(shapes) > 1:
        raise ValueError(
            f"data: expected data of one shape in a batch, got {shapes[:3]}. Fix: one shape for every datum "
            "where they are read, or LengthBuckets for sequences."
        )
    return torch.stack(values)


def collate_batch(item: Any) -> Any:
    """An item that is a batch already, with lists of numbers and of arrays as tensors."""
    if isinstance(item, Mapping):
        return {key: _stacked(value) for key, value in item.items()}
    if isinstance(item, (tuple, list)) and not _is_of_numbers(item):
        return tuple(_stacked(value) for value in item)
    return as_numbers(item)


def _stacked(value: Any) -> Any:
    """An argument of a batch; a list of arrays, one for each datum, as one array."""
    is_list = isinstance(value, list) and all(is_array(one) for one in value)
    return collate(value) if is_list and value else as_numbers(value)


def as_numbers(value: Any) -> Any:
    """A value as a tensor, if it is made of numbers; else as it is."""
    if is_sparse(value):
        return value
    if is_array(value):
        return to_tensor(value)
    if isinstance(value, (bool, int, float, np.generic)):
        return torch.as_tensor(value, device="cpu")
    if isinstance(value, (list, tuple)) and _is_of_numbers(value):
        return _tensor_of_list(value)
    return value


def _is_of_numbers(values: Sequence[Any]) -> bool:
    """Whether a list is one array, written as lists, and not the arguments of a program."""
    if not values:
        return False
    first = values[0]
    if isinstance(first, list):
        return _is_of_numbers(first)
    return isinstance(values, list) and isinstance(first, (bool, int, float, np.generic))


def _tensor_of_list(values: Sequence[Any]) -> Tensor:
    try:
        return torch.as_tensor(values, device="cpu")
    except ValueError as error:
        raise ValueError(
            "data: expected lists of one length in every datum, got others. "
            "Fix: LengthBuckets for sequences, or lists that are padded."
        ) from error


def _stack_sparse(rows: Sequence[Any]) -> Any:
    """Sparse rows `(1, D)` or `(D,)` as one sparse matrix, or as a dense tensor if they are tensors."""
    if isinstance(rows[0], Tensor):
        return torch.stack([row.to_dense().reshape(row.shape[-1]) for row in rows])
    from scipy.sparse import vstack  # who has sparse rows has SciPy

    return vstack(rows, format="csr")
