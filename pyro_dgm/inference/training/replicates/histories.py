"""What the runs of several seeds measured, as one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....display.tabular import Tabular
from ..history import Row


class SeedHistory(Tabular, Mapping[str, NDArray[np.float64]]):
    """What the runs of several seeds measured: each metric as an array (seeds, epochs), NaN after an early end.

    Args:
        seeds: of the runs.
        histories: the rows of each.
    """

    def __init__(self, seeds: Sequence[int], histories: Sequence[Sequence[Row]]):
        self.seeds = list(seeds)
        self._rows = histories

    @property
    def num_epochs(self) -> int:
        """Of the longest run."""
        return max(len(rows) for rows in self._rows)

    def __getitem__(self, name: str) -> NDArray[np.float64]:
        if name not in list(self):
            raise KeyError(f"history: expected one of {list(self)}, got '{name}'.")
        found = np.full((len(self.seeds), self.num_epochs), np.nan)
        for own, rows in zip(found, self._rows, strict=True):
            for epoch, row in enumerate(rows):
                own[epoch] = row.get(name, np.nan)
        return found

    def __iter__(self) -> Iterator[str]:
        names: dict[str, None] = {}
        for rows in self._rows:
            for row in rows:
                names.update(dict.fromkeys(row))
        return iter(names)

    def __len__(self) -> int:
        return len(list(iter(self)))

    def columns(self) -> Mapping[str, Any]:
        """One row for each seed and epoch."""
        table: dict[str, list[Any]] = {name: [] for name in ("seed", *self)}
        for seed, rows in zip(self.seeds, self._rows, strict=True):
            for row in rows:
                table["seed"].append(seed)
                for name in self:
                    table[name].append(row.get(name, float("nan")))
        return table

    def __str__(self) -> str:
        lines = [
            f"{len(self.seeds)} seeds, {self.num_epochs} epochs; last epoch, mean ± sd between seeds"
        ]
        for name in self:
            if name.startswith(("train_", "val_")):
                last = [rows[-1].get(name, np.nan) for rows in self._rows if rows]
                spread = np.std(last, ddof=1) if len(last) > 1 else np.nan
                lines.append(f"{name}  {np.mean(last):.4g} ± {spread:.2g}")
        return "\n".join(lines)
