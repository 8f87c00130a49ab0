"""What `fit` works on, and an epoch in whose middle a checkpoint is written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..data.batches import Batch, Batches, LoaderBatches
from ..data.fingerprints import Identity, hashes_of_rows, identify
from ..data.order import in_order
from ..data.sharding import has_own_part, in_step
from ..data.stored import StoredRows
from ..data.streams import StreamCheck
from ..data.tensors import has_rows
from ..process.distributed import raise_together, rank_and_world
from ..process.ranks import compare_data, compare_structure
from .checkpoints import CheckpointFile, random_state, set_random_state
from .running import RunningMeans
from .soundness import Unsound

Epochs = Batches | LoaderBatches


@dataclass(frozen=True)
class Run:
    """What one call of `fit` works on.

    Attributes:
        train, val: the data, as batches.
        seed: of the noise and of the order of the data.
        file: where the state is written.
        first_epoch: epochs that were done before.
        check, val_check: of their batches.
        is_ordered: whether the programs know each datum by its place, so that nothing is shuffled.
    """

    train: Epochs
    val: Epochs | None
    seed: int
    file: CheckpointFile
    first_epoch: int
    check: StreamCheck
    val_check: StreamCheck | None
    is_ordered: bool = False

    @cached_property
    def identity(self) -> Identity:
        """What makes the batches of an epoch; a pass over the data, so it is asked for only where it is needed."""
        return identify(self.train, self.seed)

    @property
    def path(self) -> str | Path | None:
        """The file, on the rank that writes it."""
        rank, _ = rank_and_world()
        return self.file.path if rank == 0 else None

    def batches(self, epoch: int, device: torch.device) -> Iterator[Batch]:
        """The batches of an epoch, as many on every rank."""
        train = in_order(self.train) if self.is_ordered else self.train
        batches = iter(train.epoch(self.seed, epoch, even=True))
        return in_step(batches, self.train.length, device)

    def in_order(self) -> Run:
        """The same run without shuffling."""
        in_order(self.train)
        return replace(self, is_ordered=True)

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
            batch = self.train.first()
            if isinstance(self.train, Batches):
                batch = tuple(_in_memory(part) for part in self.train.tensors)
        if isinstance(self.train, Batches) or not has_own_part(self.train.loader):
            compare_data(batch, whole=isinstance(self.train, Batches))


class PartialEpoch:
    """How far an epoch has come: enough to take the rest of it in another process as it would have gone on.

    The order of a DataLoader is drawn when its epoch begins. So the rest of an epoch needs the random state of its
    beginning, to draw that order again, and the number of batches that are done, to pass over them. They must be the
    batches of the same data, cut in the same way: the identity says which they were.

    Attributes:
        random: random state when the epoch began.
        means: sums over the batches that are done; they count them, too.
        full_batch: size of a whole batch of the run so far, by which the ragged last one is known.
        num_seen: data in the batches that are done, those of steps that were passed over among them.
        identity: what made the batches; empty where no file is written in the middle of an epoch.
    """

    def __init__(self, random: dict[str, Any]):
        self.random = random
        self.means = RunningMeans()
        self.full_batch = 0
        self.num_seen = 0
        self.identity: Identity = {}

    def state_dict(self) -> dict[str, Any]:
        """All of it."""
        return {
            "random": self.random,
            "running": self.means.state_dict(),
            "batch_size": self.full_batch,
            "num_seen": self.num_seen,
            "identity": self.identity,
        }

    @classmethod
    def from_state_dict(cls, state: dict[str, Any], device: torch.device) -> PartialEpoch:
        """The epoch that `state_dict` gave."""
        epoch = cls(state["random"])
        epoch.means.load_state_dict(state["running"], device)
        epoch.full_batch = state["batch_size"]
        epoch.num_seen = state.get("num_seen", 0)  # older files do not know it,
        epoch.identity = state.get("identity", {})  # nor this
        return epoch

    def check_identity(self, now: Identity) -> None:
        """Refuse to go on with other batches than those that the epoch began with.

        Raises:
            ValueError: with what differs.
        """
        if not self.identity or self.identity == now:
            return
        names = sorted(set(self.identity) | set(now))
        other = [name for name in names if self.identity.get(name) != now.get(name)]
        expected = ", ".join(f"{name}={self.identity.get(name)}" for name in other)
        got = ", ".join(f"{name}={now.get(name)}" for name in other)
        raise ValueError(
            f"fit: expected the batches of the epoch that the checkpoint stopped in after "
            f"{self.means.num_added} steps, {expected}, got {got}. "
            "Fix: the data, batch_size= and seed= of the run that wrote it, or a checkpoint that "
            "was written between two epochs."
        )

    def remaining(self, batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
        """The batches of an epoch that are still to come; the random state stays as it is.

        Raises:
            Unsound: if those that are passed over are fewer, or hold another number of data.
        """
        if self.means.num_added == 0:
            return batches
        now = random_state(device)
        set_random_state(self.random, device)
        num_passed = 0
        for _ in range(self.means.num_added):
            num_passed += _num_data(next(batches, ()))
        set_random_state(now, device)
        if self.num_seen and num_passed != self.num_seen:
            raise Unsound(
                f"fit: expected {self.num_seen} data in the {self.means.num_added} batches before "
                f"the checkpoint, got {num_passed}. "
                "Fix: the data and the batch size of the run that wrote it."
            )
        return batches


def _in_memory(part: Any) -> Any:
    """An argument that tells the same from other data: rows that are read as they are needed by their hashes."""
    return torch.cat([*hashes_of_rows(part)]) if isinstance(part, StoredRows) else part


def _num_data(batch: Batch) -> int:
    return len(batch[0]) if batch and has_rows(batch[0]) else 0
