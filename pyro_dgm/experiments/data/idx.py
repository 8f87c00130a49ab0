"""IDX files, the format of MNIST and its relatives: arrays of any size and shape."""

from __future__ import annotations

import gzip
import zlib
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...files.errors import FileError
from ...files.reading import read_file

IMAGE_MAGIC = 2051  # the first number of a file of unsigned bytes in three dims
# The third byte of the first number is the type of the numbers; they are stored with the highest byte first.
DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
NUM_DIMS = range(1, 9)


def read_idx(path: Path) -> np.ndarray:
    """The array of an IDX file, gzipped or not.

    Args:
        path: the file.

    Raises:
        FileError: if it is missing, empty, damaged, cut off, or no IDX file.

    References:
        LeCun, Bottou, Bengio, Haffner 1998, *Gradient-based learning applied to document recognition*.
    """
    content = _content(path)
    dtype, shape, start = _read_header(content, path)
    num_bytes = prod(shape) * dtype.itemsize
    if len(content) - start != num_bytes:
        raise FileError(
            path,
            f"{shape[0]} rows of {num_bytes // max(1, shape[0])} bytes",
            f"{len(content) - start} bytes",
            f"copy {path.name} again, it is cut off or damaged",
        )
    array = np.frombuffer(content, dtype=dtype, offset=start).reshape(shape)
    return array.astype(dtype.newbyteorder("="))


def read_idx_images(folder: Path, name: str) -> Tensor:
    """The images of one IDX file as rows of bytes `(N, height * width)`.

    Args:
        folder: where the file lies, as it is or with gzip.
        name: the file's first word, such as `train` or `t10k`.

    Raises:
        ValueError: if there is no such file, or it holds no images.
    """
    path = _find(folder, f"{name}-images-idx3-ubyte")
    images = read_idx(path)
    if images.dtype != np.uint8 or images.ndim != 3:
        raise FileError(
            path,
            f"an IDX file of images, (N, height, width) bytes (magic {IMAGE_MAGIC})",
            f"{images.dtype} {images.shape}",
            "put the file of images there, not that of the labels",
        )
    return torch.from_numpy(images.reshape(len(images), -1))


def _content(path: Path) -> bytes:
    content = read_file(path, "an array in IDX form", f"copy {path.name} again")
    if path.suffix != ".gz":
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        fix = f"copy {path.name} again, it is damaged"
        raise FileError(path, "a gzipped file", str(error), fix) from error


def _read_header(content: bytes, path: Path) -> tuple[np.dtype, tuple[int, ...], int]:
    """The type of the numbers, the shape, and where the numbers start."""
    magic = content[:4]
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in DTYPES or magic[3] not in NUM_DIMS:
        got = f"one that starts with {list(magic)}"
        fix = f"copy {path.name} again, or give it the suffix of its format"
        raise FileError(path, "an IDX file, which starts with 0, 0, type, dims", got, fix)
    start = 4 + 4 * magic[3]
    if len(content) < start:
        fix = f"copy {path.name} again, it is cut off"
        raise FileError(path, f"a header of {start} bytes", f"{len(content)} bytes", fix)
    shape = np.frombuffer(content[4:start], dtype=">u4").tolist()
    return np.dtype(DTYPES[magic[2]]), tuple(shape), start


def _find(folder: Path, name: str) -> Path:
    """The file of that name, or its gzipped form."""
    for path in (folder / name, folder / f"{name}.gz"):
        if path.exists():
            return path
    raise ValueError(
        f"Idx: expected {name} or {name}.gz in {folder}, got neither. "
        "Fix: --data.folder=PATH, or Idx(folder)."
    )
