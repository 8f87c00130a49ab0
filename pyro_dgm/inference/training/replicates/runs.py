"""Several fits that take their steps side by side, each on a random state of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

from ...data.batches import Batch
from ..checkpoints import random_state, set_random_state
from ..compiled.graphs import Terms
from ..driving import Fit, Steps
from ..running import Values
from ..soundness import Unsound
from .steps import Asked, SideBySide


class SeedRun:
    """One of several fits: what it asks for, and the random state that it draws from.

    Args:
        row: its place among the runs.
        fit: what asks for its steps.
        device: where its noise is drawn.

    Attributes:
        batch: what it asks a step for; `None` at the end of an epoch.
        error: what has stopped it, if its numbers are no numbers any more.
    """

    def __init__(self, row: int, fit: Fit, device: torch.device):
        self.row = row
        self.fit = fit
        self.device = device
        self.random = random_state(device)
        self.epoch: Steps | None = None
        self.batch: Batch | None = None
        self.error: Unsound | None = None

    @contextmanager
    def own_random(self) -> Iterator[None]:
        """Draw from the run's own random state; what was there before is lost."""
        set_random_state(self.random, self.device)
        try:
            yield
        finally:
            self.random = random_state(self.device)

    def begin_epoch(self) -> None:
        """Ask for the next epoch and its first batch; without an epoch the run is over."""
        with self.own_random():
            try:
                self.epoch = next(self.fit, None)
            except Unsound as error:  # of the epoch that has ended, or of its validation
                self.epoch, self.error = None, error
            if self.epoch is not None:
                self._ask(lambda epoch: next(epoch))

    def first(self, steps: SideBySide) -> Asked:
        """What it needs for the first step of an epoch."""
        with self.own_random():
            return self._need(steps)

    def after(self, terms: Terms | Values, steps: SideBySide) -> Asked | None:
        """Take the terms of a step; what it needs for the next one, if there is one."""
        with self.own_random():
            self._ask(lambda epoch: epoch.send(terms))
            return None if self.batch is None else self._need(steps)

    def _ask(self, ask: Callable[[Steps], Batch]) -> None:
        assert self.epoch is not None
        self.batch = None
        try:
            self.batch = ask(self.epoch)
        except StopIteration:
            return
        except Exception as error:
            self._stop(error)

    def _need(self, steps: SideBySide) -> Asked:
        assert self.batch is not None
        assert self.epoch is not None
        try:
            return steps.ask(self.row, self.batch)
        except Exception as error:
            self.epoch.throw(error)
            raise

    def _stop(self, error: Exception) -> None:
        """End the fit by an error; what is not finite ends this run alone."""
        self.epoch = None
        try:
            self.fit.throw(error)
        except Unsound as own:
            self.error = own

    def close(self, error: BaseException) -> None:
        """End the fit by the error of another."""
        with self.own_random():
            try:
                self.fit.throw(error)
            except BaseException as own:
                if own is not error and not isinstance(own, StopIteration):
                    raise


def take_side_by_side(
    runs: Sequence[SeedRun], choose: Callable[[Sequence[Batch]], SideBySide]
) -> None:
    """Take the steps of all runs until each is over.

    Args:
        runs: what asks.
        choose: builds, from a first batch of each, what takes the steps.

    Raises:
        Exception: what one of the runs raises, but for numbers that are not finite: these end that run alone.
    """
    steps: SideBySide | None = None
    going = list(runs)
    try:
        while going:
            for run in going:
                run.begin_epoch()
            if steps is None:
                steps = choose([run.batch for run in going if run.batch is not None])
            for run in going:
                if run.epoch is None:
                    steps.leave(run.row)
            going = [run for run in going if run.epoch is not None]
            if going:
                _take_epoch(going, steps)
    except BaseException as error:
        for run in going:
            run.close(error)
        raise


def _take_epoch(runs: Sequence[SeedRun], steps: SideBySide) -> None:
    by_row = {run.row: run for run in runs}
    with steps.epoch():
        asked = {}
        for run in runs:
            if run.batch is not None:
                asked[run.row] = run.first(steps)
        while asked:
            terms = steps.step(asked)
            needed = {row: by_row[row].after(terms[row], steps) for row in asked}
            asked = {row: need for row, need in needed.items() if need is not None}
            for row in terms:
                if by_row[row].error is not None:
                    steps.leave(row)
