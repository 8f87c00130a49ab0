"""The loop: epochs, validation, best weights, checkpoints. A subclass owns one `step`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from ..data.batches import Batch
from ..data.reading import as_batches
from ..data.sharing import first_of, share_for_evaluation
from ..data.streams import StreamCheck
from ..objectives.statements import SeenStatements
from ..process.distributed import has_sharded, raise_together, stop_together
from ..process.states import eval_mode, fork_rng
from .checkpoints import KEEP, CheckpointFile
from .driving import Fit, Plan, drive
from .epochs import Epochs, Run
from .history import History, Row
from .loop import Loop
from .monitoring import Patience, bar_of, choose_metric, show_epoch
from .running import OnStep, prefixed
from .soundness import list_names, refuse_no_metric


class Trainer(Loop):
    """The loop over a module; abstract. A subclass gives `model`, `step`, `terms`, `preflight` and `end_epoch`.

    What a run carries from step to step, and how it is saved and resumed, is in `state`; a subclass puts what moves
    its weights into `state.optimizers`.

    Args:
        module: all that is trained.
        ema: decay of an exponential moving average of the weights.
        averaged: the part of the module that is averaged; default: all of it.
    """

    bar: tqdm | None = None  # of the run that goes on

    # -- what a subclass gives ------------------------------------------------------------------------
    @property
    @abstractmethod
    def model(self) -> nn.Module:
        """The program whose arguments a batch holds."""

    @abstractmethod
    def preflight(self, *batch: Any) -> None:
        """Check the programs on a batch."""

    @property
    def keeps_order(self) -> bool:
        """Whether a program has parameters for each datum by its place, so that data must not be shuffled."""
        return False

    def check_minibatches(self, batches: Epochs) -> None:
        """Refuse batches that the objective can't take one by one; after `preflight`."""

    def adopt(self, names: Sequence[str]) -> None:
        """Take `pyro.param` statements, which no module holds, among what is trained.

        Args:
            names: of the statements that the terms of a batch have run.

        Raises:
            ValueError: here, for any; a subclass may train them.
        """
        if names:
            raise ValueError(
                f"{type(self).__name__}: expected parameters of modules, got pyro.param statements of "
                f"{list_names([*names])}, which it would not train. "
                "Fix: nn.Parameter, or PyroParam in a PyroModule."
            )

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
        on_step: OnStep | None = None,
        progress: bool = True,
    ) -> History:
        """Train for `epochs` more epochs.

        Afterwards the module holds the best weights. A further `fit` goes on from the *last* ones, unless the weights
        were changed in between. Weights, average and moments are looked at every 50 steps and before they are kept,
        saved or left: what is not finite never is. After such an error all stands as if the run had been stopped at the
        end of its last good epoch, of which a copy is held on the device (less than an epoch and 50 steps before).

        Args:
            train: a tensor, an array, a memory map, sparse rows, a tuple of them, `Batches`, a dataset, a stream or a
                DataLoader; `tutorials/how/own_data.md` says how each is read.
            val: the same; scored after every epoch under one fixed noise.
            epochs: epochs to run now.
            batch_size: data per step, where `train` does not say it itself.
            monitor: metric whose best epoch gives the weights at the end, lower is better; default `val_nelbo`
                (`val_loss` for objectives without it) when there is validation data, else the last weights stay, as
                they do where no loss tells a better epoch.
            patience: stop after so many epochs without a better `monitor`, counted from the end of every warm-up, of β
                or of the learning rate. A `loss` that a warm-up weights has no best epoch before.
            max_skips: steps with a non-finite loss or gradient that are passed over (counted in `num_skipped`) before
                one raises; above 0 it costs a host synchronisation per step.
            seed: of the noise and of the order of the data; the noise is seeded once in a trainer's life.
            checkpoint: file that holds everything needed to go on, written after every epoch.
            checkpoint_every: write it after every so many steps as well; a run that is resumed in the middle of an
                epoch takes the rest of it as the first of its `epochs`.
            checkpoint_keep: how many stay: `checkpoint` is the newest, `checkpoint.1` the one before it.
            on_epoch: called with every row of the history.
            on_step: called with the number and the terms of every step, up to 64 at once: one host read for them.
            progress: whether to show a bar.

        Returns:
            The history of all epochs so far.

        Raises:
            ValueError: for data or programs that break the contract, for an unknown metric, for losses or weights that
                are not finite, in training or validation; for parameters that the optimizer lacks, or holds and the
                module does not; for other data, batch size or seed in the rest of an epoch; for `checkpoint_every`
                without a file.
        """
        plan = Plan(
            epochs=epochs,
            batch_size=batch_size,
            monitor=monitor,
            patience=patience,
            max_skips=max_skips,
            seed=seed,
            file=CheckpointFile(checkpoint, checkpoint_every, checkpoint_keep),
            on_epoch=on_epoch,
            on_step=on_step,
            progress=progress,
        )
        drive(self.fitting(train, val, plan), self.watched_steps)
        return self.history

    def fitting(self, train: Any, val: Any, plan: Plan) -> Fit:
        """What `fit` does besides its steps, which it asks for: a generator for whoever takes them."""
        self.state.skips.limit = plan.max_skips
        with raise_together():
            self._check_moved()
            run = self._prepare(train, val, plan)
        done = {"done": self.num_epochs, "steps": self.num_steps}
        run = run.shared_out(epochs=plan.epochs, **done)
        if self.state.partial is not None:
            with raise_together():
                self.state.partial.check_identity(run.identity)
        bar_of_run = bar_of(self, plan.epochs, shown=plan.progress)
        with stop_together(), self.state.training(plan.seed), bar_of_run as bar:
            self._check_schedules()
            metric = choose_metric(self._check(run), plan.monitor, plan.patience)
            if self.keeps_order:
                run = run.in_order()
            self._begin()
            self.state.compare_by(metric)
            watch = Patience(self.module, self._optimizers(), plan.patience)
            for _ in range(plan.epochs):
                row = yield from self._epoch(run)
                self.state.note_ranks()
                with raise_together():
                    self._record(run, row, metric, watch)
                    if plan.on_epoch is not None:
                        plan.on_epoch(row)
                show_epoch(bar, row, metric)
                best_epoch = self.best.get("epoch", run.first_epoch)
                if watch.is_over(self.num_epochs, best_epoch, self.state.warm_up):
                    break
            self.state.refuse_non_finite()
            self.state.note_ranks()
            self.state.deploy()

    def evaluate(self, data: Any, batch_size: int = 512, seed: int = 0) -> Row:
        """Mean terms over data, each datum counted once, in nats per datum; moves no weight and no seed.

        Raises:
            ValueError: for data or programs that break the contract, for weights that are not finite, and for terms
                that are no numbers.
        """
        with raise_together():
            self.state.watch.check_weights("evaluate")
        with raise_together(), self._forked():
            batches = self._batches(data, batch_size, shuffle=False)
            self.preflight(*batches.first())
        if not has_sharded(self.module):
            batches = share_for_evaluation(batches)
        # In training a loader was looked at batch by batch; here that is left to the first time.
        check = self._stream_check(batches, every=self.num_epochs == 0)
        with stop_together():
            row = self._mean_terms(batches, check, seed)
        refuse_no_metric(row, "evaluate")
        return row

    def save(self, path: str | Path) -> None:
        """Write everything needed to go on, bit for bit, to one file; of several ranks rank 0 writes it."""
        self.state.save(path)

    def resume(self, path: str | Path) -> None:
        """Go on from a checkpoint: the next `fit` runs as if the first had never stopped, bit for bit.

        On another number of ranks what is left of the data is shared out anew: each datum counts once, as it would
        have, under other noise.

        Raises:
            ValueError: for the checkpoint of a trainer with other settings.
        """
        self.state.load(path)

    def announce(self, stage: str) -> None:
        """Say beside the bar of a run what keeps it waiting."""
        if self.bar is not None:
            self.bar.set_postfix_str(stage)

    def _prepare(self, train: Any, val: Any, plan: Plan) -> Run:
        val_batches, val_check = None, None
        if val is not None:
            val_batches = self._batches(val, plan.batch_size, shuffle=False, name="val")
            val_check = self._stream_check(val_batches)
        train_batches = self._batches(train, plan.batch_size, shuffle=True)
        check = self._stream_check(train_batches)
        return Run(
            module=self.module,
            train=train_batches,
            val=val_batches,
            seed=plan.seed,
            file=plan.file,
            first_epoch=self.num_epochs,
            check=check,
            val_check=val_check,
            on_step=plan.on_step,
        )

    # -- data and checks -------------------------------------------------------------------------------
    def _batches(self, data: Any, batch_size: int, *, shuffle: bool, name: str = "data") -> Epochs:
        split = shuffle or not has_sharded(self.module)  # else each pass needs all ranks
        device = self.state.device
        return as_batches(
            data, batch_size, self.model, device, shuffle=shuffle, split=split, name=name
        )

    def _forked(self) -> AbstractContextManager[None]:
        """A fork of the random state, so that a check takes no noise from a run."""
        return fork_rng(torch.empty(0, device=self.state.device))

    def _check(self, run: Run) -> list[str]:
        """Check both data sets; returns the names of the metrics that an epoch will have."""
        with self._forked():
            batch, val_batch = first_of(run.train), None
            if run.val is not None:
                val_batch = first_of(run.val)
        with raise_together(), self._forked():
            self.preflight(*batch)
            self.check_minibatches(run.train)
            if val_batch is not None:
                self.preflight(*val_batch)
            with eval_mode(self.module), SeenStatements() as seen:
                terms = self.terms(*batch)
        self.adopt(seen.foreign_to(self.module))
        self._check_moved()  # again: a guide may make its parameters when it first runs
        names = list(prefixed("train_", terms))
        if run.val is not None:
            names += prefixed("val_", terms)
        return names

    def _stream_check(self, batches: Epochs, *, every: bool = True) -> StreamCheck:
        return StreamCheck(batches, self._preflight_apart, every=every)

    def _preflight_apart(self, *batch: Any) -> None:
        """Preflight that takes no noise from a run."""
        with self._forked():
            self.preflight(*batch)

    def explain(self, batch: Batch) -> None:  # noqa: D102
        self._preflight_apart(*batch)

    def _check_moved(self) -> None:
        """Compare what the optimizers move with what is trained, as it is by now."""
        for moved in self.moved:
            moved.check()
        if self.ema is not None:
            self.ema.follow()
