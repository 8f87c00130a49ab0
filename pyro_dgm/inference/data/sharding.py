"""The data of several processes: each takes a part, and all take as many batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
)

from ..process.distributed import all_reduce_sum, gather, rank_and_world
from ..process.states import derive_seed
from .tensors import Batch


def part_of_rank(order: Tensor, *, pad: bool) -> Tensor:
    """This rank's part of an order; padded from its start where all ranks must take as many steps."""
    rank, world = rank_and_world()
    padding = -len(order) % world if pad else 0
    return torch.cat([order, order[:padding]])[rank::world]


class OrderOfEpoch(RandomSampler):
    """The order that `Batches` have: a function of (seed, epoch)."""

    def __init__(self, data: Dataset[Any]):
        super().__init__(data, generator=torch.Generator())  # type: ignore[arg-type]

    def set_order(self, seed: int, epoch: int) -> None:
        """Choose the order of an epoch."""
        self.generator.manual_seed(derive_seed(seed, epoch))


def loader_of(
    data: Dataset[Any],
    batch_size: int | None,
    collate: Callable[[Any], Any],
    *,
    shuffle: bool,
    split: bool,
) -> DataLoader[Any]:
    """A loader over a map-style Dataset; where it is split each of several processes reads a part of its own.

    In an order of its own a part is as long as any other, so that one or the other datum is there twice; in order each
    datum is there once.
    """
    rank, world = rank_and_world()
    if not split or world == 1:
        order = OrderOfEpoch(data) if shuffle else None
        return DataLoader(data, batch_size, sampler=order, collate_fn=collate)
    if shuffle:
        sampler: DistributedSampler[Any] = DistributedSampler(data, shuffle=True)
        return DataLoader(data, batch_size, sampler=sampler, collate_fn=collate)
    num: int = len(data)  # type: ignore[arg-type]
    return DataLoader(Subset(data, range(rank, num, world)), batch_size, collate_fn=collate)


def sampler_of(loader: Any) -> Any:
    """What chooses the data of a DataLoader, also within a sampler of batches; `None` of anything else."""
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return None
    return getattr(loader.batch_sampler, "sampler", None) or loader.sampler


def has_own_part(loader: Any) -> bool:
    """Whether a loader says itself which part of the data a rank takes."""
    return isinstance(sampler_of(loader), DistributedSampler)


def require_parts(loader: Any, name: str) -> None:
    """Refuse a loader that gives all data to each of several processes.

    Raises:
        ValueError: with the sampler, and the fix.
    """
    _, world = rank_and_world()
    sampler = sampler_of(loader)
    repeats = isinstance(sampler, RandomSampler) and sampler.replacement
    if world == 1 or repeats or not isinstance(sampler, (SequentialSampler, RandomSampler)):
        return
    raise ValueError(
        f"{name}: expected a loader that gives each of {world} ranks a part of the data, got one with "
        f"{type(sampler).__name__}, which gives all of them to every rank. "
        "Fix: DataLoader(data, sampler=DistributedSampler(data)); for data that differ by rank "
        "DistributedSampler(part, num_replicas=1, rank=0)."
    )


def length_of(loader: Any) -> str | None:
    """How many batches a loader gives, in words; `None` where only reading it tells."""
    if isinstance(loader, list):
        return f"{len(loader)} batches"
    if isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset):
        return f"{len(loader)} batches"
    return None


def in_step(batches: Iterator[Batch], length: str | None, device: torch.device) -> Iterator[Batch]:
    """The batches of an epoch, of which every rank takes as many.

    Lengths are compared before the first step. Where a rank does not know its length, all ask before every step
    whether each has a batch, at the cost of a host synchronisation.

    Args:
        batches: of this rank.
        length: how many, in words; `None` where only reading them tells.
        device: where the ranks exchange tensors.

    Raises:
        ValueError: on all ranks, where some have more batches than others.
    """
    _, world = rank_and_world()
    if world == 1:
        return batches
    lengths = gather(length)
    if None in lengths:
        return _while_all_have_one(batches, device)
    if len(set(lengths)) > 1:
        raise _unequal(", ".join(f"{own} on rank {i}" for i, own in enumerate(lengths)))
    return batches


def _while_all_have_one(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    rank, world = rank_and_world()
    for step, batch in enumerate(_with_end(batches), start=1):
        flags = torch.zeros(world, device=device)
        flags[rank] = float(batch is not None)
        has_one = [bool(flag) for flag in all_reduce_sum(flags).tolist()]
        if not any(has_one):
            return
        if not all(has_one):
            ended = [i for i, one in enumerate(has_one) if not one]
            raise _unequal(f"no batch for step {step} of the epoch on ranks {ended}")
        assert batch is not None
        yield batch


def _with_end(batches: Iterator[Batch]) -> Iterator[Batch | None]:
    yield from batches
    yield None


def _unequal(what: str) -> ValueError:
    return ValueError(
        f"data: expected as many batches on every rank, got {what}. "
        "Fix: DataLoader(data, sampler=DistributedSampler(data)), or islice(stream, num) of a stream on each rank."
    )
