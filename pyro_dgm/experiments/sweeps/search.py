"""Which trials there are, and how a worker takes one: by the lock of its folder, which a dead worker gives back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path

from ...files.errors import OwnedError, named
from ...files.locking import owned
from ...files.writing import sweep as remove_leftovers
from ..runs.layout import CHECKPOINTS
from .outcomes import Outcome, Trial, folder_of, read_outcome
from .plan import Plan


class Search(ABC):
    """The trials of a sweep; abstract."""

    @property
    @abstractmethod
    def num(self) -> int:
        """Trials in all."""

    @abstractmethod
    def choosing(self) -> AbstractContextManager[None]:
        """Around the choice of a trial, up to its lock."""

    @abstractmethod
    def candidates(self) -> Iterator[Trial]:
        """Trials that may be open, the next one first."""

    @abstractmethod
    def tell(self, outcome: Outcome) -> None:
        """Take in how a trial ended; more than once, too."""


class PlannedSearch(Search):
    """Trials that are known from the beginning: every combination, or draws.

    Args:
        plan: the plan.
        out: folder of the sweep.
    """

    def __init__(self, plan: Plan, out: Path):
        trials = enumerate(plan.trials())
        self.trials = [Trial(number, own, folder_of(out, number)) for number, own in trials]

    @property
    def num(self) -> int:  # noqa: D102
        return len(self.trials)

    def choosing(self) -> AbstractContextManager[None]:  # noqa: D102
        return nullcontext()

    def candidates(self) -> Iterator[Trial]:  # noqa: D102
        yield from self.trials

    def tell(self, outcome: Outcome) -> None:
        """Nothing waits for it."""


@contextmanager
def next_trial(search: Search) -> Iterator[Trial | None]:
    """The next trial that nobody has ended or works on, which is this worker's while this lasts; `None` without any."""
    with search.choosing():
        found = _take(search)
    if found is None:
        yield None
        return
    trial, lock = found
    with lock:
        remove_leftovers(trial.folder)
        remove_leftovers(trial.folder / CHECKPOINTS)
        yield trial


def _take(search: Search) -> tuple[Trial, ExitStack] | None:
    for trial in search.candidates():
        outcome = read_outcome(trial.folder)
        if outcome is not None:
            search.tell(outcome)
            continue
        with named(trial.folder, "write"):
            trial.folder.mkdir(exist_ok=True)
        lock = ExitStack()
        try:
            lock.enter_context(owned(trial.folder))
        except OwnedError:
            continue
        outcome = read_outcome(trial.folder)  # it may have ended since
        if outcome is None:
            return trial, lock
        lock.close()
        search.tell(outcome)
    return None
