"""Trials that Optuna's TPE sampler chooses, in a storage that all workers share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...files.locking import locked
from ...inference.process.states import derive_seed
from .outcomes import Outcome, Trial, folder_of
from .plan import Plan, Settings, agreeing
from .ranges import Range
from .search import Search

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

JOURNAL = "optuna.log"


class OptunaSearch(Search):
    """Trials by the tree-structured Parzen estimator on those before; no trial is pruned.

    The storage holds the settings of a trial before it begins. One that runs there while the lock of its folder is free
    has lost its worker: whoever finds it goes on with it, under the same settings.

    Args:
        plan: the plan.
        out: folder of the sweep.
        storage: URL of a database, such as `postgresql://…`; default: a journal in the folder.

    Raises:
        ImportError: without Optuna.

    References:
        Bergstra, Bardenet, Bengio, Kégl 2011, *Algorithms for hyper-parameter optimization*. Akiba, Sano, Yanase, Ohta,
        Koyama 2019, *Optuna*, arXiv:1907.10902.
    """

    def __init__(self, plan: Plan, out: Path, storage: str | None = None):
        self.plan = plan
        self.out = out
        self.study = _open_study(plan.name, out, storage)

    @property
    def num(self) -> int:  # noqa: D102
        assert self.plan.num is not None
        return self.plan.num

    def choosing(self) -> AbstractContextManager[None]:
        """One worker after the other: what another one has only half asked for is then by a dead one."""
        return agreeing(self.out)

    def candidates(self) -> Iterator[Trial]:
        """Those that run in the storage, then new ones."""
        from optuna.trial import TrialState

        num = 0
        for frozen in self.study.get_trials(deepcopy=False):
            settings = self._settings(frozen)
            is_running = frozen.state == TrialState.RUNNING
            if settings is None:  # its worker died while it asked
                if is_running:
                    self.study.tell(frozen.number, state=TrialState.FAIL)
                continue
            num += 1
            if is_running:
                yield Trial(frozen.number, settings, folder_of(self.out, frozen.number))
        for _ in range(num, self.num):
            yield self._ask()

    def tell(self, outcome: Outcome) -> None:  # noqa: D102
        from optuna.trial import TrialState

        if outcome.error:
            self.study.tell(outcome.number, state=TrialState.FAIL, skip_if_finished=True)
        else:
            self.study.tell(outcome.number, outcome.value, skip_if_finished=True)

    def _ask(self) -> Trial:
        """A new trial; its noise is a function of seed and number, the same whoever asks."""
        from optuna.samplers import TPESampler

        number = len(self.study.get_trials(deepcopy=False))
        seed = derive_seed(self.plan.seed, number) % 2**32
        self.study.sampler = TPESampler(seed=seed, constant_liar=True)
        trial = self.study.ask()
        settings: Settings = {}
        for path, values in self.plan.space.items():
            if not isinstance(values, Range):
                word = trial.suggest_categorical(path, [json.dumps(value) for value in values])
                settings[path] = json.loads(word)
            elif values.is_integer:
                low, high = int(values.low), int(values.high)
                settings[path] = trial.suggest_int(path, low, high, log=values.log)
            else:
                settings[path] = trial.suggest_float(path, values.low, values.high, log=values.log)
        return Trial(trial.number, settings, folder_of(self.out, trial.number))

    def _settings(self, frozen: FrozenTrial) -> Settings | None:
        """What a trial changes; `None` of one whose settings are not all there."""
        if set(frozen.params) != set(self.plan.space):
            return None
        settings: Settings = {}
        for path, values in self.plan.space.items():
            value = frozen.params[path]
            settings[path] = value if isinstance(values, Range) else json.loads(value)
        return settings


class KernelLock:
    """The lock of Optuna's journal, which the operating system gives back when a process dies.

    Optuna's own ones are files, which a worker that is killed leaves behind.

    Args:
        path: of the lock file.
    """

    def __init__(self, path: Path):
        self.path = path
        self._file: Any = None

    def acquire(self) -> bool:
        """Wait for it."""
        file = self.path.open("ab")
        with locked(file.fileno()):
            self._file = file
        return True

    def release(self) -> None:
        """Give it back."""
        self._file.close()


def _open_study(name: str, out: Path, storage: str | None) -> Study:
    try:
        import optuna
    except ImportError as error:
        raise ImportError(
            "sweep: expected Optuna, for --optuna, got none. Fix: pip install optuna, or leave --optuna "
            "out: --num=20 draws at random."
        ) from error
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        found: Any = storage
        if storage is None:
            lock: Any = KernelLock(out / f".{JOURNAL}.lock")
            found = JournalStorage(JournalFileBackend(str(out / JOURNAL), lock))
        return optuna.create_study(
            storage=found, study_name=name, direction="minimize", load_if_exists=True
        )
    except (OSError, ImportError, optuna.exceptions.OptunaError, _database_error()) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"storage: expected the URL of a database, got {storage} ({reason}). "
            "Fix: --storage=sqlite:////shared/sweep.db, or postgresql://user:password@host/name."
        ) from error
    finally:
        optuna.logging.set_verbosity(before)


def _database_error() -> type[Exception]:
    """What a database raises that is not there, in whose name or driver there is a mistake."""
    from sqlalchemy.exc import SQLAlchemyError

    return SQLAlchemyError
