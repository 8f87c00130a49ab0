"""The rows of a training run as they come, in `metrics.jsonl`: one for each epoch of each seed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...files.errors import FileError, named
from ...files.writing import write_text
from ...inference.training.history import History, Row

SEED = "seed"


def rebuild_metrics(path: Path, histories: Mapping[int, History]) -> None:
    """Write the rows that the checkpoints hold, in place of those that are missing, torn, changed or twice there.

    Without any there is no file: it would be the sign of a run that has begun.

    Args:
        path: the file.
        histories: by seed.

    Raises:
        FileError: if the file holds the rows of another run.
    """
    found = read_metrics(path)
    rows = [{SEED: seed, **row} for seed, history in histories.items() for row in history]
    if found and rows and not any(row in rows for row in found):
        raise FileError(
            path,
            f"the rows of the {len(rows)} epochs that the checkpoints beside it hold",
            "rows of another run",
            f"put the checkpoints of this run there; or, if they are this run's, rm {path}",
        )
    if not rows:
        with named(path, "write"):
            path.unlink(missing_ok=True)
        return
    rows.sort(key=lambda row: row["epoch"])
    write_text(path, "".join(map(_line, rows)))


def append_metrics(path: Path, seed: int, row: Row) -> None:
    """Add the row of an epoch, which is on the disk when this returns.

    Raises:
        FileError: if it can't be written.
    """
    with named(path, "write"), path.open("ab", buffering=0) as file:
        file.write(_line({SEED: seed, **row}).encode())
        os.fsync(file.fileno())


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows that can be read."""
    if not path.exists():
        return []
    with named(path, "read"):
        lines = path.read_bytes().splitlines()
    rows = []
    for line in lines:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def _line(row: Mapping[str, float]) -> str:
    return f"{json.dumps(row)}\n"
