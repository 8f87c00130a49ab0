"""What a training run measured, as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...display.tabular import Tabular

Row = dict[str, float]


class History(Tabular, Sequence[Row]):
    """One row of named numbers per epoch; losses in nats per datum.

    Args:
        rows: one mapping from name to number per epoch.

    Example:
        >>> history = History([{"epoch": 1, "train_nelbo": 3.5}, {"epoch": 2, "train_nelbo": 3.25}])
        >>> history.column("train_nelbo")
        [3.5, 3.25]
        >>> print(history)
        epoch  train_nelbo
            1          3.5
            2         3.25
        >>> float(history.to_dataframe()["train_nelbo"].min())
        3.25
    """

    def __init__(self, rows: Sequence[Mapping[str, float]] = ()):
        self.rows: list[Row] = [dict(row) for row in rows]

    def append(self, row: Mapping[str, float]) -> None:
        """Add an epoch."""
        self.rows.append(dict(row))

    def column(self, name: str) -> list[float]:
        """One metric over the epochs that have it.

        Raises:
            KeyError: if no epoch has it.
        """
        found = [row[name] for row in self.rows if name in row]
        if not found:
            raise KeyError(
                f"history: expected one of {self.names}, got '{name}'. "
                f"Fix: history.column('{self.names[-1] if self.names else 'train_loss'}')."
            )
        return found

    def columns(self) -> Mapping[str, Any]:
        """Every metric over all epochs, NaN where an epoch does not have it."""
        table = {}
        for name in self.names:
            table[name] = [row.get(name, float("nan")) for row in self.rows]
        return table

    @property
    def names(self) -> list[str]:
        """Names of the columns."""
        names: dict[str, None] = {}
        for row in self.rows:
            names.update(dict.fromkeys(row))
        return list(names)

    def __getitem__(self, index: int) -> Row:  # type: ignore[override]
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __str__(self) -> str:
        columns = []
        for name in self.names:
            cells = [name]
            for row in self.rows:
                cells.append(f"{row[name]:.6g}" if name in row else "")
            width = max(map(len, cells))
            columns.append([cell.rjust(width) for cell in cells])
        return "\n".join(map("  ".join, zip(*columns, strict=True)))

    def __repr__(self) -> str:
        return f"History({len(self)} epochs of {', '.join(self.names) or 'nothing'})"
