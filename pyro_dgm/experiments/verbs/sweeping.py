"""Train one experiment under many settings, by as many workers as share a folder, and find the best by validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...display.progress import bars
from ...files.errors import OwnedError
from ...files.locking import make_folder, owned
from ...files.stamps import digest_of
from ...inference.process.distributed import rank_and_world
from ...inference.process.numbers import check_count
from ..configuration.arguments import Source, flags_of
from ..configuration.wording import in_one_line
from ..runs.layout import POSTERIOR
from ..runs.processes import find_device
from ..runs.run import load_run
from ..sweeps.declaration import Declaration
from ..sweeps.outcomes import Outcome, Trial, outcome_of, write_outcome
from ..sweeps.plan import Plan, agree
from ..sweeps.ranges import read_space
from ..sweeps.search import PlannedSearch, Search, next_trial
from ..sweeps.table import Sweep, read_sweep
from .fitting import conclude, run_experiment

Say = Callable[[str], None]


def sweep(
    experiment: Source = None,
    *,
    over: Mapping[str, Any],
    num: int | None = None,
    optuna: bool = False,
    storage: str | None = None,
    evaluate_best: int = 1,
    seed: int = 0,
    out: str | Path | None = None,
    device: str | None = None,
    trust: Sequence[str] = (),
    progress: bool = True,
    say: Say = lambda line: None,
    **settings: Any,
) -> Sweep:
    r"""Train an experiment under many settings, and compare them by validation.

    Every trial is a run directory `OUT/trial-000`, …, for `dgm.load_run`, `resume` and `evaluate`. Trials are compared
    by the validation metric of their best epoch, a mean over the experiment's seeds, and never by test data: those are
    scored once the choice is made, of the best trial alone.

    A worker is this very call. Workers on one or many machines share `out` and need no number: each takes the next
    trial that nobody has, by the lock of its directory. What a killed one had begun is resumed from its last epoch.
    The lock of a worker that was killed on another machine stays: its trial counts as not ended until its `.lock` is
    removed.

    Args:
        experiment: a name of the catalogue, a YAML file, or what one would hold as a mapping.
        over: setting → what it is searched over: a list, or a range: `{"model.latent": [4, 8], "trainer.lr":
            "1e-4..1e-2:log"}`. Lists alone are every combination.
        num: trials to draw at random, or by Optuna; needed for ranges. A larger number goes on with a sweep.
        optuna: whether Optuna chooses each trial by those before (`pip install optuna`); no epoch of a
            trial is cut.
        storage: URL of Optuna's database; default: a journal in `out`.
        evaluate_best: so many of the best trials are scored on the test data, once all have ended; 0 for none.
        seed: of the draws of trials; those of training are the experiment's `seeds`.
        out: folder of the sweep; default: a new one under `runs/`. A folder that holds this sweep is gone on with.
        device: as in `fit`.
        trust: modules of your own that the experiment names.
        progress: whether to show bars.
        say: told in a line what is going on.
        settings: what is changed in the experiment for all trials.

    Returns:
        The trials that have ended, also those of other workers.

    Raises:
        ValueError: for a setting or a value that is none, before the first trial; if every trial fails. One that fails
            alone is noted, and the others go on.
        FileError: for a folder that holds another sweep; for a full disk.
        ImportError: for `optuna` without Optuna.

    Example:
        Eight workers of a Slurm array, and as many of Ray::

            sbatch --array=0-7 --wrap "pyro-dgm sweep digits --over.model.latent=4,8,16 --out=runs/sweep"

            worker = ray.remote(dgm.runs.sweep)
            ray.get([worker.remote("digits", over=over, out="/shared/sweep") for _ in range(8)])
    """
    flags = flags_of(settings)
    return run_sweep(
        experiment,
        flags,
        trust,
        over=over,
        num=num,
        optuna=optuna,
        storage=storage,
        evaluate_best=evaluate_best,
        seed=seed,
        out=out,
        device=device,
        progress=progress,
        say=say,
    )


def run_sweep(
    source: Source,
    flags: Sequence[str],
    trust: Sequence[str],
    *,
    over: Mapping[str, Any],
    num: int | None = None,
    optuna: bool = False,
    storage: str | None = None,
    evaluate_best: int = 1,
    seed: int = 0,
    out: str | Path | None = None,
    device: str | None = None,
    progress: bool = True,
    say: Say = lambda line: None,
) -> Sweep:
    """`sweep` of an experiment that flags change."""
    check_count("sweep", "evaluate_best", evaluate_best, least=0, fix="--evaluate_best=1")
    _refuse_ranks()
    if storage is not None and not optuna:
        raise ValueError(
            f"storage: expected a database for Optuna, got {storage} without it. Fix: --optuna --num=20."
        )
    declared = Declaration.of(source, flags, trust)
    space = read_space(over)
    database = "" if storage is None else digest_of(storage.encode())
    plan = Plan(declared.base.dump(), space, num, seed, optuna, database)
    declared.check(space)
    find_device(device)
    folder = _folder(out)
    plan = agree(plan, folder)
    search = _search(plan, folder, storage)
    work = Work(declared, find_device(device), progress, say)
    try:
        _work(search, work, folder)
        found = read_sweep(folder, search.num)
        _refuse_failures(found)
        if found.is_complete:
            _conclude(found, evaluate_best, work)
    except KeyboardInterrupt as stop:
        stop.args = (f"Go on: the same command with --out={folder}",)
        raise
    return read_sweep(folder, search.num)


@dataclass(frozen=True)
class Work:
    """What a worker does with a trial.

    Attributes:
        declared: the experiment.
        device: where.
        progress: whether to show bars.
        say: told in a line what is going on.
    """

    declared: Declaration
    device: torch.device
    progress: bool
    say: Say

    def __call__(self, trial: Trial) -> Outcome:
        """Train a trial, or go on with it; what it raises is its outcome, but not a file that can't be written."""
        try:
            experiment = self.declared.trial(trial.settings)
            run = run_experiment(
                experiment,
                nullcontext(trial.folder),
                self.device,
                resume=True,
                progress=self.progress,
                concludes=False,
            )
            lost = sorted(set(experiment.seeds) - set(run.seeds))
            if lost:
                raise ValueError(f"seeds {lost} ended with numbers that are not finite")
            return outcome_of(trial, run.seeds)
        except OSError:
            raise
        except (ValueError, RuntimeError, TypeError, IndexError) as error:
            said = in_one_line(str(error))
            return Outcome(trial.number, trial.settings, error=said or type(error).__name__)


