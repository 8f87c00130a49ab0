"""One error for every file that can't be written or is not what it should be."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


class FileError(OSError, ValueError):
    """A file that can't be written, or is truncated, damaged, empty, foreign, of another kind or too new.

    Attributes:
        path: the file.
        expected, got: what should be there, and what is.
        fix: what helps.
    """

    def __init__(self, path: str | Path, expected: str, got: str, fix: str):
        super().__init__(f"{path}: expected {expected}, got {got}. Fix: {fix}.")
        self.path = Path(path)
        self.expected = expected
        self.got = got
        self.fix = fix

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        return type(self), (self.path, self.expected, self.got, self.fix)


class OwnedError(FileError):
    """A folder that another process owns."""


@contextmanager
def named(path: str | Path, doing: str) -> Iterator[None]:
    """Give an error of the operating system the name of its file and a fix.

    Raises:
        FileError: in place of any other `OSError`.
    """
    try:
        yield
    except FileError:
        raise
    except OSError as error:
        expected, fix = _expected(error, doing)
        got = (error.strerror or str(error)).lower().rstrip(".")
        raise FileError(path, expected, got, fix) from error


def _expected(error: OSError, doing: str) -> tuple[str, str]:
    """What was needed, and what helps."""
    if error.errno in FULL:
        return f"room on the disk to {doing} it", "free some space, or write to another folder"
    if error.errno in READ_ONLY:
        return f"leave to {doing} it", "change its permissions, or take another folder"
    if error.errno == errno.EISDIR:
        return f"a file to {doing}", "move the folder of that name away"
    if error.errno == errno.ENOENT:
        return f"a file to {doing}", "the path of a file that exists"
    return f"to {doing} it", "another path"
