"""What ranks do with data that each of them was given whole: they share them out, and say so once."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from torch.utils.data import RandomSampler

from ..process.distributed import gather, raise_together, rank_and_world
from .batches import Batches, LoaderBatches
from .fingerprints import identify_dataset
from .sharding import (
    has_plain_sampler,
    sampler_of,
    with_batches_of_rank,
    with_order_of_rank,
)
from .tensors import Batch


def share_for_training(batches: Batches | LoaderBatches) -> Batches | LoaderBatches:
    """This rank's part of an epoch; alone, all of it in an order that other numbers of ranks can go on with.

    Whose loader has a sampler of its own, or data that differ by rank, has said which part each rank takes. All ranks
    call it.
    """
    if rank_and_world()[1] > 1:
        return _shared(batches, _part)
    if not isinstance(batches, LoaderBatches) or not has_plain_sampler(batches.loader):
        return batches
    sampler = sampler_of(batches.loader)
    if isinstance(sampler, RandomSampler) and sampler.generator is not None:
        return batches  # the user's own order
    return _part(batches)


def share_for_evaluation(batches: Batches | LoaderBatches) -> Batches | LoaderBatches:
    """Every W-th batch of a loader that is the same on all W ranks, which all call it; other data are left alone."""
    return _shared(batches, _every_wth) if rank_and_world()[1] > 1 else batches


def _part(batches: LoaderBatches) -> LoaderBatches:
    return batches.of_loader(with_order_of_rank(batches.loader))


def _every_wth(batches: LoaderBatches) -> LoaderBatches:
    return batches.of_loader(with_batches_of_rank(batches.loader, batches.num_stacked or 1))


def _shared(
    batches: Batches | LoaderBatches, share: Callable[[LoaderBatches], LoaderBatches]
) -> Batches | LoaderBatches:
    found = None
    with raise_together():
        if isinstance(batches, LoaderBatches) and has_plain_sampler(batches.loader):
            found = identify_dataset(batches.loader.dataset, batches.device)
    of_ranks = gather(found)
    if found is None or any(other != found for other in of_ranks):
        return batches
    assert isinstance(batches, LoaderBatches)
    with raise_together():  # where warnings are errors
        _say_shared(found["num_data"])
    return share(batches)


def _say_shared(num_data: Any) -> None:
    rank, world = rank_and_world()
    if rank == 0:
        warnings.warn(
            f"data: got the same {num_data} data on each of {world} ranks, which share "
            "them out: each datum is with one rank. Without a warning: "
            "DataLoader(data, sampler=DistributedSampler(data)).",
            stacklevel=5,
        )


def first_of(batches: Batches | LoaderBatches) -> Batch:
    """A batch to look at, of another rank where this one has none; all ranks call it.

    Raises:
        ValueError: if no rank has one.
    """
    is_shared = isinstance(batches, LoaderBatches) and rank_and_world()[1] > 1
    own: Batch = ()
    with raise_together():
        own = next(batches.epoch(), ()) if is_shared else batches.first()
    if all(gather(len(own) > 0)):
        return own
    found = [batch for batch in gather(own) if batch]
    if not found:
        raise ValueError(
            "data: expected at least one batch, got loaders that yield nothing on every rank. "
            "Fix: drop_last=False."
        )
    return own or found[0]