def _work(search: Search, work: Work, folder: Path) -> None:
    """Take one trial after the other until none is open."""
    while True:
        with next_trial(search) as trial:
            if trial is None:
                return
            told = ", ".join(f"{path}={value}" for path, value in trial.settings.items())
            work.say(f"{trial.folder.name} of {search.num}: {told}")
            outcome = work(trial)
            write_outcome(trial.folder, outcome)
        search.tell(outcome)
        found = outcome.error or f"{outcome.metric} {outcome.value:.3f}"
        work.say(f"{trial.folder.name}: {found}")


def _conclude(found: Sweep, num: int, work: Work) -> None:
    """Score the test data of the best trials, once: a worker that finds another one at it leaves it to that."""
    num_good = int(np.isfinite(found.value).sum())  # they come first
    for folder in found.folders[: min(num, num_good)]:
        try:
            with owned(folder), bars(shown=work.progress):
                run = load_run(folder, work.declared.base.trust, work.device)
                if len(run.own_results) < len(run.seeds) or not (folder / POSTERIOR).exists():
                    conclude(run)
        except OwnedError:
            work.say(f"{folder.name}: another process scores its test data")


def _search(plan: Plan, folder: Path, storage: str | None) -> Search:
    if not plan.is_adaptive:
        return PlannedSearch(plan, folder)
    from ..sweeps.optuna_search import OptunaSearch  # an optional extra

    return OptunaSearch(plan, folder, storage)


def _folder(out: str | Path | None) -> Path:
    if out is not None:
        return Path(out)
    return make_folder(Path(datetime.now().strftime("runs/sweep-%Y%m%d-%H%M%S")))


def _refuse_ranks() -> None:
    if rank_and_world()[1] > 1:
        raise ValueError(
            f"sweep: expected workers that are started one by one, got {rank_and_world()[1]} ranks of torchrun. "
            "Fix: the same command several times, with the same --out, without torchrun."
        )


def _refuse_failures(found: Sweep) -> None:
    """An error that every trial has is none of the trials."""
    if found.is_complete and len(found.errors) == len(found.trials):
        number, error = next(iter(found.errors.items()))
        raise ValueError(
            f"sweep: expected a trial that ends well, got {len(found.errors)} that fail, trial-{number:03d} by: {error}"
        )
