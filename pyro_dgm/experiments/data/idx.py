"""Images from IDX files, the format of MNIST and its relatives."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...files.errors import FileError
from ...files.reading import read_file

IMAGE_MAGIC = 2051  # the first number of a file of unsigned bytes in three dims
HEADER_BYTES = 16  # the magic number, the number of images, their height and their width


def read_idx_images(folder: Path, name: str) -> Tensor:
    """The images of one IDX file as rows of bytes `(N, height * width)`.

    Args:
        folder: where the file lies, as it is or with gzip.
        name: the file's first word, such as `train` or `t10k`.

    Raises:
        ValueError: if there is no such file, or it holds no images, or fewer than it says.

    References:
        LeCun, Bottou, Bengio, Haffner 1998, *Gradient-based learning applied to document recognition*.
    """
    path = _find(folder, f"{name}-images-idx3-ubyte")
    content = read_file(path, "images in IDX form", f"copy {path.name} again")
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            fix = f"copy {path.name} again, it is damaged"
            raise FileError(path, "a gzipped file", str(error), fix) from error
    num, num_pixels = _read_header(content, path)
    pixels = np.frombuffer(content, dtype=np.uint8, offset=HEADER_BYTES)
    if len(pixels) != num * num_pixels:
        raise ValueError(
            f"Idx: expected {num} images of {num_pixels} bytes in {path}, got {len(pixels)} bytes. "
            f"Fix: copy {path.name} again, it is cut off."
        )
    return torch.from_numpy(pixels.reshape(num, num_pixels).copy())


def _read_header(content: bytes, path: Path) -> tuple[int, int]:
    """How many images there are, of how many pixels."""
    if len(content) < HEADER_BYTES:
        fix = f"copy {path.name} again, it is cut off"
        raise FileError(path, f"a header of {HEADER_BYTES} bytes", f"{len(content)} bytes", fix)
    magic = int.from_bytes(content[:4], "big")
    if magic != IMAGE_MAGIC:
        raise ValueError(
            f"Idx: expected an IDX file of images (magic {IMAGE_MAGIC}), got magic {magic} in "
            f"{path}. Fix: put the file of images there, not that of the labels."
        )
    num, height, width = np.frombuffer(content[4:HEADER_BYTES], dtype=">i4").tolist()
    return num, height * width


def _find(folder: Path, name: str) -> Path:
    """The file of that name, or its gzipped form."""
    for path in (folder / name, folder / f"{name}.gz"):
        if path.exists():
            return path
    raise ValueError(
        f"Idx: expected {name} or {name}.gz in {folder}, got neither. "
        "Fix: --data.folder=PATH, or Idx(folder)."
    )
