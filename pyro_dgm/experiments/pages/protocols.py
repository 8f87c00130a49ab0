"""What the pages read: a run, as a run directory gives it back, and runs to be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray
from torch import nn

from ...tabular import Tabular
from ..data.datasets import Data

Row = Mapping[str, Any]


class Run(Protocol):
    """One run of one or more seeds, such as `load_run` returns."""

    @property
    def folder(self) -> Path:
        """The run directory."""

    @property
    def config(self) -> Mapping[str, Any]:
        """What repeats the run."""

    @property
    def data(self) -> Data:
        """The data of the run."""

    @property
    def seeds(self) -> Sequence[int]:
        """A seed for each training."""

    @property
    def pairs(self) -> Sequence[tuple[nn.Module, nn.Module]]:
        """The trained model and guide of each seed."""

    @property
    def history(self) -> Tabular:
        """The metrics of all seeds over the epochs."""

    @property
    def results(self) -> Sequence[Row]:
        """The rows of `results.jsonl`, the oldest first."""

    @property
    def per_datum(self) -> Mapping[int, Mapping[str, NDArray[Any]]]:
        """Seed → `nll` and `nll_stderr` of the test data, each `(N,)`."""


class Comparison(Protocol):
    """Runs of the same data."""

    @property
    def runs(self) -> Mapping[str, Run]:
        """Name → run."""
