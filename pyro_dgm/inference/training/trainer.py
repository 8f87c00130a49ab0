"""The loop: epochs, validation, best weights, checkpoints. A subclass owns one `step`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import pyro
import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..run.batches import Batches, LoaderBatches, as_batches
from ..run.distributed import all_reduce_sum, from_rank_zero, rank_and_world
from ..run.sessions import require_positive
from ..run.states import derive_seed, eval_mode, evaluation_mode, fork_rng
from .averaging import Ema
from .checkpoints import (
    check_average,
    checked_file,
    load_state,
    random_state,
    save_state,
    set_random_state,
)
from .history import History, Row
from .running import RunningMeans, non_finite

Terms = dict[str, Tensor]
Epochs = Batches | LoaderBatches
LOG_EVERY = 50


class Trainer(ABC):
    """Owns the loop over a module; abstract. A subclass gives `step`, `terms`, `model` and the state of its optimizers.

    Training runs on a fork of the random state, seeded once and then carried on from `fit` to `fit` and through
    checkpoints: 2 + 2 epochs are 4, and the user's own random numbers are left alone.

    Args:
        module: all that is trained.
        ema: decay of an exponential moving average of the weights.
        averaged: the part of the module that is averaged; default: all of it.
    """

    def __init__(
        self, module: nn.Module, ema: float | None = None, averaged: nn.Module | None = None
    ):
        self.module = module.to(
            next(module.parameters()).device
        )  # schedules go where the weights are
        self.ema = None if ema is None else Ema(averaged or module, ema)
        self.history = History()
        self.num_epochs, self.num_steps, self.num_skipped = 0, 0, 0
        self.best: dict[str, Any] = {}
        self._random: dict[str, Any] = {}
        self._partial: dict[str, Any] = {}  # of an epoch that a checkpoint was written in
        self._checkpoint: tuple[str | Path, int] | None = None
        self._last: dict[str, Tensor] = {}
        self._deployed: dict[str, Tensor] = {}
        self._batch_size, self._max_skips, self._first_epoch = 0, 0, 0

    @property
    def _device(self) -> torch.device:
        return next(self.module.parameters()).device

    # -- what a subclass gives --------------------------------------------------------------------------------------
    @property
    @abstractmethod
    def model(self) -> nn.Module:
        """The program whose arguments a batch holds."""

    @abstractmethod
    def step(self, *batch: Any) -> Terms:
        """One optimization step; returns named 0-dim costs in nats per datum."""

    @abstractmethod
    def terms(self, *batch: Any) -> Terms:
        """The same costs without a step, for validation."""

    @abstractmethod
    def preflight(self, *batch: Any) -> None:
        """Check the programs on a first batch."""

    @abstractmethod
    def end_epoch(self) -> None:
        """Called after every epoch."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """State of optimizers and schedules."""

    @abstractmethod
    def load(self, state: dict[str, Any]) -> None:
        """Take the state that `state` gave."""

    def average(self) -> None:
        """Called after every step: take its weights into the average."""
        if self.ema is not None:
            self.ema.update(self.num_steps)

    # -- the loop ---------------------------------------------------------------------------------------------------
    def fit(
        self,
        train: Any,
        val: Any = None,
        epochs: int = 1,
        batch_size: int = 128,
        *,
        monitor: str | None = None,
        patience: int | None = None,
        max_skips: int = 0,
        seed: int = 0,
        checkpoint: str | Path | None = None,
        checkpoint_every: int | None = None,
        on_epoch: Callable[[Row], None] | None = None,
        progress: bool = True,
    ) -> History:
        """Train for `epochs` more epochs.

        Afterwards the module holds the best weights. A further `fit` goes on from the *last* ones, unless the weights
        were changed in between.

        Args:
            train: a Tensor, ndarray, tuple of them, `Batches`, Dataset or DataLoader.
            val: the same; scored after every epoch under one fixed noise.
            epochs: epochs to run now.
            batch_size: data per step, where `train` does not say it itself.
            monitor: metric whose best epoch gives the weights at the end, lower is better; default `val_nelbo`
                (`val_loss` for objectives without it) when there is validation data, else the last weights stay, as
                they do where no loss tells a better epoch.
            patience: stop after so many epochs without a better `monitor`.
            max_skips: steps with a non-finite loss or gradient that are passed over (counted in `num_skipped`) before
                one raises; above 0 it costs a host synchronisation per step.
            seed: of the noise and of the order of the data; the noise is seeded once in a trainer's life.
            checkpoint: file that holds everything needed to go on, written after every epoch.
            checkpoint_every: write it after every so many steps of an epoch as well; a run that is resumed in the
                middle of an epoch takes the rest of it as the first of its `epochs`.
            on_epoch: called with every row of the history.
            progress: whether to show a bar.

        Returns:
            The history of all epochs so far.

        Raises:
            ValueError: for data or programs that break the contract, for an unknown metric, and for a non-finite loss;
                the module is then left at the failing step, the checkpoint where it was written last. For
                `checkpoint_every` without a file or with several processes, of which a file holds one.
        """
        every = 1 if checkpoint_every is None else checkpoint_every
        require_positive(epochs=epochs, batch_size=batch_size, checkpoint_every=every)
        self._checkpoint = checked_file(checkpoint, checkpoint_every)
        data = self._data(train, batch_size, shuffle=True)
        held_out = None if val is None else self._data(val, batch_size, shuffle=False)
        self._batch_size, self._max_skips, self._first_epoch = 0, max_skips, self.num_epochs
        with (
            self._session(seed),
            tqdm(
                total=epochs, unit="epoch", disable=not progress or rank_and_world()[0] > 0
            ) as bar,
        ):
            monitor = self._checked(data, held_out, monitor, patience)
            if (
                self.best and self.best["metric"] != monitor
            ):  # the best of another metric is no best of this one
                self.best = {}
            start = self.num_epochs
            for _ in range(epochs):
                row = self._epoch(data, held_out, seed)
                self.history.append(row)
                self._keep_best(row, monitor)
                if checkpoint is not None and rank_and_world()[0] == 0:
                    self.save(checkpoint)
                if on_epoch is not None:
                    on_epoch(row)
                shown = monitor or next(n for n in row if n.startswith("train_"))
                bar.set_postfix_str(f"{shown} {row[shown]:.2f}")
                bar.update()
                if (
                    patience is not None
                    and self.num_epochs - self.best.get("epoch", start) >= patience
                ):
                    break
        self._deploy()
        return self.history

    def evaluate(self, data: Any, batch_size: int = 512, seed: int = 0) -> Row:
        """Mean terms over data, each datum counted once, in nats per datum; moves no weight and no seed."""
        batches = self._data(data, batch_size, shuffle=False)
        with fork_rng(torch.empty(0, device=self._device)):
            self.preflight(*batches.first())
        return self._scored(batches, seed)

    def _scored(self, batches: Epochs, seed: int) -> Row:
        with evaluation_mode(self.module, seed=seed):
            total = RunningMeans()
            for batch in batches.epoch():
                self._check_unseen(batches, batch)
                total.add(self.terms(*batch), len(batch[0]))
            return total.means()

    def _epoch(self, data: Epochs, held_out: Epochs | None, seed: int) -> Row:
        start, random = perf_counter(), self._partial.get("random") or random_state(self._device)
        batches, total = self._left(data, seed)
        for batch in batches:
            self._check_unseen(data, batch)
            self._batch_size = max(self._batch_size, len(batch[0]))
            total.add(self.step(*batch), len(batch[0]))
            self.num_steps += 1
            self.average()
            if total.num_added % LOG_EVERY == 0:
                total.refuse_non_finite(self.num_steps)
            if self._checkpoint is not None and total.num_added % self._checkpoint[1] == 0:
                partial = {
                    "random": random,
                    "running": total.state(),
                    "batch_size": self._batch_size,
                }
                self._write(self._checkpoint[0], partial)
        total.refuse_non_finite(self.num_steps)
        self.end_epoch()
        self.num_epochs += 1
        row: Row = {"epoch": self.num_epochs, **{f"train_{n}": v for n, v in total.means().items()}}
        if held_out is not None:
            with self._averaged():
                row |= {
                    f"val_{name}": value for name, value in self._scored(held_out, seed).items()
                }
        return {**row, "seconds": perf_counter() - start}

    def _left(self, data: Epochs, seed: int) -> tuple[Iterator[tuple], RunningMeans]:
        """The batches of this epoch that are still to come, and the sums over those that are done."""
        batches = iter(data.epoch(seed, self.num_epochs, even=True))
        if not self._partial:
            return batches, RunningMeans()
        now, partial, self._partial = random_state(self._device), self._partial, {}
        total, self._batch_size = (
            RunningMeans.of(partial["running"], self._device),
            partial["batch_size"],
        )
        set_random_state(
            partial["random"], self._device
        )  # the order of a loader is drawn when its epoch begins
        for _ in range(total.num_added):
            next(batches)
        set_random_state(now, self._device)
        return batches, total

    def _skips(self, loss: Tensor, parameters: Sequence[Tensor], terms: Terms) -> bool:
        """Whether loss or gradient is not finite; raises once that has happened more often than allowed."""
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if bool((norm + all_reduce_sum(loss.detach().clone())).isfinite()):
            return False
        self.num_skipped += 1
        if self.num_skipped > self._max_skips:
            values = {**terms, "gradient": norm}
            raise non_finite(
                [name for name, value in values.items() if not bool(value.isfinite())],
                self.num_steps,
            )
        return True

    def _check_unseen(self, batches: Epochs, batch: tuple) -> None:
        """Preflight for each batch of a loader in the first epoch; data in memory were checked as a whole."""
        if isinstance(batches, LoaderBatches) and self.num_epochs == self._first_epoch:
            self.preflight(*batch)

    def _data(self, data: Any, batch_size: int, *, shuffle: bool) -> Epochs:
        return as_batches(data, batch_size, self.model, self._device, shuffle=shuffle)

    def _checked(
        self, data: Epochs, held_out: Epochs | None, monitor: str | None, patience: int | None
    ) -> str | None:
        """Preflight, and the name of the monitored metric, which must exist before the first step."""
        with fork_rng(torch.empty(0, device=self._device)):  # checks take no noise from a run
            for batches in (data, held_out):
                if batches is not None:
                    self.preflight(*batches.first())
            with eval_mode(self.module):
                found = list(self.terms(*data.first()))
        names = [f"train_{n}" for n in found]
        names += [f"val_{n}" for n in found] if held_out is not None else []
        if monitor is None:
            monitor = next((name for name in ("val_nelbo", "val_loss") if name in names), None)
        if monitor is None and patience is not None:
            raise ValueError(
                f"fit: patience needs a metric. Fix: give val=…, or monitor='{names[0]}'."
            )
        if monitor is not None and monitor not in names:
            raise ValueError(f"fit: expected a metric among {names}, got monitor='{monitor}'.")
        return monitor

    def _keep_best(self, row: Row, monitor: str | None) -> None:
        if monitor is None or not row[monitor] < self.best.get(
            "value", float("inf")
        ):  # NaN is never better
            return
        with self._averaged():
            weights = self._weights()
        self.best = {
            "value": row[monitor],
            "epoch": self.num_epochs,
            "metric": monitor,
            "weights": weights,
        }

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        if self.ema is None:
            yield
        else:
            with self.ema.applied():
                yield

    def _deploy(self) -> None:
        """Leave the best (or averaged) weights in the module, and keep the last ones to go on from."""
        self._last = self._weights()
        with self._averaged():
            self._deployed = self.best["weights"] if self.best else self._weights()
        self.module.load_state_dict(self._deployed)

    def _is_deployed(self) -> bool:
        """Whether the module holds what the last `fit` left in it, and nothing has changed the weights since."""
        now = self.module.state_dict()
        return bool(self._last) and all(
            torch.equal(now[name].cpu(), t.cpu()) for name, t in self._deployed.items()
        )

    def _weights(self) -> dict[str, Tensor]:
        return {name: t.detach().clone() for name, t in self.module.state_dict().items()}

    @contextmanager
    def _session(self, seed: int) -> Iterator[None]:
        """Training mode, validation off, the trainer's own random state, the last weights; given back at the end."""
        if self._is_deployed():
            self.module.load_state_dict(self._last)
        from_rank_zero(
            [
                *self.module.state_dict().values(),
                *([] if self.ema is None else self.ema.state_dict()),
            ]
        )
        was_training = self.module.training
        with fork_rng(torch.empty(0, device=self._device)), pyro.validation_enabled(False):
            if self._random:
                set_random_state(self._random, self._device)
            else:
                torch.manual_seed(derive_seed(seed, self.num_epochs, rank_and_world()[0]))
            self._last, self._random = (
                {},
                {},
            )  # from here on, what the module and the generators hold
            self.module.train()
            try:
                yield
            finally:
                self._random = random_state(self._device)
                self.module.train(was_training)

    # -- checkpoints ------------------------------------------------------------------------------------------------
    def save(self, path: str | Path) -> None:
        """Write everything needed to go on, bit for bit, to one file."""
        self._write(path, self._partial)

    def _write(self, path: str | Path, partial: dict[str, Any]) -> None:
        save_state(
            {
                "module": self._last or self.module.state_dict(),
                "ema": None if self.ema is None else self.ema.state_dict(),
                "trainer": self.state(),
                "random": self._random or random_state(self._device),
                "partial": partial,
                "best": self.best,
                "history": self.history.rows,
                "counts": [self.num_epochs, self.num_steps, self.num_skipped],
            },
            path,
        )

    def resume(self, path: str | Path) -> None:
        """Go on from a checkpoint: the next `fit` runs as if the first had never stopped."""
        state = load_state(path)
        check_average(path, wanted=self.ema is not None, found=state["ema"] is not None)
        self.module.load_state_dict(state["module"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.load(state["trainer"])
        self._random, self._last, self.best = state["random"], {}, state["best"]
        self._partial = state.get("partial", {})  # older files were written between epochs alone
        if rank_and_world()[0] > 0:  # the file holds the noise of rank 0 alone
            self._random = {}
        self.history = History(state["history"])
        self.num_epochs, self.num_steps, self.num_skipped = state["counts"]
