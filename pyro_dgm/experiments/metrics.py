"""The rows of a training run as they come, in `metrics.jsonl`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ..files.errors import FileError, named
from ..files.writing import write_text
from ..inference.training.history import History, Row


def rebuild_metrics(path: Path, history: History) -> None:
    """Write the rows that the checkpoint holds, in place of those that are missing, torn, changed or twice there.

    Without any there is no file: it would be the sign of a run that has begun.

    Raises:
        FileError: if the file holds the rows of another run.
    """
    found = _read(path)
    rows = list(history)
    if found and rows and not any(row in rows for row in found):
        raise FileError(
            path,
            f"the rows of the {len(rows)} epochs that checkpoint.pt beside it holds",
            "rows of another run",
            f"put the checkpoint of this run there; or, if it is this run's, rm {path}",
        )
    if not rows:
        with named(path, "write"):
            path.unlink(missing_ok=True)
        return
    write_text(path, "".join(map(_line, rows)))


def append_metrics(path: Path, row: Row) -> None:
    """Add the row of an epoch, which is on the disk when this returns.

    Raises:
        FileError: if it can't be written.
    """
    with named(path, "write"), path.open("ab", buffering=0) as file:
        file.write(_line(row).encode())
        os.fsync(file.fileno())


def _line(row: Row) -> str:
    return f"{json.dumps(row)}\n"


def _read(path: Path) -> list[dict[str, Any]]:
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
