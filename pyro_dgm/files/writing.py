"""Files appear whole or not at all: a neighbour is written, synced and moved into place."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from secrets import token_hex

from .errors import FileError, named

SUFFIX = ".tmp"
DAY = 86_400.0  # seconds after which a leftover of another host is given up


def write_file(path: str | Path, content: bytes | memoryview, keep: int = 1) -> None:
    """Write a file so that a killed process, a full disk or a power cut leaves the old one or the new one.

    Args:
        path: the file; its folder is made.
        content: its bytes.
        keep: how many versions stay: the new one, and before it `path.1`, `path.2`, ….

    Raises:
        FileError: if it can't be written; what was there is then as it was, and nothing is left beside it.
    """
    path = Path(path)
    with named(path, "write"):
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent, path.name)
        temporary = _neighbour(path)
        try:
            _write_synced(temporary, content)
            _rotate(path, keep)
            os.replace(temporary, path)  # noqa: PTH105 - the atomic call itself
        finally:
            temporary.unlink(missing_ok=True)
        _sync(path.parent)


def write_folder(path: str | Path, write: Callable[[Path], None]) -> None:
    """Write a folder that was not there before so that it is there whole, or not at all.

    Args:
        path: the folder.
        write: is called with the name of a neighbour, and makes it.

    Raises:
        FileError: for one that is there; if it can't be written: nothing is left of it then.
    """
    path = Path(path)
    if path.exists():
        raise FileError(
            path, "a name that is free", "one that is there", f"another name, or rm -r {path}"
        )
    with named(path, "write"):
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent, path.name)
        temporary = _neighbour(path)
        try:
            write(temporary)
            for file in sorted(temporary.rglob("*")):
                _sync(file)
            _sync(temporary)
            os.rename(temporary, path)  # noqa: PTH104 - the atomic call itself
        finally:
            _remove(temporary)
        _sync(path.parent)


def write_text(path: str | Path, text: str) -> None:
    """Write a text in UTF-8, as `write_file` does."""
    write_file(path, text.encode())


def sweep(folder: Path, name: str = "*") -> None:
    """Remove what killed processes left of a file: temporaries of this host's dead, and others a day old."""
    for leftover in folder.glob(f".{name}.*{SUFFIX}"):
        if _is_abandoned(leftover):
            _remove(leftover)


def older(path: str | Path, age: int = 1) -> Path:
    """Where the version before the newest one is kept."""
    path = Path(path)
    return path.with_name(f"{path.name}.{age}")


def is_alive(pid: int) -> bool:
    """Whether a process of this host runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _neighbour(path: Path) -> Path:
    """A name beside the file that no other process or thread takes."""
    return path.with_name(
        f".{path.name}.{_host()}.{os.getpid()}.{token_hex(4)}{SUFFIX}",
    )


def _host() -> str:
    return socket.gethostname().replace(".", "-")


def _is_abandoned(leftover: Path) -> bool:
    """Whether the process that wrote a temporary file is dead; of other hosts only its age tells."""
    *_, host, pid, _token = leftover.name.removesuffix(SUFFIX).split(".")
    if host == _host() and pid.isdigit():
        return not is_alive(int(pid))
    try:
        return time.time() - leftover.stat().st_mtime > DAY
    except FileNotFoundError:
        return False


def _write_synced(path: Path, content: bytes | memoryview) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _remove(leftover: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if leftover.is_dir():
        shutil.rmtree(leftover, ignore_errors=True)
    else:
        leftover.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Make a file, or the names in a folder, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _rotate(path: Path, keep: int) -> None:
    """Give every version the name of the one before it; at no moment is there no newest one."""
    if keep < 2 or not path.exists():
        return
    for age in range(keep - 1, 1, -1):
        if older(path, age - 1).exists():
            os.replace(older(path, age - 1), older(path, age))  # noqa: PTH105
    second = _neighbour(path)
    try:
        _link(path, second)
        os.replace(second, older(path))  # noqa: PTH105
    finally:
        second.unlink(missing_ok=True)


def _link(path: Path, second: Path) -> None:
    """A second name of a file, or a copy where the disk knows no second names."""
    try:
        second.hardlink_to(path)
    except OSError:
        _write_synced(second, path.read_bytes())
