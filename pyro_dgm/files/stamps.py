"""Digests inside the files that they are digests of; other tools read these files as before."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
import zipfile
from io import BytesIO
from pathlib import Path

from .errors import FileError
from .reading import describe

FORMAT = 1  # of the files that this version writes; the newest that it reads
NEWER = "git pull where pyro_dgm is installed from"  # what reads the files of a newer version
NUM_HEX = 64
KEY = "pyro_dgm"
MARK = "blake2b "
TRAILER = re.compile(rb"pyro_dgm format (\d+) blake2b ([0-9a-f]{64})\Z")
IN_HEADER = re.compile(rb'"pyro_dgm":"format (\d+) blake2b ([0-9a-f]{64})"')
END_OF_ZIP = b"PK\x05\x06"
END_SIZE = 22  # bytes of the last record of a zip archive without a comment


def digest_of(content: bytes | memoryview) -> str:
    """BLAKE2b of 256 bits, in hexadecimal digits."""
    return hashlib.blake2b(content, digest_size=NUM_HEX // 2).hexdigest()


# -- zip archives, as torch.save writes them ------------------------------------------------------------
def stamp_archive(buffer: BytesIO) -> memoryview:
    """The archive in a buffer with the digest of all its bytes as the archive's comment."""
    label = f"{KEY} format {FORMAT} {MARK}".encode()
    buffer.seek(-2, 2)  # the length of the comment closes an archive that has none
    buffer.write((len(label) + NUM_HEX).to_bytes(2, "little"))
    buffer.write(label)
    with buffer.getbuffer() as content:
        digest = digest_of(content)
    buffer.write(digest.encode())
    return buffer.getbuffer()


def check_archive(content: bytes, path: str | Path, fix: str) -> None:
    """Compare an archive with its digest.

    Raises:
        FileError: if it is another one, damaged, cut off or too new.
    """
    what = "a checkpoint that is whole"
    if not content.startswith(b"PK\x03\x04"):
        raise FileError(path, what, describe(content), fix)
    found = TRAILER.search(content)
    if found is None:
        _check_unstamped_archive(content, path, fix)
        return
    _check_format(int(found[1]), path, what)
    if digest_of(memoryview(content)[:-NUM_HEX]) != found[2].decode():
        raise FileError(path, what, "bytes that differ from its digest", fix)


def _check_unstamped_archive(content: bytes, path: str | Path, fix: str) -> None:
    """An archive without a digest is read where the sums that zip itself keeps agree, and not in silence."""
    end = content[-END_SIZE:]
    is_whole = end.startswith(END_OF_ZIP) and end.endswith(b"\0\0")
    if not is_whole or not _sums_agree(content):
        raise FileError(path, "a checkpoint that is whole", "one that is cut off or damaged", fix)
    _warn_of_no_digest(path)


def _sums_agree(content: bytes) -> bool:
    try:
        with zipfile.ZipFile(BytesIO(content)) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError):
        return False


# -- safetensors ------------------------------------------------------------------------------------------
def label_of_header() -> dict[str, str]:
    """The metadata to write a safetensors file with, so that `stamp_tensors` finds the place of the digest."""
    return {KEY: f"format {FORMAT} {MARK}{'0' * NUM_HEX}"}


def stamp_tensors(content: bytes) -> bytes:
    """A safetensors file with the digest of all its other bytes in its metadata."""
    found = IN_HEADER.search(content)
    if found is None:
        raise RuntimeError("expected a place for the digest in the header of the safetensors")
    start, end = found.span(2)
    return b"".join([content[:start], digest_of(content).encode(), content[end:]])


def check_tensors(content: bytes, path: str | Path, fix: str) -> None:
    """Compare a safetensors file with its digest.

    Raises:
        FileError: if it is another one, damaged, cut off or too new.
    """
    what = "weights as safetensors that are whole"
    header = _header(content)
    if header is None:
        got = describe(content)
        if got == "a safetensors file":
            got = "a file that is cut off or damaged"
        raise FileError(path, what, got, fix)
    found = IN_HEADER.search(header)
    if found is None:
        _check_unstamped_header(header, path, fix)
        return
    _check_format(int(found[1]), path, what)
    start, end = found.span(2)
    blank = b"".join([content[: 8 + start], b"0" * NUM_HEX, content[8 + end :]])
    if digest_of(blank) != found[2].decode():
        raise FileError(path, what, "bytes that differ from their digest", fix)


def _header(content: bytes) -> bytes | None:
    """The JSON that a safetensors file begins with."""
    size = int.from_bytes(content[:8], "little")
    if len(content) < 8 + size or content[8:9] != b"{":
        return None
    return content[8 : 8 + size]


def _check_unstamped_header(header: bytes, path: str | Path, fix: str) -> None:
    """Weights of another tool have no digest; where one stood and is spoilt, the file is damaged."""
    try:
        metadata = json.loads(header).get("__metadata__", {})
    except (ValueError, AttributeError):
        metadata = {KEY: ""}
    spoilt = KEY in metadata or any(MARK in str(value) for value in metadata.values())
    if spoilt:
        raise FileError(
            path, "weights as safetensors that are whole", "a header that is damaged", fix
        )
    _warn_of_no_digest(path)


# -- both ---------------------------------------------------------------------------------------------------
def _check_format(found: int, path: str | Path, what: str) -> None:
    if found > FORMAT:
        raise FileError(
            path,
            f"{what}, of format {FORMAT} or older",
            f"format {found}, of a newer pyro_dgm",
            NEWER,
        )


def _warn_of_no_digest(path: str | Path) -> None:
    warnings.warn(
        f"{path}: expected a digest, got none: an older version or another tool wrote it, and a "
        "flipped bit would go unnoticed. Fix: save it again.",
        stacklevel=5,
    )
