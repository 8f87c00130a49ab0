"""What `fit` works on, and an epoch in whose middle a checkpoint is written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import nn

from ..data.batches import Batch, Batches, LoaderBatches
from ..data.fingerprints import Identity, hashes_of_rows, identify
from ..data.sharding import OrderOfRank, has_own_part, sampler_of
from ..data.sharing import share_for_evaluation, share_for_training
from ..data.stored import StoredRows
from ..data.streams import StreamCheck
from ..data.tensors import has_rows
from ..process.distributed import gather, has_sharded, raise_together, rank_and_world
from ..process.joining import in_step
from ..process.ranks import compare_data, compare_structure
from .checkpoints import CheckpointFile, random_state, set_random_state
from .compiled.graphs import Terms
from .running import OnStep, RunningMeans, Values
from .soundness import Unsound

Epochs = Batches | LoaderBatches


@dataclass(frozen=True)
class Run:
    """What one call of `fit` works on.

    Attributes:
        module: all that is trained.
        train, val: the data, as batches.
        seed: of the noise and of the order of the data.
        file: where the state is written.
        first_epoch: epochs that were done before.
        check, val_check: of their batches.
        on_step: is told of each step, see `RunningMeans.hand_over`.
        is_ordered: whether the programs know each datum by its place, so that nothing is shuffled.
    """

    module: nn.Module
    train: Epochs
    val: Epochs | None
    seed: int
    file: CheckpointFile
    first_epoch: int
    check: StreamCheck
    val_check: StreamCheck | None
    is_ordered: bool = False
    on_step: OnStep | None = None

    @cached_property
    def identity(self) -> Identity:
        """What makes the batches of an epoch; a pass over the data, so it is asked for only where it is needed."""
        return identify(self.train, self.seed)

    def batches(self, epoch: int, part: PartialEpoch, device: torch.device) -> Iterator[Batch]:
        """The batches of an epoch that are still to come, for this rank, the last of them empty if others have more.

        Raises:
            ValueError: on all ranks, if some may have more than others where each pass needs all of them.
        """
        return self._in_step(part, self._own(epoch, part, device), device)

    def _own(self, epoch: int, part: PartialEpoch, device: torch.device) -> Iterator[Batch]:
        """The batches of this rank; the random state stays as it is.

        Raises:
            ValueError: for a loader that other ranks have begun and whose order is its own.
            Unsound: if those that are passed over are fewer, or hold another number of data.
        """
        train = self.train.in_order() if self.is_ordered else self.train
        if isinstance(train, Batches):
            order: dict[str, Any] = {"stages": part.stages, "num_seen": part.num_seen}
            batches = train.epoch(self.seed, epoch, training=True, **order)
            return batches if part.num_seen else part.pass_over(batches, device)
        if part.stages and not isinstance(sampler_of(train.loader), OrderOfRank):
            raise ValueError(
                f"fit: expected {len(part.stages[-1])} processes, which have begun this epoch of a "
                f"{type(train.loader).__name__} with an order of its own, got {rank_and_world()[1]}. "
                "Fix: as many processes, a checkpoint that was written between two epochs, or a "
                "map-style Dataset without a sampler, which is shared out anew."
            )
        batches = train.epoch(self.seed, epoch, training=True, stages=part.stages)
        return part.pass_over(iter(batches), device)

    def _in_step(
        self, part: PartialEpoch, batches: Iterator[Batch], device: torch.device
    ) -> Iterator[Batch]:
        """As many batches on every rank, the last of them empty on those that have fewer."""
        if rank_and_world()[1] == 1:
            return batches
        is_begun = bool(part.stages or part.means.num_added)
        nums = gather(None if is_begun else self.train.num_batches)
        if None not in nums and len(set(nums)) == 1:
            return batches
        if has_sharded(self.module):
            own = ", ".join(f"{num} on rank {rank}" for rank, num in enumerate(nums))
            raise ValueError(
                "data: expected as many batches on every rank for a module that fully_shard has "
                f"sharded, whose every pass needs all of them, got {own}. "
                "Fix: as many data for each rank, such as x[: len(x) // world * world]."
            )
        return in_step(batches, device)

    def in_order(self) -> Run:
        """The same run without shuffling."""
        self.train.in_order()
        return replace(self, is_ordered=True)

    def shared_out(self, **settings: Any) -> Run:
        """The same run with this rank's part of the data; refuses ranks that would wait for each other.

        Args:
            settings: what must be equal on every rank.

        Raises:
            ValueError: on all ranks, with what differs; for data that each rank would train on.
        """
        compare_structure(self.module, {**settings, "val": self.val is not None})
        train, val = share_for_training(self.train), self.val
        if val is not None and not has_sharded(self.module):
            val = share_for_evaluation(val)
        if rank_and_world()[1] > 1:
            _compare_data(train)
        return replace(self, train=train, val=val)


def _compare_data(train: Epochs) -> None:
    """Refuse ranks that hold other tensors, or that read the same batches of a loader with an order of its own."""
    batch: Batch = ()
    with raise_together():
        if isinstance(train, Batches):
            batch = tuple(_in_memory(part) for part in train.tensors)
        else:
            batch = next(train.epoch(), ())
    if isinstance(train, Batches) or not has_own_part(train.loader):
        compare_data(batch, whole=isinstance(train, Batches))


class PartialEpoch:
    """How far an epoch has come: enough to take the rest of it in another process as it would have gone on.

    The order of data that are shared out is a function of (seed, epoch): what is left of it goes to as many ranks as
    there are by then. The order of any other loader is drawn when its epoch begins. So its rest needs the random state
    of that time, to draw that order again, and the number of batches that are done, to pass over them. They must be the
    batches of the same data, cut in the same way: the identity says which they were.

    Attributes:
        random: random state when the epoch began.
        means: sums over the batches that are done; they count the steps, too.
        full_batch: size of a whole batch of the run so far, by which the ragged last one is known.
        num_seen: data in the batches that this rank has done, those of steps that were passed over among them.
        stages: data that each of other ranks had seen, see `order_of_epoch`.
        num_read: batches of a loader that this rank has done since the last stage.
        identity: what made the batches; empty where no file is written in the middle of an epoch.
    """

    def __init__(self, random: dict[str, Any], device: torch.device | None = None):
        self.random = random
        self.means = RunningMeans(device)
        self.full_batch = 0
        self.num_seen = 0
        self.num_read = 0
        self.stages: list[list[int]] = []
        self.identity: Identity = {}

    def add(self, terms: Terms | Values, num_data: int) -> None:
        """Count a step on so many data; on none, where other ranks have taken it."""
        self.means.add(terms, num_data)
        self.num_seen += num_data
        self.num_read += num_data > 0

    def state_dict(self) -> dict[str, Any]:
        """All of it."""
        return {
            "random": self.random,
            "running": self.means.state_dict(),
            "batch_size": self.full_batch,
            "num_seen": self.num_seen,
            "num_read": self.num_read,
            "stages": self.stages,
            "identity": self.identity,
        }

    @classmethod
    def from_state_dict(cls, state: dict[str, Any], device: torch.device) -> PartialEpoch:
        """The epoch that `state_dict` gave."""
        epoch = cls(state["random"], device)
        epoch.means.load_state_dict(state["running"], device)
        epoch.full_batch = state["batch_size"]
        epoch.num_seen = state.get("num_seen", 0)  # older files do not know it,
        epoch.identity = state.get("identity", {})  # nor these
        epoch.num_read = state.get("num_read", epoch.means.num_added)
        epoch.stages = state.get("stages", [])
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

    def pass_over(self, batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
        """The batches of a loader that are still to come; the random state stays as it is.

        Raises:
            Unsound: if those that are passed over are fewer, or hold another number of data.
        """
        if self.num_read == 0:
            return batches
        now = random_state(device)
        set_random_state(self.random, device)
        num_passed = 0
        for _ in range(self.num_read):
            num_passed += _num_data(next(batches, ()))
        set_random_state(now, device)
        if self.num_seen and num_passed != self.num_seen:
            raise Unsound(
                f"fit: expected {self.num_seen} data in the {self.num_read} batches before "
                f"the checkpoint, got {num_passed}. "
                "Fix: the data and the batch size of the run that wrote it."
            )
        return batches


def _in_memory(part: Any) -> Any:
    """An argument that tells the same from other data: rows that are read as they are needed by their hashes."""
    return torch.cat([*hashes_of_rows(part)]) if isinstance(part, StoredRows) else part


def _num_data(batch: Batch) -> int:
    return len(batch[0]) if batch and has_rows(batch[0]) else 0
