"""Minibatches of whatever a user calls data, as tuples of tensors on one device."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler, TensorDataset

from .distributed import rank_and_world
from .structure import check_data, extreme_rows
from .traces import derive_seed

Batch = tuple[Any, ...]


def binarize(x: Tensor) -> Tensor:
    r"""$b \sim \mathrm{Bern}(x)$: a fresh binary draw of grey values in [0, 1], or of bytes in 0…255.

    As the `transform` of `Batches` it gives dynamic binarization: a new draw each time an image is seen.

    Raises:
        ValueError: if values lie outside [0, 1] and are not bytes.

    Example:
        >>> binarize(torch.tensor([0, 255], dtype=torch.uint8))
        tensor([0., 1.])
    """
    grey = x / 255 if x.dtype == torch.uint8 else x
    if x.dtype != torch.uint8 and not bool(((grey >= 0) & (grey <= 1)).all()):
        raise ValueError(
            f"binarize: expected grey values in [0, 1] or uint8 bytes, got values from {x.min()} to {x.max()}. "
            "Fix: binarize(x / x.max())."
        )
    return torch.bernoulli(grey)


class Batches:
    r"""Tensors in memory, on the device, cut into minibatches by index: no workers, no copies from the host.

    Args:
        data: a Tensor or ndarray `(N, *event)`, or a tuple of them of equal length: observation first, then context.
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
    ):
        parts = data if isinstance(data, (tuple, list)) else (data,)
        self.tensors = tuple(torch.as_tensor(part) for part in parts)
        self.batch_size, self.transform, self.shuffle = batch_size, transform, shuffle
        if batch_size < 1:
            raise ValueError(f"Batches: expected batch_size >= 1, got {batch_size}.")
        for position, tensor in enumerate(self.tensors):
            check_data(tensor, f"data[{position}]")
        lengths = [len(tensor) for tensor in self.tensors]
        if len(set(lengths)) > 1:
            raise ValueError(
                f"Batches: expected tensors of one length, got {lengths}. Fix: one row per datum in each."
            )

    def to(self, device: torch.device) -> Batches:
        """The same batches with their data on a device."""
        new = object.__new__(type(self))
        new.__dict__ = {**self.__dict__, "tensors": tuple(t.to(device) for t in self.tensors)}
        return new

    def __len__(self) -> int:
        """Number of data."""
        return len(self.tensors[0])

    def epoch(self, seed: int = 0, epoch: int = 0, *, even: bool = False) -> Iterator[Batch]:
        """The minibatches of one epoch; with several processes those of this rank, `even`: as many as of any other."""
        order = torch.arange(len(self))
        if self.shuffle:
            order = torch.randperm(
                len(self), generator=torch.Generator().manual_seed(derive_seed(seed, epoch))
            )
        for rows in _shard(order, pad=even).to(self.tensors[0].device).split(self.batch_size):
            yield self._rows(rows)

    def first(self) -> Batch:
        """A batch that holds the rows with extreme values: what a check finds there, it finds in the whole set."""
        return self._rows(extreme_rows(self.tensors[0], min(self.batch_size, len(self))))

    def _rows(self, rows: Tensor) -> Batch:
        x, *context = (tensor[rows] for tensor in self.tensors)
        return (x if self.transform is None else self.transform(x), *context)


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
        """The minibatches of one epoch, in the loader's own order."""
        sampler = getattr(self.loader, "sampler", None)
        if isinstance(sampler, DistributedSampler):
            sampler.set_epoch(epoch)
        for batch in self.loader:
            values = self._ordered(batch)
            yield tuple(
                v.to(self.device, non_blocking=True) if isinstance(v, Tensor) else v for v in values
            )

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

    def _ordered(self, batch: Any) -> Batch:
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
    data: Any, batch_size: int, model: nn.Module, device: torch.device, *, shuffle: bool = True
) -> Batches | LoaderBatches:
    """Batches of a Tensor, ndarray, tuple of them, `Batches`, Dataset or DataLoader.

    Raises:
        TypeError: for anything else.
    """
    if isinstance(data, (Batches, LoaderBatches)):
        return data.to(device)
    if isinstance(data, TensorDataset):
        data = data.tensors
    if isinstance(data, (Tensor, np.ndarray)) or (isinstance(data, (tuple, list)) and data):
        return Batches(data, batch_size, shuffle=shuffle).to(device)
    arguments = [n for n in inspect.signature(model.forward).parameters if n != "self"]
    if isinstance(data, Dataset):
        sampler: Any = (
            DistributedSampler(data, shuffle=shuffle) if rank_and_world()[1] > 1 else None
        )
        loader = DataLoader(data, batch_size, shuffle=shuffle and sampler is None, sampler=sampler)
        return LoaderBatches(loader, arguments, device)
    if isinstance(data, Iterator):
        raise TypeError(
            f"data: expected something to read once per epoch, got an iterator ({type(data).__name__}), which is read "
            "only once. Fix: a DataLoader, or list(data) joined by torch.cat."
        )
    if hasattr(type(data), "__iter__") and not isinstance(data, str):
        return LoaderBatches(data, arguments, device)
    raise TypeError(
        f"data: expected a Tensor, ndarray, tuple of them, Batches, Dataset or DataLoader, got {type(data).__name__}."
    )


def _shard(order: Tensor, *, pad: bool) -> Tensor:
    """This rank's part of an order; padded from its start where all ranks must take as many steps."""
    rank, world = rank_and_world()
    padding = -len(order) % world if pad else 0
    return torch.cat([order, order[:padding]])[rank::world]
