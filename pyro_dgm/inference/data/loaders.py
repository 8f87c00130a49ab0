"""The batches of a user's own loader, as tuples of tensors on one device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any

import torch
from torch.utils.data import DistributedSampler

from ..process.ambient import read_on_cpu
from ..process.distributed import rank_and_world
from .rests import batches_before_one_datum
from .sharding import BatchesOfRank, OrderOfRank, Stages, num_batches_of, sampler_of
from .tensors import Batch, concat_rows, is_array, to_tensor


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

    def epoch(
        self, seed: int = 0, epoch: int = 0, *, training: bool = False, stages: Stages = ()
    ) -> Iterator[Batch]:
        """The minibatches of one epoch, in the loader's own order.

        For training a last batch of a single datum goes into the one before, where the loader says its sizes.
        """
        sampler = sampler_of(self.loader)
        if isinstance(sampler, DistributedSampler):
            sampler.set_epoch(epoch)
        if isinstance(sampler, OrderOfRank):
            sampler.begin(seed, epoch, stages)
        joined = batches_before_one_datum(self.loader) if training else None
        batches = iter(read_on_cpu(self.loader))
        for position, batch in enumerate(batches):
            moved = self._moved(batch)
            if position + 1 == joined:  # the last but one takes in the last
                moved = concat_rows([moved, *map(self._moved, batches)])
            yield moved

    def _moved(self, batch: Any) -> Batch:
        return tuple(self._to_device(value) for value in self._ordered(batch))

    def numbered(self) -> Iterator[tuple[int, Batch]]:
        """This rank's batches for evaluation, each with its number in the whole set, where it is shared out."""
        rank, world = rank_and_world()
        samplers = (getattr(self.loader, name, None) for name in ("batch_sampler", "sampler"))
        if not any(isinstance(sampler, BatchesOfRank) for sampler in samplers):
            rank, world = 0, 1
        return zip(count(rank, world), self.epoch(), strict=False)

    @property
    def num_batches(self) -> int | None:
        """How many batches an epoch has; `None` where only reading them tells."""
        return num_batches_of(self.loader)

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
