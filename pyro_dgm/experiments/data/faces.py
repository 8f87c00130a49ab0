"""The Frey faces."""

from __future__ import annotations

import zlib
from io import BytesIO
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch

from ...files.errors import FileError
from ...files.reading import read_file
from .datasets import Data
from .splits import shuffle


class FreyFaces(Data):
    """The 1,965 Frey faces, 28×20 grey bytes, in the split sizes of the VampPrior paper: 1,565 / 200 / 200.

    Args:
        path: an `.npz` file with `images`, uint8 `(1965, 28, 20)`.
        split: seed of the random split.

    Raises:
        ValueError: if the file is missing or holds something else.

    References:
        Tomczak, Welling 2018, arXiv:1705.07120 (table 1: bits/dim over three random splits).
    """

    def __init__(self, path: str, split: int = 0):
        images = read_faces(Path(path))
        levels = torch.as_tensor(images.reshape(1965, -1)).to(torch.get_default_dtype())
        train, val, test = shuffle(levels, seed=split).split([1565, 200, 200])
        super().__init__(train, val, test, event_shape=(28, 20), levels=256)


def read_faces(path: Path) -> np.ndarray:
    """The faces as bytes `(1965, 28, 20)`."""
    if not path.exists():
        raise ValueError(
            f"FreyFaces: expected an .npz file with 'images', got no file {path}. "
            "Fix: --data.path=FILE, or FreyFaces(path)."
        )
    stored = read_file(path, "an .npz file with 'images'", "copy it again")
    try:
        with np.load(BytesIO(stored)) as content:
            images = content["images"] if "images" in content else np.empty(0)
    except (OSError, EOFError, ValueError, BadZipFile, KeyError, zlib.error) as error:
        raise FileError(path, "an .npz file with 'images'", str(error), "copy it again") from error
    if images.shape != (1965, 28, 20) or images.dtype != np.uint8:
        raise ValueError(
            f"FreyFaces: expected uint8 images (1965, 28, 20), got {images.dtype} {images.shape}. "
            "Fix: np.savez(path, images=faces.astype(np.uint8))."
        )
    return images
