"""The blocks of an estimate on several ranks: each is scored by one of them, with noise of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import nn
from torch.utils.data import DataLoader, SequentialSampler, TensorDataset

from ..data.batches import Batches
from ..data.fingerprints import hash_tensors, identify_dataset, name_of, values_of
from ..data.sharding import has_plain_sampler
from ..data.stored import as_stored, is_stored
from ..data.tensors import Batch, is_array, to_tensor
from ..process.distributed import gather, has_sharded, raise_together, rank_and_world
from ..process.meeting import all_ask
from ..process.states import named_tensors
from .sessions import Session

Found = TypeVar("Found")


class SharedBlocks:
    """The blocks of a session that this rank scores: every W-th where all W ranks ask the same, else all of them.

    They are its `seeded_blocks`: what is drawn for one does not depend on who draws for the others.

    Args:
        pair: the open session.
        name: of the estimate.
        settings: what it depends on beside the session's own.
    """

    def __init__(self, pair: Session, name: str, *settings: int | None):
        self.pair = pair
        self.name = name
        self.rank, self.world = 0, 1
        programs = [p for p in (pair._model, pair._guide) if isinstance(p, nn.Module)]
        if rank_and_world()[1] > 1 and not any(has_sharded(program) for program in programs):
            question = _question(pair)
            if question is not None and all_ask(f"{name} {settings} {question}", name):
                self.rank, self.world = rank_and_world()

    def __iter__(self) -> Iterator[Batch]:
        for number, block in enumerate(self.pair.seeded_blocks(self.name)):
            if number % self.world == self.rank:
                yield block

    def part(self, num: int) -> slice:
        """Which of `num` items, such as draws, this rank takes where they are no blocks: those of all ranks in order.

        Where there are fewer items than ranks each takes all of them.
        """
        if num < self.world:
            self.rank, self.world = 0, 1
        return slice(self.rank * num // self.world, (self.rank + 1) * num // self.world)

    def together(self) -> AbstractContextManager[None]:
        """Around the work on the blocks: what one rank raises in it, all raise."""
        return raise_together() if self.world > 1 else nullcontext()

    def gather(self, own: list[Found]) -> list[Found]:
        """What was found in each block, in the order of the data, on all ranks."""
        if self.world == 1:
            return own
        of_ranks = gather(own)
        num = sum(len(found) for found in of_ranks)
        return [of_ranks[i % self.world][i // self.world] for i in range(num)]


def _question(pair: Session) -> str | None:
    """All that an estimate depends on; `None` of a stream, of which that is not to be known before it is read."""
    data = _data_of(pair._source)
    if data is None:
        return None
    weights: list[Any] = []
    for program in (pair._model, pair._guide):
        if isinstance(program, nn.Module):
            weights += [type(program).__name__, *(tensor for _, tensor in named_tensors(program))]
    return hash_tensors((pair.num, pair.chunk, pair.seed, data, *weights))


def _data_of(source: Batch) -> str | None:
    first = source[0]
    if isinstance(first, Batches):
        return hash_tensors((name_of(first.transform), *first.tensors))
    if isinstance(first, TensorDataset):
        return hash_tensors(first.tensors)
    if isinstance(first, list):
        return hash_tensors(tuple(values_of(first)))
    if isinstance(first, DataLoader):
        if not has_plain_sampler(first) or not isinstance(first.sampler, SequentialSampler):
            return None
        return f"{first.batch_size} {identify_dataset(first.dataset, torch.device('cpu'))}"
    if is_stored(first) or is_array(first):
        return hash_tensors(tuple(map(_rows_of, source)))
    return None


def _rows_of(value: Any) -> Any:
    if is_stored(value):
        return as_stored(value)
    return to_tensor(value) if is_array(value) else value
