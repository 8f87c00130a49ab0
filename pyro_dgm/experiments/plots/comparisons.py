"""Runs side by side: the spread between their seeds, and differences paired over the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .canvas import BLUE, GREY, INK, axes_or_new, set_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIGNIFICANT = 2.0  # standard errors


class Differences(Protocol):
    """NLL of each run less that of the best, which comes first; such as a `RunComparison`."""

    @property
    def names(self) -> Sequence[str]:
        """Of the runs."""

    @property
    def difference(self) -> NDArray[np.float64]:
        """Nats per datum `(R,)`."""

    @property
    def difference_stderr(self) -> NDArray[np.float64]:
        """Their standard errors `(R,)`."""


def paired(comparison: Differences, ax: Axes | None = None) -> Axes:
    """Each run's NLL less that of the best run, ± 2 standard errors, in nats per datum.

    Args:
        comparison: what `compare_runs` returns; its errors are of differences paired over the data, and of the seeds
            where both runs have several.
        ax: where to draw; default: a new figure.
    """
    best, *others = comparison.names
    ax = axes_or_new(ax, 5.2, 1.3 + 0.35 * len(others))
    errors = SIGNIFICANT * comparison.difference_stderr[1:]
    place = range(len(others))
    ax.errorbar(comparison.difference[1:], place, xerr=errors, fmt="o", color=BLUE, capsize=3)
    ax.axvline(0, color=INK, linewidth=0.9, linestyle="--")
    _name_rows(ax, others)
    ax.set_xlabel("nats per datum ± 2 standard errors")
    set_title(ax, f"NLL less that of {best}")
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
