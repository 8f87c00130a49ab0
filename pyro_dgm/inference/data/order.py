"""The order of the data, for programs that know each datum by its place, and whether one batch holds them all."""

from __future__ import annotations

import torch
from torch.utils.data import RandomSampler

from .batches import Batches, LoaderBatches
from .rests import batch_sizes
from .sharding import part_of_rank, sampler_of


def in_order(batches: Batches | LoaderBatches) -> Batches | LoaderBatches:
    """The same batches without shuffling.

    Raises:
        ValueError: for a loader that shuffles.
    """
    if isinstance(batches, Batches):
        return batches.in_order()
    if isinstance(sampler_of(batches.loader), RandomSampler):
        raise ValueError(
            "data: expected a loader in the order of the data, for the programs know each datum by its place, got one "
            "that shuffles. Fix: DataLoader(data, batch_size=len(data), shuffle=False)."
        )
    return batches


def is_one_batch(batches: Batches | LoaderBatches) -> bool:
    """Whether all data are known to be in one batch, on one process."""
    if isinstance(batches, LoaderBatches):
        return batches.length == "1 batches"
    total = own = len(batches)
    if batches.split:
        own = len(part_of_rank(torch.arange(total, device="cpu"), pad=True))
    return own == total and len(batch_sizes(own, batches.batch_size, join=True)) == 1
