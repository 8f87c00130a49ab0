"""What a training run measured, as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

Row = dict[str, float]


class History(Sequence):
    """One row of named numbers per epoch; losses in nats per datum.

    Example:
        >>> history = History([{"epoch": 1, "train_nelbo": 3.5}, {"epoch": 2, "train_nelbo": 3.25}])
        >>> history.column("train_nelbo")
        [3.5, 3.25]
        >>> print(history)
        epoch  train_nelbo
            1          3.5
            2         3.25
    """

    def __init__(self, rows: Sequence[Mapping[str, float]] = ()):
        self.rows: list[Row] = [dict(row) for row in rows]

    def append(self, row: Mapping[str, float]) -> None:
        """Add an epoch."""
        self.rows.append(dict(row))

    def column(self, name: str) -> list[float]:
        """One metric over the epochs.

        Raises:
            KeyError: if no epoch has it.
        """
        if not any(name in row for row in self.rows):
            raise KeyError(f"history: expected one of {self.names}, got '{name}'.")
        return [row[name] for row in self.rows if name in row]

    @property
    def names(self) -> list[str]:
        """Names of the columns."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def __getitem__(self, index: int) -> Row:  # type: ignore[override]
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __str__(self) -> str:
        names = self.names
        cells = [
            names,
            *([f"{row[n]:.6g}" if n in row else "" for n in names] for row in self.rows),
        ]
        widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
        return "\n".join(
            "  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) for line in cells
        )
