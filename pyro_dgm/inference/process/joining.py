"""An epoch of which some ranks have more batches than others: who has none left goes along."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import distributed

from .distributed import GROUP, all_ranks_needed, all_reduce_sum


def in_step(batches: Iterator[tuple[Any, ...]], device: torch.device) -> Iterator[tuple[Any, ...]]:
    """The batches of this rank, then empty ones until no rank has any left.

    The messages are those of `torch.distributed.algorithms.join.Join`: a rank with a batch says so before its step, and
    does not wait for an answer; one without asks how many there are. `Join` itself takes the steps of who has none in a
    callback, where here they are asked for as any other. A step without a batch takes part in every exchange of one
    that has one: weights, moments, averages and schedules move alike on all ranks.

    Args:
        batches: of this rank.
        device: where the ranks exchange tensors.
    """
    for batch in batches:
        with all_ranks_needed():
            distributed.all_reduce(torch.ones(1, device=device), group=GROUP.get(), async_op=True)
        yield batch
    while all_reduce_sum(torch.zeros(1, device=device)).item() > 0:
        yield ()
