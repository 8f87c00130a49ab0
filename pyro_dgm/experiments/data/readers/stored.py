"""Readers of arrays and tensors in files: npy, npz, pt, safetensors and IDX."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import BadZipFile, ZipFile, is_zipfile

import numpy as np
import torch
from torch import Tensor

from ....files.errors import FileError, named
from ....files.reading import describe, read_file
from ..idx import read_idx
from .arrays import content_of_arrays
from .content import Asked, Content

ON_DISK = 2**28  # bytes from which an npy file is mapped, not read
AGAIN = "write or copy it again, it is damaged"
BAD: tuple[type[Exception], ...] = (
    OSError,
    EOFError,
    ValueError,
    BadZipFile,
    KeyError,
    zlib.error,
    RuntimeError,
    TypeError,
)


def read_npy(path: Path, asked: Asked) -> Content:
    """One array; a large one stays on disk as a memory map."""
    what = "an array as np.save writes it"
    require_start(path, what, b"\x93NUMPY")
    with _readable(path, what), path.open("rb") as file:
        is_large = path.stat().st_size >= ON_DISK
        array = np.load(path, mmap_mode="c") if is_large else np.load(file)
    return content_of_arrays(path, {"x": array}, asked)


def read_npz(path: Path, asked: Asked) -> Content:
    """Arrays by name."""
    what = "arrays as np.savez writes them"
    require_start(path, what, b"PK")
    with _readable(path, what), path.open("rb") as file, np.load(file) as archive:
        arrays = {name: archive[name] for name in archive.files}
    return content_of_arrays(path, arrays, asked)


def read_pt(path: Path, asked: Asked) -> Content:
    """A tensor, a dict of tensors, or a tuple (x, labels), as `torch.save` writes them; nothing is executed."""
    what = "a tensor or a dict of tensors as torch.save writes them"
    with _readable(path, what, (UnpicklingError,)), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about what it then refuses
        _check_sums(path)
        stored = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(stored, Tensor):
        stored = {"x": stored}
    if isinstance(stored, (tuple, list)) and 0 < len(stored) <= 2:
        stored = dict(zip(("x", "labels"), stored, strict=False))
    if not isinstance(stored, Mapping) or not stored:
        fix = 'torch.save({"x": x, "labels": labels}, path)'
        raise FileError(path, what, f"a {type(stored).__name__}", fix)
    return content_of_arrays(path, _as_arrays(stored), asked)


def read_safetensors(path: Path, asked: Asked) -> Content:
    """Tensors by name."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    with _readable(path, "tensors as safetensors writes them", (SafetensorError,)):
        stored = load_file(path)
    return content_of_arrays(path, _as_arrays(stored), asked)


def read_idx_file(path: Path, asked: Asked) -> Content:
    """One array of an IDX file."""
    return content_of_arrays(path, {"x": read_idx(path)}, asked)


def _as_arrays(stored: Mapping[Any, Any]) -> dict[str, np.ndarray]:
    """The tensors of a dict; other values are left out."""
    found = {}
    for name, value in stored.items():
        if isinstance(value, Tensor):
            found[str(name)] = as_array(value)
    return found


def as_array(tensor: Tensor) -> np.ndarray:
    """A tensor of any dtype as an array; bfloat16, which NumPy lacks, in float32."""
    tensor = tensor.detach()
    if tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    return (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).cpu().numpy()


@contextmanager
def _readable(path: Path, what: str, errors: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Give every error of a reader the file's name, and say what the file looks like.

    Raises:
        FileError: in place of them.
    """
    start = first_bytes(path, what)
    try:
        yield
    except FileError:
        raise
    except BAD + errors as error:
        if "allow_pickle" in str(error):
            got, fix = "Python objects in it", "x.astype(float) before it is saved"
        else:
            got, fix = f"{describe(start)} that can't be read: {one_line(error)}", AGAIN
        raise FileError(path, what, got, fix) from error


def _check_sums(path: Path) -> None:
    """Compare a zip archive with its own sums, which torch does not look at.

    Raises:
        BadZipFile: if one differs.
    """
    if is_zipfile(path):
        with ZipFile(path) as archive:
            spoilt = archive.testzip()
        if spoilt is not None:
            raise BadZipFile(f"{spoilt} differs from its sum")


def require_start(path: Path, what: str, magic: bytes) -> None:
    """Refuse a file that does not start as its format does.

    Raises:
        FileError: for such a file.
    """
    start = first_bytes(path, what)
    if not start.startswith(magic):
        fix = f"give {path.name} the suffix of its format, or write it again"
        raise FileError(path, what, describe(start), fix)


def first_bytes(path: Path, what: str) -> bytes:
    """The start of a file that is there and is not empty.

    Raises:
        FileError: for any other.
    """
    if not path.is_file() or path.stat().st_size == 0:
        read_file(path, what, AGAIN)
    with named(path, "read"), path.open("rb") as file:
        return file.read(64)


def one_line(error: Exception) -> str:
    """The first line of an error."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".")[:160]
