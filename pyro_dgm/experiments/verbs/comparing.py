"""Runs side by side on the same test data: likelihoods, spread between seeds, paired differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...arviz_export.comparison import compare_elpd
from ...display.tabular import Tabular
from ...evaluation.likelihood.psis import khat_threshold
from ...evaluation.likelihood.results import NLL
from ...inference.sites.measure_checks import require_one_measure
from ..data.fingerprints import fingerprint
from ..runs.run import Run, load_run

if TYPE_CHECKING:
    import pandas

LOOSE = 0.2  # share of the data with a high k-hat from which bounds are not compared without a word


@dataclass(frozen=True)
class RunComparison(Tabular):
    r"""Likelihoods of several runs on the same test data, the best first, in nats per datum.

    Of a run with seeds s, $\bar\ell_i = \frac1S \sum_s \ell_{si}$ is the mean of −log p(x_i) over its seeds.

    Attributes:
        names: of the runs.
        nll: $\frac1N \sum_i \bar\ell_i$ `(R,)`, each an upper bound in expectation unless `kind` says exact.
        stderr: its standard error over the test data `(R,)`, which all runs share.
        between_seeds: standard deviation of the NLL between seeds `(R,)`; NaN for one seed.
        difference: NLL minus that of the best run, paired over the data `(R,)`.
        difference_stderr: its standard error `(R,)`: over data, and over the seeds of both runs where each has two or
            more.
        slack: how far the bound is estimated to lie above −log p, $\frac12$ `monte_carlo`² on average `(R,)`, over the
            data whose k-hat is below its threshold.
        unreliable: share of the data whose k-hat is above it `(R,)`: their slack is not known, and may be large.
        num_seeds: of each run `(R,)`.
        kinds: what sort of bound each is.
        scores: the likelihoods of each run by seed.
        runs: the runs by name, for their page.
    """

    names: list[str]
    nll: NDArray[np.float64]
    stderr: NDArray[np.float64]
    between_seeds: NDArray[np.float64]
    difference: NDArray[np.float64]
    difference_stderr: NDArray[np.float64]
    slack: NDArray[np.float64]
    unreliable: NDArray[np.float64]
    num_seeds: NDArray[np.int64]
    kinds: list[str]
    scores: Mapping[str, Mapping[int, NLL]]
    runs: Mapping[str, Run]

    def columns(self) -> Mapping[str, Any]:
        """A row for each run."""
        found: dict[str, Any] = {"run": np.asarray(self.names, object)}
        for name in (
            "nll",
            "stderr",
            "between_seeds",
            "difference",
            "difference_stderr",
            "slack",
            "unreliable",
            "num_seeds",
        ):
            found[name] = getattr(self, name)
        return found | {"kind": np.asarray(self.kinds, object)}

    def elpd(self) -> pandas.DataFrame:
        """The table of `az.compare` on the first seed of each run; see `dgm.compare_elpd`."""
        first = {name: next(iter(scores.values())) for name, scores in self.scores.items()}
        return compare_elpd(first)

    def __str__(self) -> str:
        width = max(len(name) for name in self.names) + 2
        lines = [
            f"{'run':<{width}}{'NLL':>9} ± {'se':<7}{'sd of seeds':>12}{'difference':>12} ± {'se':<8}"
            f"{'slack':>7}{'high k-hat':>12}{'seeds':>7}"
        ]
        for row, name in enumerate(self.names):
            lines.append(
                f"{name:<{width}}{self.nll[row]:>9.3f} ± {self.stderr[row]:<7.3f}"
                f"{_or_dash(self.between_seeds[row]):>12}{_difference(self, row)}"
                f"{_or_dash(self.slack[row]):>7}{self.unreliable[row]:>12.0%}{self.num_seeds[row]:>7}"
            )
        return "\n".join([*lines, "", "nats per datum, lower is better; " + _verdict(self)])


def compare(
    *runs: str | Path | Run,
    trust: Sequence[str] = (),
) -> RunComparison:
    """Runs side by side on the same test data: NLL ± its error, spread between seeds, paired differences.

    Args:
        runs: run directories, or what `dgm.load_run` read; each has been evaluated on the same test data.
        trust: modules of your own that their configurations name.

    Raises:
        ValueError: for fewer than two runs, runs of other data or of another number of test data, runs without a
            likelihood, likelihoods of different measures (a mass beside a density).
        FileError: for what is no run.
    """
    loaded = [run if isinstance(run, Run) else load_run(run, trust) for run in runs]
    by_name = dict(zip(_names(loaded), loaded, strict=True))
    scores = {name: _scores(run) for name, run in by_name.items()}
    _check(by_name, scores)
    means = {name: _mean_over_seeds(own.values()) for name, own in scores.items()}
    names = sorted(means, key=lambda name: float(means[name].mean()))
    found = [
        _compared(scores[name], means[name], scores[names[0]], means[names[0]]) for name in names
    ]
    return RunComparison(
        names,
        **{key: np.array([row[key] for row in found]) for key in found[0]},
        kinds=[str(next(iter(scores[name].values())).kind) for name in names],
        scores={name: scores[name] for name in names},
        runs={name: by_name[name] for name in names},
    )


def _compared(
    scores: Mapping[int, NLL],
    mean: NDArray[Any],
    best_scores: Mapping[int, NLL],
    best: NDArray[Any],
) -> dict[str, float]:
    """One row: figures of a run, and what tells it from the best one."""
    of_seeds = np.array([score.mean for score in scores.values()])
    difference = mean - best
    variance = difference.var(ddof=1) / len(difference)
    if min(len(scores), len(best_scores)) > 1:
        of_best = np.array([score.mean for score in best_scores.values()])
        variance += of_seeds.var(ddof=1) / len(of_seeds) + of_best.var(ddof=1) / len(of_best)
    is_best = mean is best
    monte_carlo = np.concatenate([score.monte_carlo.numpy() for score in scores.values()])
    known = monte_carlo[np.isfinite(monte_carlo)]
    return {
        "nll": float(mean.mean()),
        "stderr": float(mean.std(ddof=1)) / sqrt(len(mean)),
        "between_seeds": float(of_seeds.std(ddof=1)) if len(of_seeds) > 1 else float("nan"),
        "difference": float(difference.mean()),
        "difference_stderr": 0.0 if is_best else sqrt(variance),
        "slack": float((known**2 / 2).mean()) if len(known) else float("nan"),
        "unreliable": float(np.mean([_share_unreliable(score) for score in scores.values()])),
        "num_seeds": len(scores),
    }


def _share_unreliable(score: NLL) -> float:
    return float((score.khat > khat_threshold(score.num)).double().mean())


def _mean_over_seeds(scores: Any) -> NDArray[np.float64]:
    return np.mean([score.per_datum.numpy() for score in scores], 0)


def _scores(run: Run) -> dict[int, NLL]:
    """The likelihoods of a run, all from an evaluation of the same kind."""
    found = run.scores
    if not found:
        raise ValueError(
            f"compare: expected runs with a likelihood, got none in {run.folder}. "
            f"Fix: pyro-dgm evaluate {run.folder}, for a model with a guide."
        )
    return found


def _names(runs: Sequence[Run]) -> list[str]:
    """The last parts of their paths that tell them apart."""
    if len({run.folder.resolve() for run in runs}) < max(2, len(runs)):
        raise ValueError(
            f"compare: expected two or more runs, each once, got {[str(run.folder) for run in runs]}. "
            "Fix: pyro-dgm compare runs/a runs/b."
        )
    short = [run.folder.resolve().name for run in runs]
    return short if len(set(short)) == len(short) else [str(run.folder) for run in runs]


def _check(runs: Mapping[str, Run], scores: Mapping[str, Mapping[int, NLL]]) -> None:
    prints = {name: fingerprint(run.data)[:12] for name, run in runs.items()}
    if len(set(prints.values())) > 1:
        raise ValueError(
            f"compare: expected runs on the same data, got data with fingerprints {prints}. "
            "Fix: fit them with the same --data flags."
        )
    nums = {n: sorted({len(s.per_datum) for s in own.values()}) for n, own in scores.items()}
    if len({num for own in nums.values() for num in own}) > 1:
        raise ValueError(
            f"compare: expected runs that were evaluated on the same test data, got {nums} of them. "
            f"Fix: pyro-dgm evaluate RUN, for each of {list(nums)}."
        )
    measures = {name: next(iter(own.values())).measure for name, own in scores.items()}
    require_one_measure("compare", measures)


def _verdict(found: RunComparison) -> str:
    """Whether the best run is told from the second."""
    if found.difference[1] > 2 * found.difference_stderr[1]:
        text = (
            f"'{found.names[0]}' is better than '{found.names[1]}' by more than two standard errors"
        )
    else:
        text = (
            f"'{found.names[0]}' and '{found.names[1]}' are not told apart: their difference is within two "
            "standard errors"
        )
    if min(found.num_seeds[:2]) < 2:
        text += " (of the data alone: one seed says nothing of the spread between seeds)"
    loosest = float(found.unreliable[:2].max())
    if loosest > LOOSE:
        text += (
            f". For {loosest:.0%} of the data k-hat is high: these bounds may be loose by more than the slack, and not "
            "equally in both runs; more draws (pyro-dgm evaluate RUN --num=10000) or AIS tell"
        )
    return text + "."


def _difference(found: RunComparison, row: int) -> str:
    if row == 0:
        return f"{'best':>12}   {'':<8}"
    return f"{found.difference[row]:>12.3f} ± {found.difference_stderr[row]:<8.3f}"


def _or_dash(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3f}"
