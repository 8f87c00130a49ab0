"""The Frey faces, from their file."""

from __future__ import annotations

import zlib
from io import BytesIO
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from ..files.errors import FileError
from ..files.reading import read_file


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
