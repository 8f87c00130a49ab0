"""The order of the data, for programs that know each datum by its place, and whether one batch holds them all."""

from __future__ import annotations

from torch.utils.data import RandomSampler

from ..process.distributed import rank_and_world
from .batches import Batches, LoaderBatches
from .rests import batch_sizes
from .sharding import sampler_of


def in_order(batches: Batches | LoaderBatches) -> Batches | LoaderBatches:
    """The same batches without shuffling.

    Raises:
        ValueError: for a loader that shuffles.
    """
    if isinstance(batches, Batches):
        return batches.in_order()
    sampler = sampler_of(batches.loader)
    if isinstance(sampler, RandomSampler) or getattr(sampler, "shuffle", False):
        raise ValueError(
            "data: expected a loader in the order of the data, for the programs know each datum by its place, got one "
            "that shuffles. Fix: DataLoader(data, batch_size=len(data), shuffle=False)."
        )
    return batches


def is_one_batch(batches: Batches | LoaderBatches) -> bool:
    """Whether all data are known to be in one batch, on one process."""
    if isinstance(batches, LoaderBatches):
        return batches.num_batches == 1
    is_alone = not batches.split or rank_and_world()[1] == 1
    return is_alone and len(batch_sizes(len(batches), batches.batch_size, join=True)) == 1
