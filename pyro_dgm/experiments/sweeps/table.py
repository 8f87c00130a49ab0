"""The trials of a sweep as a table, the best by validation first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...display.tabular import Tabular
from ...files.records import read_records
from ..runs.layout import CONFIG, RESULTS
from .outcomes import Outcome, folder_of, read_outcomes
from .plan import Settings

NUM_SHOWN = 20


@dataclass(frozen=True)
class Sweep(Tabular):
    """Trials of a sweep that have ended, the best by validation first, those that failed last.

    The validation metric of a trial is that of its best epoch, a mean over its seeds. It chose among epochs and among
    trials, so that of the best trial flatters; the test data of the best are scored once, after the choice.

    Attributes:
        folder: of the sweep.
        num: trials in all.
        metric: by which they are compared; lower is better.
        trials: their numbers `(T,)`.
        settings: what each changes.
        value: its metric `(T,)`, NaN where it failed.
        between_seeds: standard deviation of the metric between its seeds `(T,)`, NaN for one.
        nll: −log p of the test data, mean over the seeds, in nats per datum `(T,)`; NaN where they were not scored.
        nll_stderr: its standard error within a run `(T,)`.
        errors: why a trial failed, by its number.
    """

    folder: Path
    num: int
    metric: str
    trials: NDArray[np.int64]
    settings: list[Settings]
    value: NDArray[np.float64]
    between_seeds: NDArray[np.float64]
    nll: NDArray[np.float64]
    nll_stderr: NDArray[np.float64]
    errors: Mapping[int, str]

    @property
    def folders(self) -> list[Path]:
        """The run directory of each trial, for `dgm.load_run`."""
        return [folder_of(self.folder, int(number)) for number in self.trials]

    @property
    def best(self) -> Path:
        """The run directory of the best trial.

        Raises:
            ValueError: if no trial has ended well.
        """
        if not len(self.value) or np.isnan(self.value[0]):
            raise ValueError(
                f"sweep: expected a trial that has ended, got none in {self.folder}. "
                "Fix: the sweep's command again, which goes on."
            )
        return self.folders[0]

    @property
    def is_complete(self) -> bool:
        """Whether every trial has ended."""
        return len(self.trials) >= self.num

    def columns(self) -> Mapping[str, Any]:
        """A row for each trial."""
        found: dict[str, Any] = {"trial": self.trials}
        for path in self.settings[0] if self.settings else ():
            cells = np.empty(len(self.settings), object)
            cells[:] = [own[path] for own in self.settings]
            found[path] = cells
        found |= {self.metric: self.value, "between_seeds": self.between_seeds}
        found |= {"nll": self.nll, "nll_stderr": self.nll_stderr}
        return found | {"folder": np.asarray([str(folder) for folder in self.folders], object)}

    def __str__(self) -> str:
        rows = [self._head(), *[self._row(place) for place in range(len(self.trials))]]
        widths = [max(map(len, column)) for column in zip(*rows[: NUM_SHOWN + 1], strict=True)]
        lines = []
        for row in rows[: NUM_SHOWN + 1]:
            cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
            lines.append("  ".join(cells))
        if len(rows) > len(lines):
            lines.append(f"… and {len(rows) - len(lines)} more")
        return "\n".join([*lines, "", *self._notes()])

    def _head(self) -> list[str]:
        paths = list(self.settings[0]) if self.settings else []
        return ["trial", *paths, self.metric, "sd of seeds", "test NLL ± se"]

    def _row(self, place: int) -> list[str]:
        settings = [_shown(value) for value in self.settings[place].values()]
        nll = "–"
        if not np.isnan(self.nll[place]):
            nll = f"{self.nll[place]:.3f} ± {self.nll_stderr[place]:.3f}"
        value = "failed" if np.isnan(self.value[place]) else f"{self.value[place]:.3f}"
        spread = self.between_seeds[place]
        sd = "–" if np.isnan(spread) else f"{spread:.3f}"
        return [str(self.trials[place]), *settings, value, sd, nll]

    def _notes(self) -> list[str]:
        """What is to be known beside the rows: failures, what is open, and the best."""
        notes = [f"trial-{number:03d} failed: {error}" for number, error in self.errors.items()]
        if not self.is_complete:
            notes.append(
                f"{self.num - len(self.trials)} of {self.num} trials have not ended: other workers have them, or the "
                "same command goes on with them."
            )
        if len(self.value) and not np.isnan(self.value[0]):
            notes.append(
                f"Best by {self.metric} (nats per datum, lower is better): {self.best}\n"
                f"Train it anew: pyro-dgm fit {self.best / CONFIG} --seeds=5 --out=NEW"
            )
        return notes


def read_sweep(out: Path, num: int) -> Sweep:
    """The trials of a folder that have ended.

    Args:
        out: the folder.
        num: trials in all.

    Raises:
        FileError: for damaged files.
    """
    outcomes = sorted(read_outcomes(out), key=_rank)
    likelihoods = [_likelihood(out, outcome) for outcome in outcomes]
    return Sweep(
        folder=out,
        num=num,
        metric=next((outcome.metric for outcome in outcomes if outcome.metric), "val_nelbo"),
        trials=np.array([outcome.number for outcome in outcomes], np.int64),
        settings=[outcome.settings for outcome in outcomes],
        value=np.array([outcome.value for outcome in outcomes]),
        between_seeds=np.array([outcome.spread for outcome in outcomes]),
        nll=np.array([found[0] for found in likelihoods]),
        nll_stderr=np.array([found[1] for found in likelihoods]),
        errors={outcome.number: outcome.error for outcome in outcomes if outcome.error},
    )


def _rank(outcome: Outcome) -> tuple[bool, float, int]:
    failed = np.isnan(outcome.value)
    return bool(failed), 0.0 if failed else outcome.value, outcome.number


def _likelihood(out: Path, outcome: Outcome) -> tuple[float, float]:
    """The last test NLL of each seed and its error, as means over the seeds; NaN where there is none."""
    rows = {}
    for row in read_records(folder_of(out, outcome.number) / RESULTS):
        if "nll" in row:
            rows[row["seed"]] = row
    if not rows:
        return float("nan"), float("nan")
    nll = [row["nll"] for row in rows.values()]
    return float(np.mean(nll)), float(np.mean([row["nll_stderr"] for row in rows.values()]))


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
