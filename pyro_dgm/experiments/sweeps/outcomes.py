"""A trial: an ordinary run directory, and what validation found of it, in `trial.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...files.errors import FileError
from ...files.reading import read_file
from ...files.writing import write_text
from ..runs.layout import METRICS
from ..runs.metrics import read_metrics
from .plan import Settings

OUTCOME = "trial.json"
METRIC_NAMES = ("val_nelbo", "val_njoint", "val_loss")  # the first that a run has, as in training


@dataclass(frozen=True)
class Trial:
    """One trial of a sweep.

    Attributes:
        number: among all.
        settings: what it changes.
        folder: its run directory.
    """

    number: int
    settings: Settings
    folder: Path


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Attributes:
        number: of the trial.
        settings: what it changed.
        metric: by which trials are compared.
        values: of the best epoch by seed; empty where it failed.
        error: why it failed; empty where it did not.
    """

    number: int
    settings: Settings
    metric: str = ""
    values: Mapping[str, float] | None = None
    error: str = ""

    @property
    def value(self) -> float:
        """Mean over the seeds, NaN where the trial failed."""
        return float(np.mean(list(self.values.values()))) if self.values else float("nan")

    @property
    def spread(self) -> float:
        """Standard deviation between seeds, NaN of one."""
        values = list((self.values or {}).values())
        return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def folder_of(out: Path, number: int) -> Path:
    """The run directory of a trial."""
    return out / f"trial-{number:03d}"


def outcome_of(trial: Trial, seeds: Sequence[int]) -> Outcome:
    """What validation found of a trial that has been trained: the best epoch of each seed.

    Args:
        trial: the trial.
        seeds: that are left of it.

    Raises:
        ValueError: if nothing was validated.
    """
    rows = read_metrics(trial.folder / METRICS)
    names = [name for name in METRIC_NAMES if any(name in row for row in rows)]
    if not names:
        raise ValueError(
            f"sweep: expected one of {METRIC_NAMES} in {trial.folder / METRICS}, by which trials are compared, got "
            "none. Fix: an objective with a loss over validation data, such as --objective=pyro_dgm.ELBO."
        )
    values = {}
    for seed in seeds:
        values[str(seed)] = min(row[names[0]] for row in rows if row["seed"] == seed)
    return Outcome(trial.number, trial.settings, names[0], values)


def write_outcome(folder: Path, outcome: Outcome) -> None:
    """Write `trial.json`: from now on the trial is done."""
    write_text(folder / OUTCOME, f"{json.dumps(vars(outcome), indent=1)}\n")


def read_outcome(folder: Path) -> Outcome | None:
    """How a trial ended; `None` where it did not.

    Raises:
        FileError: for a damaged file.
    """
    path = folder / OUTCOME
    if not path.exists():
        return None
    what, fix = "the outcome of a trial", f"rm {path}, and the sweep's command again"
    try:
        found: dict[str, Any] = json.loads(read_file(path, what, fix))
        return Outcome(**found)
    except (ValueError, TypeError) as error:
        if isinstance(error, FileError):
            raise
        raise FileError(path, what, "something else", fix) from None


def read_outcomes(out: Path) -> list[Outcome]:
    """How the trials of a sweep ended so far, by their numbers."""
    found = [read_outcome(folder) for folder in sorted(out.glob("trial-*"))]
    ended = [outcome for outcome in found if outcome is not None]
    return sorted(ended, key=lambda outcome: outcome.number)
