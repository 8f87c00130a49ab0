"""The loop: epochs, validation, best weights, checkpoints. A subclass owns one `step`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import nn

from ..data.batches import Batch, LoaderBatches, as_batches
from ..process.distributed import rank_and_world
from ..process.states import eval_mode, evaluation_mode, fork_rng
from ..run.sessions import require_positive
from .averaging import Ema
from .checkpoints import KEEP, CheckpointFile
from .epochs import Epochs, PartialEpoch, Run
from .graphs import Terms
from .history import History, Row
from .monitoring import check_limits, choose_metric, progress_bar, show_epoch
from .running import RunningMeans, prefixed
from .state import TrainingState

# Steps between two looks at whether the terms are finite, each of which reads a value on the host.
LOOK_EVERY = 50


class Trainer(ABC):
    """The loop over a module; abstract. A subclass gives `model`, `step`, `terms`, `preflight` and `end_epoch`.

    What a run carries from step to step, and how it is saved and resumed, is in `state`; a subclass puts what moves
    its weights into `state.optimizers`.

    Args:
        module: all that is trained.
        ema: decay of an exponential moving average of the weights.
        averaged: the part of the module that is averaged; default: all of it.
    """

    def __init__(
        self, module: nn.Module, ema: float | None = None, averaged: nn.Module | None = None
    ):
        device = next(module.parameters()).device
        self.module = module.to(device)  # schedules go where the weights are
        average = None if ema is None else Ema(module if averaged is None else averaged, ema)
        self.state = TrainingState(self.module, average)
        self.largest_batch = 0

    # -- what a subclass gives ------------------------------------------------------------------------
    @property
    @abstractmethod
    def model(self) -> nn.Module:
        """The program whose arguments a batch holds."""

    @abstractmethod
    def step(self, *batch: Any) -> Terms:
        """One optimization step; returns named 0-dim costs in nats per datum, none if it was passed over."""

    @abstractmethod
    def terms(self, *batch: Any) -> Terms:
        """The same costs without a step, for validation."""

    @abstractmethod
    def preflight(self, *batch: Any) -> None:
        """Check the programs on a batch."""

    @abstractmethod
    def end_epoch(self) -> None:
        """Called after every epoch."""

    def average(self) -> None:
        """Called after every step: take its weights into the average."""
        if self.ema is not None:
            self.ema.update(self.num_steps)

    # -- what a run has done ---------------------------------------------------------------------------
    @property
    def ema(self) -> Ema | None:
        """The average of the weights, where one is kept."""
        return self.state.ema

    @property
    def history(self) -> History:
        """One row of terms per epoch."""
        return self.state.history

    @property
    def best(self) -> dict[str, Any]:
        """The best epoch: its `value`, `epoch`, `metric` and `weights`; empty before there is one."""
        return self.state.best

    @property
    def num_epochs(self) -> int:
        """Epochs so far."""
        return self.state.num_epochs

    @property
    def num_steps(self) -> int:
        """Steps so far, those passed over among them."""
        return self.state.num_steps

    @property
    def num_skipped(self) -> int:
        """Steps that were passed over."""
        return self.state.skips.num_skipped

    # -- the loop --------------------------------------------------------------------------------------
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
        checkpoint_keep: int = KEEP,
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
            monitor: metric whose best epoch gives the weights at the end, lower is better; default `val_nelbo`, or
                `val_loss`, when there is validation data; else, or where no loss tells, the last weights stay.
            patience: stop after so many epochs without a better `monitor`.
            max_skips: steps with a non-finite loss or gradient that are passed over (counted in `num_skipped`) before
                one raises; above 0 it costs a host synchronisation per step.
            seed: of the noise and of the order of the data; the noise is seeded once in a trainer's life.
            checkpoint: file that holds everything needed to go on, written after every epoch.
            checkpoint_every: write it after every so many steps as well; a run that is resumed in the middle of an
                epoch takes the rest of it as the first of its `epochs`.
            checkpoint_keep: how many stay: `checkpoint` is the newest, `checkpoint.1` the one before it.
            on_epoch: called with every row of the history.
            progress: whether to show a bar.

        Returns:
            The history of all epochs so far.

        Raises:
            ValueError: for data or programs that break the contract, for an unknown metric, and for a non-finite loss;
                the module is then left at the failing step, the checkpoint where it was written last; for
                `checkpoint_every` without a file or with several processes.
        """
        require_positive(epochs=epochs, batch_size=batch_size)
        check_limits(patience, max_skips)
        self.state.skips.limit = max_skips
        self.largest_batch = 0
        file = CheckpointFile(checkpoint, checkpoint_every, checkpoint_keep)
        run = self._prepare(train, val, batch_size, seed, file)
        with self.state.training(seed), progress_bar(epochs, shown=progress) as bar:
            metric = choose_metric(self._check(run), monitor, patience)
            self.state.compare_by(metric)
            for _ in range(epochs):
                row = self._epoch(run)
                self._record(row, metric, run.file)
                if on_epoch is not None:
                    on_epoch(row)
                show_epoch(bar, row, metric)
                if patience is not None and self._epochs_without_better(run) >= patience:
                    break
            self.state.deploy()
        return self.history

    def evaluate(self, data: Any, batch_size: int = 512, seed: int = 0) -> Row:
        """Mean terms over data, each datum counted once, in nats per datum; moves no weight and no seed."""
        batches = self._batches(data, batch_size, shuffle=False)
        with self._forked():
            self.preflight(*batches.first())
        # In training a loader was looked at batch by batch; here that is left to the first time.
        return self._mean_terms(batches, seed, check=self.num_epochs == 0)

    def save(self, path: str | Path) -> None:
        """Write everything needed to go on, bit for bit, to one file."""
        self.state.save(path)

    def resume(self, path: str | Path) -> None:
        """Go on from a checkpoint: the next `fit` runs as if the first had never stopped.

        Raises:
            ValueError: for the checkpoint of a trainer with other settings.
        """
        self.state.load(path)

    def _epoch(self, run: Run) -> Row:
        """One pass over the training data, and one over the validation data."""
        start = perf_counter()
        is_first = self.num_epochs == run.first_epoch
        means = self._train(run, check=is_first)
        self.end_epoch()
        self.state.num_epochs += 1
        row: Row = {"epoch": self.num_epochs}
        row |= prefixed("train_", means.means())
        if run.val is not None:
            with self.state.averaged():
                found = self._mean_terms(run.val, run.seed, check=is_first)
            row |= prefixed("val_", found)
        row["seconds"] = perf_counter() - start
        return row

    def _train(self, run: Run, *, check: bool) -> RunningMeans:
        """The steps of an epoch, or of what a checkpoint has left of it."""
        epoch = self.state.begin_epoch()
        means = epoch.means
        self.largest_batch = max(self.largest_batch, epoch.largest_batch)
        batches = iter(run.train.epoch(run.seed, self.num_epochs, even=True))
        for batch in epoch.remaining(batches, self.state.device):
            if check:
                self._check_unseen(run.train, batch)
            num_data = len(batch[0])
            self.largest_batch = max(self.largest_batch, num_data)
            means.add(self.step(*batch), num_data)
            self.state.num_steps += 1
            self.average()
            self._end_step(epoch, run.file)
        means.refuse_non_finite(self.num_steps)
        return means

    def _end_step(self, epoch: PartialEpoch, file: CheckpointFile) -> None:
        """Every so many steps: look whether the terms are finite, and write the checkpoint."""
        means = epoch.means
        if means.num_added % LOOK_EVERY == 0:
            means.refuse_non_finite(self.num_steps)
        path = file.due(means.num_added)
        if path is not None:
            epoch.largest_batch = self.largest_batch
            self.state.save(path, partial=epoch, keep=file.keep)

    def _epochs_without_better(self, run: Run) -> int:
        best_epoch = self.best.get("epoch", run.first_epoch)
        return self.num_epochs - best_epoch

    def _mean_terms(self, batches: Epochs, seed: int, *, check: bool) -> Row:
        with evaluation_mode(self.module, seed=seed):
            means = RunningMeans()
            for batch in batches.epoch():
                if check:
                    self._check_unseen(batches, batch)
                means.add(self.terms(*batch), len(batch[0]))
            return means.means()

    def _record(self, row: Row, metric: str | None, file: CheckpointFile) -> None:
        """Take an epoch into history, best weights and checkpoint."""
        self.history.append(row)
        if metric is not None:
            self.state.keep_if_best(metric, row[metric])
        if file.path is not None and rank_and_world()[0] == 0:
            self.state.save(file.path, keep=file.keep)

    def _prepare(
        self, train: Any, val: Any, batch_size: int, seed: int, file: CheckpointFile
    ) -> Run:
        val_batches = None
        if val is not None:
            val_batches = self._batches(val, batch_size, shuffle=False, name="val")
        train_batches = self._batches(train, batch_size, shuffle=True)
        return Run(train_batches, val_batches, seed, file, first_epoch=self.num_epochs)

    # -- data and checks -------------------------------------------------------------------------------
    def _batches(self, data: Any, batch_size: int, *, shuffle: bool, name: str = "data") -> Epochs:
        device = self.state.device
        return as_batches(data, batch_size, self.model, device, shuffle=shuffle, name=name)

    def _forked(self) -> AbstractContextManager[None]:
        """A fork of the random state, so that a check takes no noise from a run."""
        return fork_rng(torch.empty(0, device=self.state.device))

    def _check(self, run: Run) -> list[str]:
        """Check both data sets; returns the names of the metrics that an epoch will have."""
        with self._forked():
            self.preflight(*run.train.first())
            if run.val is not None:
                self.preflight(*run.val.first())
            with eval_mode(self.module):
                terms = self.terms(*run.train.first())
        names = list(prefixed("train_", terms))
        if run.val is not None:
            names += prefixed("val_", terms)
        return names

    def _check_unseen(self, batches: Epochs, batch: Batch) -> None:
        """Preflight for a batch of a loader; data in memory were checked as a whole."""
        if isinstance(batches, LoaderBatches):
            with self._forked():
                self.preflight(*batch)
