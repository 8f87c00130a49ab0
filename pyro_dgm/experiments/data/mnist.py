"""MNIST and its relatives: square grey images as bytes, from IDX files or openml.org."""

from __future__ import annotations

from math import isqrt
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...inference.data.binarization import binarize
from ...inference.process.states import fork_rng
from .datasets import Data
from .idx import read_idx_images

NUM_TRAIN = 50_000  # of the 60,000 training images of MNIST and its relatives


class _SquareBytes(Data):
    """Square grey images as bytes: train is the first 50,000 of the training images, validation the others.

    Args:
        first: training images `(N, D)`, uint8.
        test: test images.
        binary: dynamic binarization of the training images and one fixed draw (seed 0) of the others;
            otherwise the 256 grey levels.
    """

    def __init__(self, first: Tensor, test: Tensor, *, binary: bool):
        train, val = first[:NUM_TRAIN], first[NUM_TRAIN:]
        num_pixels = first.shape[1]
        side = isqrt(num_pixels)
        if side**2 != num_pixels or len(val) < 1 or len(test) < 1:
            raise ValueError(
                f"{type(self).__name__}: expected square images, more than 50,000 to train and "
                f"validate and some to test; got {len(first)} and {len(test)} images of "
                f"{num_pixels} pixels. Fix: Data(train, val, test, event_shape, levels=256)."
            )
        if binary:
            with fork_rng(seed=0):
                val = binarize(val)
                test = binarize(test)
        levels = 2 if binary else 256
        super().__init__(train, val, test, (side, side), levels, dynamic=binary)


class Idx(_SquareBytes):
    """MNIST, Fashion-MNIST and their kin from a folder of IDX files, gzipped or not.

    Args:
        folder: with `train-images-idx3-ubyte(.gz)` and `t10k-images-idx3-ubyte(.gz)`.
        binary: dynamic binarization of the training images and one fixed draw (seed 0) of the others; otherwise the
            256 grey levels.

    Raises:
        ValueError: if a file is missing or is no IDX file of images.
    """

    def __init__(self, folder: str, *, binary: bool = True):
        first = read_idx_images(Path(folder), "train")
        test = read_idx_images(Path(folder), "t10k")
        super().__init__(first, test, binary=binary)


class OpenML(_SquareBytes):
    """A data set of square grey images from openml.org, downloaded (and cached) by scikit-learn.

    Args:
        name: its name there, such as `mnist_784` or `Fashion-MNIST`.
        binary: dynamic binarization of the training images and one fixed draw (seed 0) of the others; otherwise the
            256 grey levels.

    Raises:
        ConnectionError: offline.
    """

    def __init__(self, name: str, *, binary: bool = True):
        from sklearn.datasets import fetch_openml

        try:
            bunch = fetch_openml(name, version=1, as_frame=False, parser="liac-arff")
        except OSError as error:
            raise ConnectionError(
                f"OpenML: expected to reach openml.org for '{name}', got {error}. Fix: go online "
                "once, or --data Idx --data.folder=PATH with the IDX files."
            ) from error
        images = _as_bytes(np.asarray(bunch.data), name)
        super().__init__(images[:60_000], images[60_000:], binary=binary)


def _as_bytes(pixels: np.ndarray, name: str) -> Tensor:
    """Pixels as bytes, if that is what they are."""
    is_byte = (pixels >= 0) & (pixels <= 255) & (pixels == np.round(pixels))
    if not is_byte.all():
        raise ValueError(
            f"OpenML: expected grey levels 0, …, 255, got others in '{name}'. "
            "Fix: Data(train, val, test, event_shape, levels=256) of rounded levels."
        )
    return torch.as_tensor(pixels.astype(np.uint8))
