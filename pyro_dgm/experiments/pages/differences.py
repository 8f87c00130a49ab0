"""Differences between runs, each with the three things that may make it up: data, seeds, and slack of a bound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import hypot, sqrt

import numpy as np
import torch

from ...evaluation.likelihood.results import GivenNLL
from ...evaluation.report.findings import Skipped
from ...inference.sites.measures import Measure
from ..plots.comparisons import SIGNIFICANT, paired_differences
from .protocols import Run
from .tables import require_rows, spread_of


@dataclass(frozen=True)
class Difference:
    r"""A run's mean NLL less that of the best run, nats per datum.

    Attributes:
        name: of the run.
        best: of the best run.
        value: the difference.
        stderr: of it over the data, paired.
        stderr_of_seeds: $\sqrt{s_a^2 / S_a + s_b^2 / S_b}$ of the sd between S seeds; NaN where a run has one seed.
        slack: $\frac1N \sum_i \mathrm{se}_i^2 / 2$, by how much the NLL of the run is too high, to first order.
    """

    name: str
    best: str
    value: float
    stderr: float
    stderr_of_seeds: float
    slack: float

    @property
    def is_significant(self) -> bool:
        """Whether it exceeds two standard errors of data and seeds together; never with one seed."""
        return self.value > SIGNIFICANT * hypot(self.stderr, self.stderr_of_seeds)

    @property
    def verdict(self) -> str:
        """The same in a word."""
        if self.stderr_of_seeds != self.stderr_of_seeds:
            return "unknown: one seed"
        return "yes" if self.is_significant else "no"


def differences_of(runs: Mapping[str, Run]) -> list[Difference]:
    """Every run but the best, against it.

    Raises:
        Skipped: for a run without an evaluation.
        ValueError: for runs on other data, or figures of other kinds.
    """
    found = paired_differences(figures_of(runs))
    differences = []
    for name, value, stderr in zip(found.names, found.value, found.stderr, strict=True):
        of_seeds = hypot(_stderr_of_seeds(runs[name]), _stderr_of_seeds(runs[found.best]))
        difference = Difference(name, found.best, value, stderr, of_seeds, _slack(runs[name]))
        differences.append(difference)
    return differences


def figures_of(runs: Mapping[str, Run]) -> dict[str, GivenNLL]:
    """The NLL of every test datum, mean over the seeds of each run.

    Raises:
        Skipped: for a run without an evaluation.
    """
    return {name: _figure_of(name, run) for name, run in runs.items()}


def _figure_of(name: str, run: Run) -> GivenNLL:
    row = require_rows(run)[0]
    if not run.per_datum:
        raise Skipped(f"run {name} has no NLL per datum. Fix: pyro-dgm evaluate {run.folder}")
    nats = [np.asarray(arrays["nll"], float) for arrays in run.per_datum.values()]
    counts = {seed: len(own) for seed, own in zip(run.per_datum, nats, strict=True)}
    if len(set(counts.values())) > 1:
        raise Skipped(
            f"the seeds of run {name} were evaluated on other numbers of data, {counts}. "
            f"Fix: pyro-dgm evaluate {run.folder}"
        )
    kind = row.get("nll_kind", "exact")
    measure = Measure(row.get("nll_measure", Measure.UNSTATED.value))
    return GivenNLL(torch.from_numpy(np.mean(nats, 0)), kind, measure)


def _stderr_of_seeds(run: Run) -> float:
    nll = spread_of(require_rows(run), "nll")
    assert nll is not None
    return nll.sd / sqrt(nll.num)


def _slack(run: Run) -> float:
    """Mean over seeds and data of se² / 2, where there is an error at all; NaN where there is none."""
    errors = [np.asarray(arrays["nll_stderr"], float) for arrays in run.per_datum.values()]
    variances = np.concatenate(errors) ** 2
    finite = variances[np.isfinite(variances)]
    return float(finite.mean()) / 2 if len(finite) else float("nan")
