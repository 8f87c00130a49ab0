"""Train every seed of an experiment, evaluate it on held-out data, and write a run directory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from ...display.progress import bars, watched
from ...files.manifest import Manifest
from ..configuration.arguments import Source, flags_of, read_experiment
from ..configuration.experiment import Experiment
from ..configuration.modules import folders_of
from ..configuration.reading import read_run_config
from ..configuration.stored import find_modules
from ..runs.environment import environment_of, to_json
from ..runs.folders import begun_run, new_run
from ..runs.layout import CHECKPOINTS, CONFIG, ENVIRONMENT
from ..runs.loggers import Logger, Loggers
from ..runs.pictures import draw_pictures
from ..runs.processes import claimed, find_device, on_rank_zero, rank_zero_first
from ..runs.results import Results
from ..runs.run import Run
from ..runs.training import Seeds


def fit(
    experiment: Source = None,
    *,
    out: str | Path | None = None,
    device: str | None = None,
    trust: Sequence[str] = (),
    loggers: Sequence[Logger] = (),
    progress: bool = True,
    **settings: Any,
) -> Run:
    """Train every seed of an experiment, evaluate it on held-out data and write a run directory.

    Args:
        experiment: a name of the catalogue (`dgm.runs.recipes()`), a YAML file, or what one would hold as a mapping;
            default: the digits.
        out: run directory; default: one under `runs/` by the time.
        device: default: the GPU if there is one, under torchrun that of each process.
        trust: modules of your own that the experiment names, such as `["mymodel"]`.
        loggers: are told of steps and epochs, beside those that the experiment names.
        progress: whether to show bars.
        settings: what is changed in it, as in its file: `epochs=3, seeds=5, model={"latent": 8}`.

    Returns:
        The run, as `dgm.load_run(folder)` reads it.

    Raises:
        ValueError: for a setting that is none, with its path, what was expected, and what helps; and as
            `SVITrainer.fit`.
        FileError: for a directory that holds a run or is another's, for a full disk, for damaged files.
    """
    said = read_experiment(experiment, flags_of(settings), trust)
    return run_experiment(
        said, new_run(out), find_device(device), loggers=loggers, progress=progress
    )


def resume(
    run: str | Path,
    *,
    epochs: int | None = None,
    device: str | None = None,
    trust: Sequence[str] = (),
    loggers: Sequence[Logger] = (),
    progress: bool = True,
) -> Run:
    """Go on with a run that was stopped, from the checkpoints of its seeds, to the same end as if it had not been.

    Args:
        run: the run directory.
        epochs: epochs in all, if they shall be more than it was started with.
        device: as in `fit`.
        trust: modules of your own that its configuration names.
        loggers: are told of steps and epochs, beside those that the run names.
        progress: whether to show bars.

    Raises:
        ValueError: for fewer epochs than it has.
        FileError: if it is no run, is another's, or has damaged files.
    """
    folder = Path(run)
    changed = [] if epochs is None else [f"--epochs={epochs}"]
    with begun_run(folder):
        pass  # that it is one, and nobody else's, is said before its configuration is read
    find_modules(folder, trust)
    said = read_experiment(read_run_config(folder), changed, trust)
    return run_experiment(
        said,
        begun_run(folder),
        find_device(device),
        resume=True,
        progress=progress,
        loggers=loggers,
    )


def run_experiment(
    experiment: Experiment,
    claim: AbstractContextManager[Path],
    device: torch.device,
    *,
    resume: bool = False,
    progress: bool = True,
    loggers: Sequence[Logger] = (),
    say: Callable[[str], None] = lambda line: None,
    concludes: bool = True,
) -> Run:
    """Train, evaluate and write, in a directory that this process owns meanwhile.

    Args:
        experiment: what is done.
        claim: the directory.
        device: where.
        resume: go on from the checkpoints that there are.
        progress: whether to show bars.
        loggers: are told of steps and epochs, beside its own.
        say: told in a line what is going on.
        concludes: whether the test data are scored and described at the end.
    """
    with claimed(claim) as folder, bars(shown=progress):
        try:
            told = Loggers([*experiment.loggers, *loggers])
            run = _train(experiment, folder, device, told, say, resume=resume, progress=progress)
            if concludes:
                conclude(run)
            with on_rank_zero() as is_telling:
                if is_telling:
                    told.end(run.own_results)
            return run
        except KeyboardInterrupt as stop:
            has_begun = any((folder / CHECKPOINTS).glob("seed-*"))
            how = f"pyro-dgm resume {folder}" if has_begun else "the same command again"
            stop.args = (f"Go on: {how}",)
            raise


def _train(
    experiment: Experiment,
    folder: Path,
    device: torch.device,
    loggers: Loggers,
    say: Callable[[str], None],
    *,
    resume: bool,
    progress: bool,
) -> Run:
    for line in rank_zero_first(lambda: experiment.data).said:
        say(line)
    seeds = Seeds(experiment, folder, device, loggers)
    seeds.check()
    with on_rank_zero() as is_writing:
        if is_writing:
            _describe(experiment, folder, device)
            loggers.begin(folder, yaml.safe_load(experiment.dump()))
    seeds.train(resume=resume, progress=progress)
    trained = {s: p for s, p in seeds.programs.items() if s not in seeds.errors}
    run = Run(folder, experiment, trained, device)
    with on_rank_zero() as is_writing:
        if is_writing:
            run.save_weights()
    return run


def conclude(run: Run) -> None:
    """Score the test data under every seed of a run that has been trained, and describe the run."""
    seconds = np.nansum(run.history["seconds"], axis=1).tolist()
    timed = zip(run.seeds, seconds, strict=True)
    for seed, of_training in watched(timed, len(run.seeds), "seed", "evaluate"):
        score(run, seed, command="fit", more=partial(dict, seconds=of_training))
    with on_rank_zero() as is_writing:
        if is_writing:
            draw_pictures(run)
            run.describe()


def score(
    run: Run,
    seed: int,
    *,
    command: str,
    noise: int | None = None,
    asked: Mapping[str, Any] | None = None,
    more: Callable[[], Results] = dict,
) -> Results:
    """Evaluate one seed of a run and record it, unless these weights have been before in the same way.

    Args:
        run: the run.
        seed: which of its seeds.
        command: which verb asks.
        noise: seed of the draws; default: that of the run.
        asked: what else was asked for, by name.
        more: gives further figures of the row.
    """
    evaluation = run.experiment.evaluation
    how: dict[str, Any] = {
        "command": command,
        "seed": seed,
        "num": evaluation.num,
        "limit": evaluation.limit,
        "noise": seed if noise is None else noise,
        **(asked or {}),
    }
    before = run.recorded(**how)
    if before is not None:
        return before
    results, each = run.evaluate(evaluation, seed, how["noise"])
    results |= more()
    with on_rank_zero() as is_writing:
        if is_writing:
            return run.record(results, each, **how)
    return results


def _describe(experiment: Experiment, folder: Path, device: torch.device) -> None:
    manifest = Manifest(folder)
    manifest.write(CONFIG, experiment.dump().encode())
    environment = environment_of(experiment.data, device, folders_of(experiment.trust))
    manifest.write(ENVIRONMENT, to_json(environment))
