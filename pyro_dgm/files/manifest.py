"""The digests of the files of a folder, in `digests.json`."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from .errors import FileError
from .reading import read_file
from .stamps import FORMAT, NEWER, NUM_HEX, digest_of
from .writing import write_file

NAME = "digests.json"


class Manifest:
    """Files of a folder, each with its digest.

    A digest is written before its file, and the one before it stays: whenever the process is killed, the file that is
    there has one of the two.

    Args:
        folder: the folder.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.path = folder / NAME

    def write(self, name: str, content: bytes | memoryview) -> None:
        """Write a file of the folder.

        Raises:
            FileError: if it can't be written; what was there is then as it was.
        """
        digests = self._read()
        digests[name] = [*digests.get(name, [])[-1:], digest_of(content)]
        write_file(self.path, _seal(digests))
        write_file(self.folder / name, content)

    def read(self, name: str, what: str, fix: str) -> bytes:
        """The bytes of a file, compared with its digest.

        Raises:
            FileError: if the file is missing, empty, or another one than was written.
        """
        path = self.folder / name
        content = read_file(path, what, fix)
        digests = self._read()
        if name not in digests:
            if digests:
                raise FileError(path, f"{what} that {NAME} knows", "another file", fix)
            _warn_of_no_digests(self.path)
        elif digest_of(content) not in digests[name]:
            got = f"bytes that differ from their digest in {NAME}"
            raise FileError(path, f"{what} as it was written", got, fix)
        return content

    def changed(self) -> list[Path]:
        """Files that are there and differ from what was written."""
        changed = []
        for name, digests in self._read().items():
            path = self.folder / name
            if path.is_file() and digest_of(path.read_bytes()) not in digests:
                changed.append(path)
        return changed

    def _read(self) -> dict[str, list[str]]:
        """Name → its last two digests; none where there is no manifest."""
        if not self.path.exists():
            return {}
        what, fix = "the digests of the files beside it", f"rm {self.path}, and check them yourself"
        content = read_file(self.path, what, fix)
        try:
            found = json.loads(content)
            version, digests = found["format"], found["digests"]
        except (ValueError, TypeError, KeyError):
            raise FileError(self.path, what, "something else", fix) from None
        if isinstance(version, int) and version > FORMAT:
            got = f"format {version}, of a newer pyro_dgm"
            raise FileError(self.path, f"format {FORMAT} or older", got, NEWER)
        if content != _seal(digests):
            raise FileError(self.path, what, "bytes that differ from their own digest", fix)
        return digests


def _seal(digests: Any) -> bytes:
    """The text of a manifest, with its own digest at the end."""
    text = json.dumps({"format": FORMAT, "digests": digests, "self": "0" * NUM_HEX}, indent=1)
    return text.replace("0" * NUM_HEX, digest_of(text.encode())).encode()


def _warn_of_no_digests(path: Path) -> None:
    warnings.warn(
        f"{path}: expected the digests of the files beside it, got no file: an older version wrote them, "
        "and a flipped bit would go unnoticed. Fix: pyro-dgm fit --config=… --out=NEW.",
        stacklevel=4,
    )
