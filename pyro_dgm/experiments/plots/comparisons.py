"""Runs side by side: the spread between their seeds, and differences paired over the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ...evaluation.likelihood.results import PerDatum
from ...inference.sites.measure_checks import require_one_kind, require_one_measure
from ...tabular import Tabular
from .canvas import BLUE, GREY, INK, axes_or_new, set_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIGNIFICANT = 2.0  # standard errors


@dataclass(frozen=True)
class PairedDifferences(Tabular):
    r"""Means over the data of $-\log p(x_i) + \log p_0(x_i)$: each run's NLL less that of the best, nats per datum.

    Attributes:
        best: the run with the smallest NLL.
        names: of the others.
        value: the differences, positive.
        stderr: their standard errors, of the spread of the paired differences over the data.
        num_data: number N of data.
    """

    best: str
    names: tuple[str, ...]
    value: tuple[float, ...]
    stderr: tuple[float, ...]
    num_data: int

    def columns(self) -> dict[str, list[Any]]:
        """One row for each run but the best, in nats per datum."""
        return {
            "run": list(self.names),
            "difference": list(self.value),
            "stderr": list(self.stderr),
        }

    def __str__(self) -> str:
        lines = [f"NLL less that of {self.best}, nats per datum, paired over {self.num_data} data"]
        for name, value, stderr in zip(self.names, self.value, self.stderr, strict=True):
            lines.append(f"  {name:<20}{value:.3f} ± {stderr:.3f}")
        return "\n".join(lines)


def paired_differences(results: Mapping[str, PerDatum]) -> PairedDifferences:
    """The NLL of each run less that of the best, paired over the data.

    Args:
        results: name → `nll` or `ais` of one run; all on the same data in the same order.

    Raises:
        ValueError: for fewer than two runs, other numbers of data, or results that are no figures of one kind and
            measure, such as a mass beside a density.

    Example:
        >>> import torch
        >>> from pyro_dgm.results import GivenNLL
        >>> a, b = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.5, 2.0, 3.5])
        >>> print(paired_differences({"a": GivenNLL(a), "b": GivenNLL(b)}))
        NLL less that of a, nats per datum, paired over 3 data
          b                   0.333 ± 0.167
    """
    _require_same_data(results)
    best = min(results, key=lambda name: results[name].mean)
    nats = {name: result.per_datum.detach().cpu().double() for name, result in results.items()}
    names, values, stderrs = [], [], []
    for name, own in nats.items():
        if name != best:
            value, stderr = _mean_and_error(own - nats[best])
            names.append(name)
            values.append(value)
            stderrs.append(stderr)
    return PairedDifferences(best, tuple(names), tuple(values), tuple(stderrs), len(nats[best]))


def _mean_and_error(terms: Tensor) -> tuple[float, float]:
    stderr = terms.std().item() / sqrt(len(terms)) if len(terms) > 1 else nan
    return terms.mean().item(), stderr


def _require_same_data(results: Mapping[str, PerDatum]) -> None:
    counts = {name: len(result.per_datum) for name, result in results.items()}
    if len(counts) < 2 or len(set(counts.values())) > 1:
        raise ValueError(
            f"paired: expected the NLL of two or more runs on the same data, got {counts} data. "
            "Fix: {'a': nll(model_a, guide_a, test), 'b': nll(model_b, guide_b, test)}."
        )
    require_one_measure("paired", {name: result.measure for name, result in results.items()})
    require_one_kind("paired", {name: str(result.kind) for name, result in results.items()})


def paired(results: Mapping[str, PerDatum], ax: Axes | None = None) -> Axes:
    """Each run's NLL less that of the best run, paired over the data, ± 2 standard errors, in nats per datum.

    Args:
        results: name → `nll` or `ais` of one run; all on the same data in the same order.
        ax: where to draw; default: a new figure.

    Raises:
        ValueError: as `compare_elpd`: results that can't be compared.
    """
    found = paired_differences(results)
    ax = axes_or_new(ax, 5.2, 1.3 + 0.35 * len(found.names))
    place = range(len(found.names))
    errors = [SIGNIFICANT * stderr for stderr in found.stderr]
    ax.errorbar(found.value, place, xerr=errors, fmt="o", color=BLUE, capsize=3)
    ax.axvline(0, color=INK, linewidth=0.9, linestyle="--")
    _name_rows(ax, found.names)
    ax.set_xlabel("nats per datum ± 2 standard errors")
    set_title(ax, f"NLL less that of {found.best}, {found.num_data} data")
    return ax


def spread(results: Mapping[str, Sequence[Mapping[str, Any]]], ax: Axes | None = None) -> Axes:
    """The NLL of every seed ± its standard error, by run, and the mean ± sd between seeds, in nats per datum.

    Args:
        results: name of the run → a row for each seed with `nll` and `nll_stderr`, such as those of `results.jsonl`.
        ax: where to draw; default: a new figure.

    Raises:
        ValueError: for no row at all.

    Example:
        >>> rows = [{"nll": 90.1, "nll_stderr": 0.3}, {"nll": 90.5, "nll_stderr": 0.3}]
        >>> spread({"flow": rows}).get_title(loc="left")
        'test NLL: seeds ± se; bars: mean ± sd between seeds'
    """
    named = {name: rows for name, rows in results.items() if len(rows)}
    if not named:
        raise ValueError(
            f"spread: expected a row with nll and nll_stderr for each seed, got none of "
            f"{list(results)}. Fix: {{'run': run.results}}."
        )
    ax = axes_or_new(ax, 5.2, 1.3 + 0.45 * len(named))
    for place, rows in enumerate(named.values()):
        _draw_seeds(ax, place, rows)
    _name_rows(ax, list(named))
    ax.set_xlabel("NLL, nats per datum")
    set_title(ax, "test NLL: seeds ± se; bars: mean ± sd between seeds")
    return ax


def _draw_seeds(ax: Axes, place: int, rows: Sequence[Mapping[str, Any]]) -> None:
    nll = np.array([row["nll"] for row in rows], float)
    stderr = np.array([row["nll_stderr"] for row in rows], float)
    heights = place + 0.1 + np.linspace(0, 0.3, len(rows))
    style: dict[str, Any] = {"markersize": 3, "linewidth": 0.8, "capsize": 0}
    ax.errorbar(nll, heights, xerr=stderr, fmt="o", color=GREY, **style)
    between = nll.std(ddof=1) if len(nll) > 1 else 0.0
    ax.barh(place - 0.1, 2 * between, left=nll.mean() - between, height=0.2, color=BLUE, alpha=0.35)
    ax.plot(nll.mean(), place - 0.1, "D", color=BLUE, markersize=5)


def _name_rows(ax: Axes, names: Sequence[str]) -> None:
    """The names at the left, the first one above."""
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.grid(axis="x", alpha=0.25)
