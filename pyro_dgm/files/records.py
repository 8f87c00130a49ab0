"""Rows of JSON, one a line, that are appended and never overwritten; each carries its own digest."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from .errors import FileError, named
from .locking import locked
from .stamps import digest_of

Record = dict[str, Any]


def append_record(path: Path, record: Record) -> None:
    """Add a row; processes that append at once wait for each other.

    Raises:
        FileError: if it can't be written.
    """
    text = json.dumps(record, ensure_ascii=False)
    sealed = json.dumps({**record, "digest": digest_of(text.encode())}, ensure_ascii=False)
    with named(path, "write"), path.open("ab", buffering=0) as file, locked(file.fileno()):
        begin = "" if _ends_a_line(path) else "\n"
        file.write(f"{begin}{sealed}\n".encode())
        os.fsync(file.fileno())


def read_records(path: Path) -> list[Record]:
    """The rows of a file, each compared with its digest; none where there is no file.

    Raises:
        FileError: for a row that is torn, changed or there twice, with its line.
    """
    if not path.exists():
        return []
    with named(path, "read"):
        lines = path.read_bytes().split(b"\n")
    records: list[Record] = []
    for number, line in enumerate(lines, 1):
        if not line and number == len(lines):
            continue
        record = _unseal(line)
        got = "one that is torn or changed" if record is None else "one that is there twice"
        if record is None or record in records:
            fix = f"look at it, and remove it: sed -i {number}d {path}"
            raise FileError(path, f"a row as it was written in line {number}", got, fix)
        records.append(record)
    return records


def _unseal(line: bytes) -> Record | None:
    """A row without its digest, where it has the right one."""
    try:
        record = json.loads(line)
        digest = record.pop("digest")
    except (ValueError, TypeError, AttributeError, KeyError):
        return None
    text = json.dumps(record, ensure_ascii=False)
    return record if digest == digest_of(text.encode()) else None


def _ends_a_line(path: Path) -> bool:
    """Whether a row can be added; a torn one is ended first."""
    size = path.stat().st_size
    if size == 0:
        return True
    with path.open("rb") as file:
        file.seek(size - 1)
        return file.read(1) == b"\n"
