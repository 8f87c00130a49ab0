"""All that a run carries from step to step: what a checkpoint holds, and what the next `fit` goes on from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pyro
import torch
from torch import Tensor, nn

from ..process.distributed import copy_from_rank_zero, rank_and_world
from ..process.states import derive_seed, fork_rng
from .averaging import Ema
from .checkpoints import check_keys, load_state, random_state, save_state, set_random_state
from .epochs import PartialEpoch
from .graphs import copy_tensors
from .history import History
from .skipping import Skips

Weights = dict[str, Tensor]
OF_A_RUN = ("module", "ema", "trainer", "random", "best", "history", "counts")


class Stateful(Protocol):
    """What an optimizer, a schedule, or anything else that a checkpoint holds can do."""

    def state_dict(self) -> dict[str, Any]:
        """Its state: tensors and plain containers."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the state that `state_dict` gave."""


class TrainingState:
    """Weights, average, best epoch, random state, partial epoch, optimizers, history and counts of a run.

    Between two calls of `fit` a run has two sets of weights. The module holds the *deployed* ones, which are asked
    about: those of the best epoch, or the average. Training goes on from the *last* ones, which wait in `last`. When
    somebody has changed the module in between (by `load_weights`, or in place), these are what training goes on from.
    Inside `fit` the module holds the last weights itself, and `last` is empty.

    The same goes for the random state. A run draws from a fork of it, seeded once in its life; between two calls of
    `fit` it waits in `random`, and the user's own random numbers are left alone. So 2 + 2 epochs are 4, with a
    checkpoint in between or without.

    Attributes:
        module: all that is trained.
        ema: the moving average of its weights, or `None`.
        optimizers: by name, all that moves the weights and has a state: optimizers, schedules, rules.
        history: one row per epoch.
        skips: steps that may be passed over, and those that were.
        num_epochs, num_steps: done so far.
        best: `value`, `epoch`, `metric` and `weights` of the best epoch; empty before there is one.
        last: weights to go on from; empty where the module holds them.
        deployed: weights that the last `fit` left in the module.
        random: state of the generators to go on from; empty where they hold it, or before the first `fit`.
        partial: the epoch in whose middle the checkpoint was written that the run was resumed from.
    """

    def __init__(self, module: nn.Module, ema: Ema | None = None):
        self.module = module
        self.ema = ema
        self.optimizers: Mapping[str, Stateful] = {}
        self.history = History()
        self.skips = Skips()
        self.num_epochs = 0
        self.num_steps = 0
        self.best: dict[str, Any] = {}
        self.last: Weights = {}
        self.deployed: Weights = {}
        self.random: dict[str, Any] = {}
        self.partial: PartialEpoch | None = None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.module.parameters()).device

    # -- training -----------------------------------------------------------------------------------
    @contextmanager
    def training(self, seed: int) -> Iterator[None]:
        """The module ready to be trained: last weights, training mode, gradients, its own random state.

        Validation of distributions is off. All of it is given back at the end, whatever happens.
        """
        was_training = self.module.training
        with (
            fork_rng(torch.empty(0, device=self.device)),
            pyro.validation_enabled(False),
            torch.inference_mode(mode=False),
            torch.enable_grad(),
        ):
            self._restore_last()
            self._restore_random(seed)
            self.module.train()
            try:
                yield
            finally:
                self.random = random_state(self.device)
                self.module.train(was_training)

    def begin_epoch(self) -> PartialEpoch:
        """A fresh epoch, or the one in whose middle the run was resumed."""
        epoch = self.partial or PartialEpoch(random_state(self.device))
        self.partial = None
        return epoch

    def _restore_last(self) -> None:
        """Put the last weights back, unless somebody has changed the module; rank 0 decides for all ranks."""
        if self.is_deployed():
            self.module.load_state_dict(self.last)
        self.last = {}
        copy_from_rank_zero(self.module.state_dict().values())
        if self.ema is not None:
            copy_from_rank_zero(self.ema.state_dict())

    def _restore_random(self, seed: int) -> None:
        if self.random:
            set_random_state(self.random, self.device)
        else:
            rank, _ = rank_and_world()
            torch.manual_seed(derive_seed(seed, self.num_epochs, rank))
        self.random = {}

    # -- best, average and last weights ---------------------------------------------------------------
    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The averaged weights in the module, where an average is kept."""
        if self.ema is None:
            yield
            return
        with self.ema.applied():
            yield

    def compare_by(self, metric: str | None) -> None:
        """Forget the best epoch of another metric: it is no best of this one."""
        if self.best and self.best["metric"] != metric:
            self.best = {}

    def keep_if_best(self, metric: str, value: float) -> None:
        """Keep the (averaged) weights of this epoch if no epoch before had a lower value; NaN is never lower."""
        if not value < self.best.get("value", float("inf")):
            return
        with self.averaged():
            weights = self._copy_weights()
        self.best = {
            "value": value,
            "epoch": self.num_epochs,
            "metric": metric,
            "weights": weights,
        }

    def deploy(self) -> None:
        """Leave the best (or averaged) weights in the module, and keep the last ones to go on from."""
        self.last = self._copy_weights()
        if self.best:
            self.deployed = self.best["weights"]
        else:
            with self.averaged():
                self.deployed = self._copy_weights()
        self.module.load_state_dict(self.deployed)

    def is_deployed(self) -> bool:
        """Whether the module holds what the last `fit` left in it, and nothing has changed the weights since."""
        if not self.last:
            return False
        now = self.module.state_dict()
        return all(torch.equal(now[name].cpu(), t.cpu()) for name, t in self.deployed.items())

    @contextmanager
    def last_applied(self) -> Iterator[None]:
        """The last weights in place of the deployed ones, where the module holds these.

        Tensors get other data and are not written into: a graph may stand on their values.
        """
        if not self.is_deployed():
            yield
            return
        tensors = self.module.state_dict(keep_vars=True)
        deployed = {name: tensor.data for name, tensor in tensors.items()}
        try:
            for name, tensor in tensors.items():
                tensor.data = self.last[name].to(tensor.device)
            yield
        finally:
            for name, tensor in tensors.items():
                tensor.data = deployed[name]

    def _copy_weights(self) -> Weights:
        return copy_tensors(self.module.state_dict())

    # -- checkpoints ----------------------------------------------------------------------------------
    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on, bit for bit, as tensors and plain containers."""
        return {
            "module": self.last or self.module.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "trainer": {name: part.state_dict() for name, part in self.optimizers.items()},
            "random": self.random or random_state(self.device),
            "partial": {} if self.partial is None else self.partial.state_dict(),
            "best": self.best,
            "history": self.history.rows,
            "counts": [self.num_epochs, self.num_steps, self.skips.num_skipped],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what `state_dict` gave: the next `fit` runs as if the first had never stopped.

        Raises:
            ValueError: where one run keeps an average, a schedule or rules that the other does not.
        """
        _check_same_average(kept=self.ema is not None, found=state["ema"] is not None)
        self._load_optimizers(state["trainer"])
        self.module.load_state_dict(state["module"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        rank, _ = rank_and_world()
        self.random = state["random"] if rank == 0 else {}  # the file holds the noise of rank 0
        self.last = {}
        self.best = state["best"]
        self.history = History(state["history"])
        self.num_epochs, self.num_steps, self.skips.num_skipped = state["counts"]
        self.partial = None
        partial = state.get("partial")  # older files were written between epochs alone
        if partial:
            self.partial = PartialEpoch.from_state_dict(partial, self.device)

    def _load_optimizers(self, state: dict[str, Any]) -> None:
        saved = {name: part for name, part in state.items() if part is not None}
        if set(saved) != set(self.optimizers):
            raise ValueError(
                f"resume: expected a checkpoint with the state of {sorted(self.optimizers)}, got one "
                f"with {sorted(saved)}. "
                "Fix: the same optimizer= and schedule= as in the run that wrote it."
            )
        for name, part in self.optimizers.items():
            part.load_state_dict(saved[name])

    def save(self, path: str | Path, partial: PartialEpoch | None = None, keep: int = 1) -> None:
        """Write it to one file, in the middle of an epoch if one is given."""
        state = self.state_dict()
        if partial is not None:
            state["partial"] = partial.state_dict()
        save_state(state, path, keep)

    def load(self, path: str | Path) -> None:
        """Read what `save` wrote."""
        state = load_state(path)
        check_keys(state, OF_A_RUN, path)
        self.load_state_dict(state)


def _check_same_average(*, kept: bool, found: bool) -> None:
    if kept == found:
        return
    expected = "an EMA" if kept else "no EMA"
    got = "an EMA" if found else "no EMA"
    fix = "leave ema= out" if kept else "ema=0.999, or the decay it was"
    raise ValueError(
        f"resume: expected a checkpoint with {expected}, got one with {got}. "
        f"Fix: the same ema= as in the run that wrote it ({fix})."
    )
