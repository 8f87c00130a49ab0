"""Data sets as objects: train, validation and test tensors in one."""

from __future__ import annotations

from torch import Tensor

from ...inference.data.batches import Batches
from ...inference.data.binarization import binarize


class Data:
    """Three splits of images `(N, D)` with values in 0, …, levels − 1.

    Args:
        train: training images.
        val: validation images.
        test: test images.
        image_shape: `(height, width)` with height · width = D.
        levels: number of grey levels.
        dynamic: whether training images are grey bytes, binarized anew each time one is seen.
    """

    def __init__(
        self,
        train: Tensor,
        val: Tensor,
        test: Tensor,
        image_shape: tuple[int, int],
        levels: int,
        *,
        dynamic: bool = False,
    ):
        self.train = train
        self.val = val
        self.test = test
        self.image_shape = image_shape
        self.levels = levels
        self.dynamic = dynamic

    def batches(self, batch_size: int) -> Batches:
        """The training images in batches, binarized anew in each epoch if they are `dynamic`."""
        return Batches(self.train, batch_size, transform=binarize if self.dynamic else None)
