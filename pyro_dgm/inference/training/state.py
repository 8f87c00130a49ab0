"""All that a run carries from step to step: what a checkpoint holds, and what the next `fit` goes on from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from ..process.distributed import copy_from_rank_zero, rank_and_world, whole_tensors
from ..process.states import derive_seed, device_of, fork_rng
from .averaging import Ema, have_equal_values, other_data
from .checkpoints import check_keys, load_state, random_state, save_state, set_random_state
from .compiled.graphs import copy_tensors
from .epochs import PartialEpoch
from .history import History
from .resuming.of_ranks import gather_others, state_of_rank
from .resuming.sharded import shard_state
from .skipping import Skips
from .soundness import Stateful, Unsound, Watch, check_agreement, copy_tree

Weights = dict[str, Tensor]
OF_A_RUN = ("module", "ema", "trainer", "random", "best", "history", "counts")


class TrainingState:
    """Weights, average, best epoch, random state, partial epoch, optimizers, history and counts of a run.

    Between two calls of `fit` a run has two sets of weights. The module holds the *deployed* ones, which are asked
    about: those of the best epoch, or the average. Training goes on from the *last* ones, which wait in `last`. When
    somebody has changed the module in between (by `load_weights`, or in place), these are what training goes on from.
    Inside `fit` the module holds the last weights itself, and `last` is empty.

    The same goes for the random state. A run draws from a fork of it, seeded once in its life; between two calls of
    `fit` it waits in `random`, and the user's own random numbers are left alone. So 2 + 2 epochs are 4, with a
    checkpoint in between or without.

    The `watch` looks at weights, average and moments before any of them is kept: `remember` what is good, and
    `go_back` to it.

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
        warm_up: the last epoch of a warm-up, from which patience is counted.
        others: what a file holds of every rank but 0, from when they last met.
        good: the state to go back to; empty between two calls of `fit`.
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
        self.warm_up = 0
        self.others: list[dict[str, Any]] = []
        self.good: dict[str, Any] = {}
        self.watch = Watch(module)

    @property
    def device(self) -> torch.device:
        """Where the weights are; the CPU before there are any."""
        return device_of(self.module)

    # -- training -----------------------------------------------------------------------------------
    @contextmanager
    def training(self, seed: int) -> Iterator[None]:
        """The module ready to be trained: last weights, training mode, gradients, its own random state.

        Validation of distributions is off. All of it is given back at the end, whatever happens.
        """
        was_training = self.module.training
        with (
            fork_rng(torch.empty(0, device=self.device)),  # other threads wait
            pyro.validation_enabled(False),
            torch.inference_mode(mode=False),
            torch.enable_grad(),
        ):
            self._restore_last()
            self._restore_random(seed)
            self.module.train()
            try:
                self.watch.begin(self.ema, self.optimizers)
                yield
            except BaseException as error:
                self._recover(always=isinstance(error, Unsound))
                raise
            finally:
                self.good = {}
                self.random = random_state(self.device)
                self.module.train(was_training)

    def begin_epoch(self) -> PartialEpoch:
        """A fresh epoch, or the one in whose middle the run was resumed."""
        epoch = self.partial or PartialEpoch(random_state(self.device), self.device)
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
            steps = [self.num_steps] * (self.num_steps > 0)
            torch.manual_seed(derive_seed(seed, self.num_epochs, rank, *steps))
        self.random = {}

    # -- what is good -----------------------------------------------------------------------------------
    def refuse_non_finite(self) -> None:
        """One host read: raise if what a run holds is not finite.

        Raises:
            Unsound: with the names of the parameters, or of what else it is.
        """
        self.watch.refuse_non_finite(self.ema, self.optimizers, self.num_steps)

    def remember(self) -> None:
        """Take the state as it is for a good one; weights of the best epoch are shared, the rest is copied."""
        state = self.state_dict()
        best = state.pop("best")
        self.good = {**copy_tree(state), "best": best}

    def go_back(self) -> None:
        """Stand where the last good state was remembered; the module is left as `fit` leaves it."""
        self._take(self.good)
        set_random_state(self.good["random"], self.device)
        self.random = {}
        self.deploy()

    def _recover(self, *, always: bool) -> None:
        """After an error: go back if the weights are not finite, or the error says so; else stay where it came."""
        if self.good and (always or self.watch.non_finite(self.ema, self.optimizers)):
            self.go_back()

    # -- best, average and last weights ---------------------------------------------------------------
    def averaged(self) -> AbstractContextManager[None]:
        """The averaged weights in the module, where an average is kept."""
        return nullcontext() if self.ema is None else self.ema.applied()

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
        return have_equal_values(self.module.state_dict(), self.deployed)

    def last_applied(self) -> AbstractContextManager[None]:
        """The last weights in place of the deployed ones, where the module holds these."""
        return other_data(self.module, self.last) if self.is_deployed() else nullcontext()

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
            "warm_up": self.warm_up,
            "ranks": self.others,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what `state_dict` gave, all of it or, where it does not fit, nothing.

        Raises:
            ValueError: for the state of a run with other settings, of another module, or that is not finite.
        """
        before = copy_tree(self._everything())
        try:
            check_agreement(state, self.module, self.optimizers, averaged=self.ema is not None)
            self._take(copy_tree(state))
        except Exception as error:  # whatever a module or an optimizer raises
            self._put_back(before)
            if str(error).startswith("resume:"):
                raise
            raise ValueError(
                f"resume: expected a checkpoint of this trainer, got one that does not fit: {error}. "
                "Fix: the module, optimizer= and schedule= of the run that wrote it."
            ) from error

    def _take(self, state: dict[str, Any]) -> None:
        for name, part in self.optimizers.items():
            part.load_state_dict(state["trainer"][name])
        self.module.load_state_dict(state["module"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.random = state["random"]
        self.last = {}
        self.best = state["best"]
        self.history.rows[:] = state["history"]
        self.num_epochs, self.num_steps, self.skips.num_skipped = state["counts"]
        self.warm_up = state.get("warm_up", 0)  # older files know nothing of it,
        self.others = state.get("ranks", [])
        self.partial = None
        partial = state.get("partial")  # and those still older were written between epochs alone
        if partial:
            self.partial = PartialEpoch.from_state_dict(partial, self.device)

    def _everything(self) -> dict[str, Any]:
        """The state, and what it leaves out between two calls of `fit`."""
        own = {"last": self.last, "deployed": self.deployed, "random": self.random}
        return {"own": own, "here": self.module.state_dict(), "state": self.state_dict()}

    def _put_back(self, before: dict[str, Any]) -> None:
        self._take(before["state"])
        self.module.load_state_dict(before["here"])
        vars(self).update(before["own"])

    def note_ranks(self, partial: PartialEpoch | None = None) -> None:
        """Take what a file holds of each rank, in the middle of an epoch if one is given; all ranks call it."""
        self.others = gather_others(self.device, partial)
        if partial is not None:
            copy_from_rank_zero(self.module.buffers())  # a file holds those of rank 0

    def save(self, path: str | Path, partial: PartialEpoch | None = None, keep: int = 1) -> None:
        """Write it to one file, in the middle of an epoch if one is given; of several ranks rank 0 writes.

        Raises:
            Unsound: for what is not finite; nothing is then written.
        """
        self.refuse_non_finite()
        state = self.state_dict()
        if partial is not None:
            state["partial"] = partial.state_dict()
        whole = whole_tensors(state)
        if rank_and_world()[0] == 0:
            save_state(whole, path, keep)

    def load(self, path: str | Path, prepare: Callable[[Weights], None] | None = None) -> None:
        """Read what `save` wrote; `prepare` sees the weights before they are taken."""
        check_keys(state := load_state(path), OF_A_RUN, path)
        state = state_of_rank(state, self.device)
        if prepare is not None:
            prepare(state["module"])
        averages = [] if self.ema is None else self.ema.average
        self.load_state_dict(shard_state(state, self.module, averages, self.optimizers))
