"""One metric over the epochs of several seeds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...display.tabular import Tabular

SETTLING = 10  # the first tenth of the epochs hides the rest


@dataclass(frozen=True)
class SeedCurves:
    """One metric of S seeds at the E epochs that have it.

    Attributes:
        seeds: of the runs.
        epochs: `(E,)`, ascending.
        values: `(S, E)`; NaN after an early end, and for what is infinite.
    """

    seeds: tuple[int, ...]
    epochs: NDArray[np.float64]
    values: NDArray[np.float64]

    @property
    def mean(self) -> NDArray[np.float64]:
        """Over the seeds that have the epoch `(E,)`."""
        return np.nanmean(self.values, 0)

    @property
    def band(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean ± standard deviation between seeds `(E,)`; NaN where fewer than two seeds have the epoch."""
        num = np.isfinite(self.values).sum(0)
        squares = np.nansum((self.values - self.mean) ** 2, 0)
        spread = np.sqrt(squares / np.where(num > 1, num - 1, np.nan))
        return self.mean - spread, self.mean + spread

    @property
    def best(self) -> list[tuple[float, float]]:
        """Epoch and value of the minimum of each seed that has one."""
        found = []
        for own in self.values:
            if np.isfinite(own).any():
                place = int(np.nanargmin(own))
                found.append((float(self.epochs[place]), float(own[place])))
        return found

    @property
    def last(self) -> NDArray[np.float64]:
        """The value of each seed at its last epoch; NaN for a seed without any."""
        found = []
        for own in self.values:
            finite = own[np.isfinite(own)]
            found.append(finite[-1] if len(finite) else np.nan)
        return np.array(found)

    @property
    def settled(self) -> NDArray[np.float64]:
        """The values after the first epochs, flat: those that set the scale of a picture."""
        num = len(self.epochs)
        skipped = max(num // SETTLING, 1) if num > 3 else 0
        values = self.values[:, skipped:]
        found: NDArray[np.float64] = values[np.isfinite(values)]
        return found


def seed_curves(history: Tabular, name: str) -> SeedCurves | None:
    """The curves of a metric; `None` if no epoch has it.

    Args:
        history: a `History`, of one seed, or a `SeedHistory`.
        name: of the metric.

    Example:
        >>> from pyro_dgm.results import History
        >>> history = History([{"epoch": 1, "val_nelbo": 3.0}, {"epoch": 2, "val_nelbo": 2.0}])
        >>> seed_curves(history, "val_nelbo").best
        [(2.0, 2.0)]
    """
    table = history.columns()
    if name not in table:
        return None
    values = np.asarray(table[name], float)
    values = np.where(np.isfinite(values), values, np.nan)
    epochs = np.asarray(table.get("epoch", range(1, len(values) + 1)), float)
    seeds = np.asarray(table.get("seed", np.zeros(len(values))), int)
    has_it = np.isfinite(values)
    if not has_it.any():
        return None
    columns = np.unique(epochs[has_it])
    names = tuple(dict.fromkeys(seeds.tolist()))
    matrix = np.full((len(names), len(columns)), np.nan)
    rows = np.array([names.index(seed) for seed in seeds.tolist()])
    matrix[rows[has_it], np.searchsorted(columns, epochs[has_it])] = values[has_it]
    return SeedCurves(names, columns, matrix)
