"""The data of several processes: which part of an order a rank takes, and samplers that say so to a loader."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
)

from ..process.distributed import rank_and_world
from ..process.states import derive_seed

# For each part of an epoch that other ranks have taken, one after the other: how many data each of them had seen.
Stages = Sequence[Sequence[int]]


def order_of_epoch(
    num: int, seed: int, epoch: int, *, shuffle: bool, stages: Stages = ()
) -> Tensor:
    """The order of `num` data, or what is left of it: a function of (seed, epoch), on however many ranks.

    Args:
        num: of all data.
        seed: of the order
        epoch: and its epoch.
        shuffle: whether it is a random one.
        stages: what is done.

    Example:
        >>> order_of_epoch(7, 0, 0, shuffle=False, stages=[[1, 2]]).tolist()  # 0 by rank 0; 1 and 3 by rank 1
        [2, 4, 5, 6]
    """
    order = torch.arange(num, device="cpu")
    if shuffle:
        generator = torch.Generator().manual_seed(derive_seed(seed, epoch))
        order = torch.randperm(num, generator=generator, device="cpu")
    for nums_seen in stages:
        is_left = torch.ones(len(order), dtype=torch.bool, device="cpu")
        for rank, num_seen in enumerate(nums_seen):
            is_left[rank :: len(nums_seen)][:num_seen] = False
        order = order[is_left]
    return order


def part_of_rank(order: Tensor) -> Tensor:
    """This rank's part of an order, in which each datum is in one part."""
    rank, world = rank_and_world()
    return order[rank::world]


class OrderOfRank(Sampler[int]):
    """The data of this rank in an epoch of training: each datum is with one rank, once.

    torch's `DistributedSampler` repeats data until all parts are of one length, which steps here do not need.

    Args:
        num: of all data.
        shuffle: whether every epoch has a new order, a function of (seed, epoch).
    """

    def __init__(self, num: int, *, shuffle: bool):
        self.num, self.shuffle = num, shuffle
        self.begin(0, 0)

    def begin(self, seed: int, epoch: int, stages: Stages = ()) -> None:
        """Give the order of this epoch from now on, without what is done of it."""
        order = order_of_epoch(self.num, seed, epoch, shuffle=self.shuffle, stages=stages)
        self.own = part_of_rank(order).tolist()

    def __iter__(self) -> Iterator[int]:
        return iter(self.own)

    def __len__(self) -> int:
        return len(self.own)


class BatchesOfRank(Sampler[Any]):
    """Every W-th batch of a sampler: for numbers that do not depend on the number W of ranks.

    Args:
        sampler: of batches, the same on all ranks
        size: or of single data, so many of which are a batch.
    """

    def __init__(self, sampler: Any, size: int = 1):
        self.all, self.size = sampler, size
        self.sampler = getattr(sampler, "sampler", sampler)

    def __iter__(self) -> Iterator[Any]:
        for place, item in enumerate(self.all):
            if self._is_own(place):
                yield item

    def __len__(self) -> int:
        return sum(map(self._is_own, range(len(self.all))))

    def _is_own(self, place: int) -> bool:
        rank, world = rank_and_world()
        return place // self.size % world == rank


def sampler_of(loader: Any) -> Any:
    """What chooses the data of a DataLoader, also within a sampler of batches; `None` of anything else."""
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return None
    return getattr(loader.batch_sampler, "sampler", None) or loader.sampler


def has_own_part(loader: Any) -> bool:
    """Whether a loader says itself which part of the data a rank takes."""
    return isinstance(sampler_of(loader), (DistributedSampler, OrderOfRank))


def has_plain_sampler(loader: Any) -> bool:
    """Whether a loader gives all data, once an epoch, by samplers of torch's own: the user has chosen no part."""
    sampler = sampler_of(loader)
    if type(sampler) is RandomSampler:
        is_plain = not sampler.replacement and sampler.num_samples == len(loader.dataset)
    else:
        is_plain = type(sampler) is SequentialSampler
    return is_plain and type(loader.batch_sampler) in (BatchSampler, type(None))


def with_order_of_rank(loader: DataLoader[Any]) -> DataLoader[Any]:
    """The same loader for training, with this rank's part of the data."""
    shuffle = isinstance(sampler_of(loader), RandomSampler)
    sampler = OrderOfRank(len(loader.dataset), shuffle=shuffle)  # type: ignore[arg-type]
    old = loader.batch_sampler
    if old is None:
        return _with(loader, sampler=sampler)
    batches = BatchSampler(sampler, old.batch_size, old.drop_last)  # type: ignore[attr-defined]
    return _with(loader, sampler=sampler, batch_sampler=batches)


def with_batches_of_rank(loader: DataLoader[Any], num_stacked: int = 1) -> DataLoader[Any]:
    """The same loader for evaluation, with this rank's share of its batches, or of as many of its items as make one."""
    if loader.batch_sampler is None:
        return _with(loader, sampler=BatchesOfRank(loader.sampler, num_stacked))
    return _with(loader, batch_sampler=BatchesOfRank(loader.batch_sampler))


def _with(loader: DataLoader[Any], **parts: Any) -> DataLoader[Any]:
    """The same loader, of whatever class, with other samplers: a loader refuses to be given them."""
    new = copy(loader)
    vars(new).update(parts, _iterator=None)
    return new


def num_batches_of(loader: Any) -> int | None:
    """How many batches a loader gives; `None` where only reading it tells."""
    if isinstance(loader, list):
        return len(loader)
    if isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset):
        return len(loader)
    return None
