"""What `fit` works on, and an epoch in whose middle a checkpoint is written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..data.batches import Batch, Batches, LoaderBatches
from ..data.sharding import has_own_part, in_step
from ..process.distributed import raise_together, rank_and_world
from ..process.ranks import compare_data, compare_structure
from .checkpoints import CheckpointFile, random_state, set_random_state
from .running import RunningMeans

Epochs = Batches | LoaderBatches


@dataclass(frozen=True)
class Run:
    """What one call of `fit` works on.

    Attributes:
        train, val: the data, as batches.
        seed: of the noise and of the order of the data.
        file: where the state is written.
        first_epoch: epochs that were done before.
    """

    train: Epochs
    val: Epochs | None
    seed: int
    file: CheckpointFile
    first_epoch: int

    @property
    def path(self) -> str | Path | None:
        """The file, on the rank that writes it."""
        rank, _ = rank_and_world()
        return self.file.path if rank == 0 else None

    def batches(self, epoch: int, device: torch.device) -> Iterator[Batch]:
        """The batches of an epoch, as many on every rank."""
        batches = iter(self.train.epoch(self.seed, epoch, even=True))
        return in_step(batches, self.train.length, device)

    def compare_ranks(self, module: nn.Module, **settings: Any) -> None:
        """Refuse ranks that would wait for each other, or that train on data which are not theirs.

        Args:
            module: all that is trained.
            settings: what must be equal on every rank.

        Raises:
            ValueError: on all ranks, with what differs.
        """
        _, world = rank_and_world()
        if world == 1:
            return
        compare_structure(module, {**settings, "val": self.val is not None})
        with raise_together():
            batch = self.train.tensors if isinstance(self.train, Batches) else self.train.first()
        if isinstance(self.train, Batches) or not has_own_part(self.train.loader):
            compare_data(batch, whole=isinstance(self.train, Batches))


class PartialEpoch:
    """How far an epoch has come: enough to take the rest of it in another process as it would have gone on.

    The order of a DataLoader is drawn when its epoch begins. So the rest of an epoch needs the random state of its
    beginning, to draw that order again, and the number of batches that are done, to pass over them.

    Attributes:
        random: random state when the epoch began.
        means: sums over the batches that are done; they count them, too.
        largest_batch: size of the largest batch of the run so far, by which the ragged last one is known.
    """

    def __init__(self, random: dict[str, Any]):
        self.random = random
        self.means = RunningMeans()
        self.largest_batch = 0

    def state_dict(self) -> dict[str, Any]:
        """All of it."""
        return {
            "random": self.random,
            "running": self.means.state_dict(),
            "batch_size": self.largest_batch,
        }

    @classmethod
    def from_state_dict(cls, state: dict[str, Any], device: torch.device) -> PartialEpoch:
        """The epoch that `state_dict` gave."""
        epoch = cls(state["random"])
        epoch.means.load_state_dict(state["running"], device)
        epoch.largest_batch = state["batch_size"]
        return epoch

    def remaining(self, batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
        """The batches of an epoch that are still to come; the random state stays as it is."""
        if self.means.num_added == 0:
            return batches
        now = random_state(device)
        set_random_state(self.random, device)
        for _ in range(self.means.num_added):
            next(batches)
        set_random_state(now, device)
        return batches
