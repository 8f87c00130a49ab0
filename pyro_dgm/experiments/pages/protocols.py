"""What the pages read: a run, as a run directory gives it back, and runs to be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...display.tabular import Tabular
from ..data.datasets import Data

Row = Mapping[str, Any]


class Run(Protocol):
    """One run of one or more seeds, such as `load_run` returns."""

    @property
    def folder(self) -> Path:
        """The run directory."""

    @property
    def data(self) -> Data:
        """The data of the run."""

    @property
    def seeds(self) -> Sequence[int]:
        """A seed for each training."""

    @property
    def pairs(self) -> Sequence[tuple[Any, Any]]:
        """The trained model and guide of each seed."""

    @property
    def history(self) -> Tabular:
        """The metrics of all seeds over the epochs."""

    @property
    def results(self) -> Sequence[Row]:
        """The rows of `results.jsonl`, the oldest first."""


class Comparison(Protocol):
    """Runs on the same test data, the best first, such as `compare_runs` returns; numbers in nats per datum `(R,)`."""

    @property
    def names(self) -> Sequence[str]:
        """Of the runs."""

    @property
    def runs(self) -> Mapping[str, Run]:
        """Name → run."""

    @property
    def nll(self) -> NDArray[np.float64]:
        """Means over seeds and data."""

    @property
    def stderr(self) -> NDArray[np.float64]:
        """Of the NLL over the data."""

    @property
    def between_seeds(self) -> NDArray[np.float64]:
        """Standard deviation of the NLL between seeds; NaN for one seed."""

    @property
    def difference(self) -> NDArray[np.float64]:
        """NLL less that of the best run, paired over the data."""

    @property
    def difference_stderr(self) -> NDArray[np.float64]:
        """Of data, and of the seeds of both runs where each has two or more."""

    @property
    def slack(self) -> NDArray[np.float64]:
        """How far the bound is estimated to lie above −log p where k-hat is low."""

    @property
    def unreliable(self) -> NDArray[np.float64]:
        """Share of the data whose k-hat is above its threshold."""

    @property
    def num_seeds(self) -> NDArray[np.int64]:
        """Of each run."""

    def elpd(self) -> Any:
        """The table of `az.compare`."""
