"""One epoch of a run after the other: steps, validation, looks at what is finite, and what is kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from time import perf_counter
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from ..data.batches import Batch
from ..data.rests import refuse_one_datum
from ..data.streams import StreamCheck
from ..objectives.objective import Objective
from ..objectives.statements import SeenStatements
from ..process.distributed import raise_together
from ..process.ranks import agree_on_weights
from ..process.states import derive_seed, device_of, evaluation_mode
from .averaging import Ema
from .compiled.graphs import Terms
from .compiled.options import FallBack
from .driving import Steps, TakeStep
from .epochs import Epochs, PartialEpoch, Run
from .history import History, Row
from .monitoring import Patience, check_rates
from .parameters import Moved
from .running import RunningMeans, Values, prefixed
from .soundness import Unsound, list_names, refuse_no_metric
from .state import TrainingState

# Steps between two looks at whether all is finite, each of which reads a value on the host.
LOOK_EVERY = 50
# Of the first epoch, in which most mistakes show: early, so that the names are those of the first to fail.
EARLY_LOOKS = (1, 2, 4, 8, 16, 32)


class Loop(ABC):
    """What `Trainer` does in an epoch; abstract. A subclass gives `step`, `terms` and `end_epoch`.

    Args:
        module: all that is trained.
        ema: decay of an exponential moving average of the weights.
        averaged: the part of the module that is averaged; default: all of it.
    """

    def __init__(
        self, module: nn.Module, ema: float | None = None, averaged: nn.Module | None = None
    ):
        self.fall_back: FallBack | None = None
        device = device_of(module)
        self.module = module.to(device)  # schedules go where the weights are
        average = None if ema is None else Ema(module if averaged is None else averaged, ema)
        self.state = TrainingState(self.module, average)
        self.moved: Sequence[Moved] = ()
        self.full_batch = 0
        self._last_look = 0
        self._last_good = 0
        self._seen = SeenStatements()

    # -- what a subclass gives ------------------------------------------------------------------------
    @abstractmethod
    def step(self, *batch: Any) -> Terms:
        """One optimization step; returns named 0-dim costs in nats per datum, none if it was passed over."""

    @contextmanager
    def steps(self) -> Iterator[TakeStep]:
        """What takes the steps of one epoch, in which nothing changes but weights and batches: here `step`."""
        yield lambda batch: self.step(*batch)

    @contextmanager
    def watched_steps(self) -> Iterator[TakeStep]:
        """The same, under `watched`."""
        with self.steps() as step:

            def take(batch: Batch) -> Terms | Values:
                with self.watched():
                    return step(batch)

            yield take

    def watched(self) -> AbstractContextManager[Any]:
        """Where programs run in a step: a look at their `pyro.param` statements."""
        return self._seen

    @abstractmethod
    def terms(self, *batch: Any) -> Terms:
        """The same costs without a step, for validation."""

    @abstractmethod
    def end_epoch(self) -> None:
        """Called after every epoch."""

    @abstractmethod
    def explain(self, batch: Batch) -> None:
        """Raise the error that says why a step failed on a batch of another size than the first, if it can."""

    def average(self) -> None:
        """Called after every step: take its weights into the average."""
        if self.ema is not None:
            self.ema.update(self.num_steps)

    def is_ragged(self, batch: Batch) -> bool:
        """Whether a batch is smaller than the others of a run, as the last one may be; an empty one is, too."""
        return not batch or (self.full_batch > 0 and len(batch[0]) != self.full_batch)

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

    # -- an epoch ------------------------------------------------------------------------------------
    def _epoch(self, run: Run) -> Generator[Steps, None, Row]:
        """One pass over the training data, and one over the validation data."""
        start = perf_counter()
        epoch = self.state.begin_epoch()
        if run.file.every is not None:
            epoch.identity = run.identity
        yield self._steps(run, epoch)
        means = epoch.means
        agree_on_weights(self.module, None if self.ema is None else self.ema.average)
        self.end_epoch()
        self.state.num_epochs += 1
        check_rates(self._optimizers(), self.num_epochs)
        row: Row = {"epoch": self.num_epochs}
        found = means.means()
        self._check_means(found, means.num_data)
        row |= prefixed("train_", found)
        if run.val is not None and run.val_check is not None:
            with self.state.averaged():
                found = prefixed("val_", self._mean_terms(run.val, run.val_check, run.seed))
            refuse_no_metric(found, f"fit: after epoch {self.num_epochs}")
            row |= found
        row["seconds"] = perf_counter() - start
        return row

    def _steps(self, run: Run, epoch: PartialEpoch) -> Steps:
        """Ask for the steps of an epoch, or of what a checkpoint has left of it."""
        means = epoch.means.hand_over(run.on_step, self.num_steps)
        run.check.begin_epoch(means.num_added)
        self.full_batch = max(self.full_batch, epoch.full_batch)
        self._seen = SeenStatements()
        for batch in run.batches(self.num_epochs, epoch, self.state.device):
            num_data = len(batch[0]) if batch else 0  # none where other ranks alone have a batch
            with raise_together() if run.check.every else nullcontext():
                if batch:
                    run.check.add(batch)
            if self.full_batch == 0 or num_data > self.full_batch + 1:  # one more: a rest of one
                self.full_batch = num_data
            with self._explaining(batch):
                terms = yield batch
            self._refuse_late()
            epoch.add(terms, num_data)
            self.state.num_steps += 1
            self.average()
            self._end_step(epoch, run)
        with raise_together():
            run.check.end_epoch()
        self._look_at_terms(means)

    @contextmanager
    def _explaining(self, batch: Batch) -> Iterator[None]:
        try:
            yield
        except (ValueError, RuntimeError, IndexError) as error:
            refuse_one_datum(error, batch)
            if batch and len(batch[0]) != self.full_batch:
                self.explain(batch)
            raise

    def _refuse_late(self) -> None:
        """Refuse `pyro.param` statements that the check before the first step did not meet: nobody trains them."""
        names = self._seen.new_foreign_to(self.module)
        if names:
            raise Unsound(
                f"{type(self).__name__}: expected pyro.param statements that run on the first batch in "
                f"evaluation mode, got {list_names(names)} first in step {self.num_steps + 1}, which "
                "would not be trained. Fix: the statement before any branch on self.training or on "
                "the data; or nn.Parameter, or PyroParam in a PyroModule."
            )

    def _end_step(self, epoch: PartialEpoch, run: Run) -> None:
        """Every so many steps: look whether all is finite, and write the checkpoint."""
        num_done = epoch.means.num_added
        path = run.file.due(num_done)
        is_early = self.num_epochs == run.first_epoch and num_done in EARLY_LOOKS
        if path is not None or is_early or self.num_steps - self._last_look >= LOOK_EVERY:
            with raise_together():
                run.check.refuse()
            self._look(epoch.means)
        if path is not None:
            epoch.full_batch = self.full_batch
            self.state.note_ranks(epoch)
            with raise_together():
                self.state.save(path, partial=epoch, keep=run.file.keep)

    def _begin(self) -> None:
        """Count steps and looks from here, where all was looked at and is good."""
        self.full_batch = 0
        self._last_look = self.num_steps
        self._last_good = self.num_steps
        self.state.note_ranks()
        self.state.remember()

    def _look(self, means: RunningMeans | None = None) -> None:
        """Some host reads: whether terms and weights are finite, and the schedules in their range."""
        self._last_look = self.num_steps
        if means is not None:
            self._look_at_terms(means)
        self.state.refuse_non_finite()
        self._check_schedules()

    def _look_at_terms(self, means: RunningMeans) -> None:
        """Refuse terms that are not finite, and say which weights are not either: theirs may be the cause."""
        try:
            means.refuse_non_finite(self.num_steps)
        except Unsound as error:
            names = self.state.watch.non_finite(None, {})
            if not names:
                raise
            also = f"By then {list_names(names)} hold NaN or infinite values, too."
            raise Unsound(f"{error} {also}") from None

    def _check_schedules(self) -> None:
        try:
            for module in self.module.modules():
                if isinstance(module, Objective):
                    module.check_schedules()
        except ValueError as error:  # the steps since the last look may have climbed
            raise Unsound(str(error)) from None

    def _check_means(self, means: Row, num: int) -> None:
        try:
            for module in self.module.modules():
                if isinstance(module, Objective):
                    module.check_means(means, num)
        except ValueError as error:
            raise Unsound(str(error)) from None

    def _mean_terms(self, batches: Epochs, check: StreamCheck, seed: int) -> Row:
        with evaluation_mode(self.module, seed=seed):
            means = RunningMeans(self.state.device)
            check.begin_epoch()
            for number, batch in batches.numbered():
                check.add(batch)
                if number > 0:  # its noise is a function of (seed, number) on however many ranks
                    torch.manual_seed(derive_seed(seed, number))
                means.add(self.terms(*batch), len(batch[0]))
            check.end_epoch()
            return means.means()

    def _record(self, run: Run, row: Row, metric: str | None, watch: Patience) -> None:
        """Take an epoch into history, best weights and checkpoint, once its weights are known to be good."""
        is_kept = metric is not None or run.file.path is not None
        is_due = self.num_steps - self._last_good >= LOOK_EVERY
        if is_kept or is_due:
            self._look()
        self.history.append(row)
        in_warm_up, may_be_best = watch.end_epoch(metric)
        if in_warm_up:
            self.state.warm_up = self.num_epochs
        if metric is not None and may_be_best:
            self.state.keep_if_best(metric, row[metric])
        if is_kept or is_due:
            self._last_good = self.num_steps
            self.state.remember()
        if run.file.path is not None:
            self.state.save(run.file.path, keep=run.file.keep)

    def _optimizers(self) -> list[Optimizer]:
        return [moved.optimizer for moved in self.moved]
