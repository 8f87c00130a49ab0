"""Reading a file, and saying what it is where it is not what it should be."""

from __future__ import annotations

from pathlib import Path

from .errors import FileError, named

KINDS = {
    b"\x89PNG": "a PNG picture",
    b"\x89HDF": "a netCDF file",
    b"\x93NUMPY": "a NumPy array",
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip file",
}


def read_file(path: str | Path, what: str, fix: str) -> bytes:
    """The bytes of a file.

    Args:
        path: the file.
        what: what it holds, for the error.
        fix: what helps where it is missing or empty.

    Raises:
        FileError: if it is missing, can't be read, or is empty.
    """
    path = Path(path)
    if not path.is_file():
        raise FileError(path, what, "a folder" if path.is_dir() else "no file", fix)
    with named(path, "read"):
        content = path.read_bytes()
    if not content:
        raise FileError(path, what, "an empty file", fix)
    return content


def describe(content: bytes) -> str:
    """What a file looks like from its first bytes."""
    for magic, kind in KINDS.items():
        if content.startswith(magic):
            return kind
    if content[8:9] == b"{" and content[:1] != b"{":
        return "a safetensors file"
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return f"{len(content):,} bytes of another kind"
    return "JSON" if text.lstrip()[:1] in ("{", "[") else "a text"
