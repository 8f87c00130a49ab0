"""A folder has one owner at a time: a lock that the operating system gives back when its process dies."""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import FileError, OwnedError, named

LOCK = ".lock"
NO_LOCKS = (errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS)


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Be the one process that writes into a folder; the file `.lock` names it by pid and host.

    The lock of a process that was killed is taken over. Whether that of another host is alive can't be told from
    here: it is taken for alive.

    Raises:
        OwnedError: if another process owns the folder.
        FileError: if it can't be written.
    """
    path = folder / LOCK
    descriptor = _acquire(path)
    try:
        with named(path, "write"):
            _sign(descriptor)
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


@contextmanager
def locked(descriptor: int) -> Iterator[None]:
    """Wait for the lock of an open file and keep it; where a file system knows no locks, go on without."""
    import fcntl  # here, so that the package can be imported where there is none

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    yield


def make_folder(folder: Path) -> Path:
    """Make a folder that was not there before: the name given, or with `-2`, `-3`, … behind it.

    Raises:
        FileError: if it can't be made.
    """
    with named(folder, "write"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        number = 1
        while True:
            candidate = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
            try:
                candidate.mkdir()
            except FileExistsError:
                number += 1
            else:
                return candidate


def require_room(folder: Path, num_bytes: int) -> None:
    """Refuse a disk without room for what is going to be written; the folder is made.

    Raises:
        FileError: if so many bytes can't be set aside.
    """
    path = folder / f".room.{os.getpid()}"
    megabytes = max(1, num_bytes // 2**20)
    try:
        with named(path, f"write {megabytes:,} MiB to"):
            folder.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, max(1, num_bytes))
                os.fsync(file.fileno())
    finally:
        path.unlink(missing_ok=True)


def _acquire(path: Path) -> int:
    """The open lock file, locked; its descriptor keeps the lock."""
    import fcntl  # here, so that the package can be imported where there is none

    while True:
        with named(path, "write"):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _check_host(path, descriptor)
            if _is_still(path, descriptor):
                return descriptor
            os.close(descriptor)  # its owner has just ended and removed it
        except BlockingIOError:
            error = _owned_by_another(path, descriptor)
            os.close(descriptor)
            raise error from None
        except FileError:
            os.close(descriptor)
            raise


def _sign(descriptor: int) -> None:
    """Write pid and host into the lock."""
    text = json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, text.encode(), 0)


def _owner(descriptor: int) -> dict[str, str]:
    """Who signed the lock; nobody where it is new or was torn."""
    try:
        found = json.loads(os.pread(descriptor, 4096, 0))
    except ValueError:
        return {}
    return {k: str(v) for k, v in found.items()} if isinstance(found, dict) else {}


def _check_host(path: Path, descriptor: int) -> None:
    """A file system may know no locks between hosts: what another host signed is left alone."""
    if _owner(descriptor).get("host", socket.gethostname()) != socket.gethostname():
        raise _owned_by_another(path, descriptor)


def _is_still(path: Path, descriptor: int) -> bool:
    """Whether the name still stands for the file that is locked."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _owned_by_another(path: Path, descriptor: int) -> OwnedError:
    owner = _owner(descriptor)
    who = f"process {owner.get('pid', '?')} on {owner.get('host', 'this host')}"
    fix = f"wait until it has ended, or take another folder; if it is dead, rm {path}"
    return OwnedError(
        path, "a folder that no other process writes to", f"{who}, a run that lives", fix
    )
