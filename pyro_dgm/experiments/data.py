"""Data sets as objects, train, validation and test tensors in one; and toys whose distribution is known."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt, pi
from pathlib import Path

import numpy as np
import pyro.distributions as dist
import torch
from torch import Tensor

from ..inference.data.batches import Batches
from ..inference.data.binarization import binarize
from ..inference.process.states import fork_rng
from .faces import read_faces
from .idx import read_idx_images

NUM_TRAIN = 50_000  # of the 60,000 training images of MNIST and its relatives


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


class Digits(Data):
    """The 1,797 handwritten 8×8 digits of scikit-learn: integers 0, …, 16, shuffled once by a fixed seed.

    Args:
        num_val: size of the validation split.
        num_test: size of the test split.

    References:
        Alpaydin, Kaynak 1998, *Optical recognition of handwritten digits*, UCI machine learning repository.
    """

    def __init__(self, num_val: int = 150, num_test: int = 300):
        from sklearn.datasets import load_digits

        images = torch.as_tensor(load_digits().data, dtype=torch.get_default_dtype())
        num_train = len(images) - num_val - num_test
        if min(num_train, num_val, num_test) < 1:
            raise ValueError(
                f"Digits: expected non-empty splits of {len(images)} images, got num_val={num_val} "
                f"and num_test={num_test}. Fix: Digits(num_val=150, num_test=300)."
            )
        test, val, train = _shuffle(images, seed=0).split([num_test, num_val, num_train])
        super().__init__(train, val, test, image_shape=(8, 8), levels=17)


class SquareBytes(Data):
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
                f"{num_pixels} pixels. Fix: Data(train, val, test, image_shape, levels=256)."
            )
        if binary:
            with fork_rng(seed=0):
                val = binarize(val)
                test = binarize(test)
        levels = 2 if binary else 256
        super().__init__(train, val, test, (side, side), levels, dynamic=binary)


class Idx(SquareBytes):
    """MNIST, Fashion-MNIST and their kin from a folder of IDX files, gzipped or not.

    Args:
        folder: with `train-images-idx3-ubyte(.gz)` and `t10k-images-idx3-ubyte(.gz)`.
        binary: as in `SquareBytes`.

    Raises:
        ValueError: if a file is missing or is no IDX file of images.
    """

    def __init__(self, folder: str, *, binary: bool = True):
        first = read_idx_images(Path(folder), "train")
        test = read_idx_images(Path(folder), "t10k")
        super().__init__(first, test, binary=binary)


class OpenML(SquareBytes):
    """A data set of square grey images from openml.org, downloaded (and cached) by scikit-learn.

    Args:
        name: its name there, such as `mnist_784` or `Fashion-MNIST`.
        binary: as in `SquareBytes`.

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
            "Fix: Data(train, val, test, image_shape, levels=256) of rounded levels."
        )
    return torch.as_tensor(pixels.astype(np.uint8))


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
        train, val, test = _shuffle(levels, seed=split).split([1565, 200, 200])
        super().__init__(train, val, test, image_shape=(28, 20), levels=256)


def _shuffle(images: Tensor, seed: int) -> Tensor:
    """The images in an order of the seed's own; the random state outside stays as it is."""
    generator = torch.Generator().manual_seed(seed)
    return images[torch.randperm(len(images), generator=generator)]


@dataclass(frozen=True)
class Modes:
    r"""$p(x) = \frac1M \sum_m \mathcal N(x; \mu_m, \sigma^2 I)$: a toy of known density and modes.

    Attributes:
        centres: the $\mu_m$ `(M, D)`, all distinct.
        sd: σ.
    """

    centres: Tensor
    sd: float

    def __post_init__(self) -> None:
        num_distinct = len(self.centres.unique(dim=0))
        is_matrix = self.centres.dim() == 2
        if not is_matrix or num_distinct != len(self.centres) or not self.sd > 0:
            raise ValueError(
                f"Modes: expected distinct centres (M, D) and sd > 0, got centres "
                f"{tuple(self.centres.shape)}, {num_distinct} of them distinct, and sd={self.sd}. "
                "Fix: Modes(centres.unique(dim=0), sd=0.1)."
            )

    @property
    def distribution(self) -> dist.MixtureSameFamily:
        """The mixture itself: exact `log_prob` in nats, and draws under the global seed."""
        equal_weights = torch.zeros(len(self.centres), device=self.centres.device)
        return dist.MixtureSameFamily(
            dist.Categorical(logits=equal_weights),
            dist.Normal(self.centres, self.sd).to_event(1),
        )

    def sample(self, num: int, seed: int = 0) -> Tensor:
        """Independent draws `(num, D)`; the random state outside stays as it is."""
        with fork_rng(self.centres, seed=seed):
            return self.distribution.sample((num,))


def normal(loc: float = 0.0, scale: float = 1.0) -> Modes:
    """One normal in one dimension, for the closed forms of divergences."""
    return Modes(torch.tensor([[loc]]), scale)


def ring(num_modes: int = 8, radius: float = 2.0, sd: float = 0.1) -> Modes:
    r"""Modes at equal angles $2 \pi m / M$ on a circle.

    Example:
        >>> round(ring().distribution.log_prob(torch.tensor([2.0, 0.0])).item(), 4)  # -log 8 - log(2 pi sd^2)
        0.6879
    """
    angles = torch.arange(num_modes) * (2 * pi / num_modes)
    return Modes(radius * torch.stack([angles.cos(), angles.sin()], 1), sd)


def grid(side: int = 5, spacing: float = 2.0, sd: float = 0.05) -> Modes:
    """Modes on a square grid of side × side points around the origin."""
    steps = torch.arange(side, dtype=torch.get_default_dtype()) - (side - 1) / 2
    ticks = spacing * steps
    return Modes(torch.cartesian_prod(ticks, ticks), sd)


def stacked(images: Tensor, labels: Tensor, num: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    r"""Three random images as the channels of one: 1,000 modes if the classes are ten digits.

    Args:
        images: `(N, *event)`, such as MNIST or the 8×8 digits.
        labels: classes 0, …, 9 `(N,)`.
        num: number of stacked images.
        seed: of the choice; the random state outside stays as it is.

    Shape:
        stacked images `(num, 3, *event)` and their labels $100 a + 10 b + c$ `(num,)`.

    Raises:
        ValueError: if images and labels do not match, or a label is no digit.

    References:
        Metz et al. 2017, *Unrolled generative adversarial networks*, arXiv:1611.02163.
    """
    _check_labels(images, labels)
    with fork_rng(images, seed=seed):
        rows = torch.randint(len(images), (num, 3)).to(images.device)
    place_values = torch.tensor([100, 10, 1], device=labels.device)
    return images[rows], (labels.long()[rows] * place_values).sum(1)


def _check_labels(images: Tensor, labels: Tensor) -> None:
    """Refuse what is not one digit for each image."""
    one_for_each = len(labels) > 0 and labels.shape == images.shape[:1]
    if not one_for_each or labels.min() < 0 or labels.max() > 9:
        values = sorted(set(labels.flatten().tolist()))
        raise ValueError(
            f"stacked: expected images (N, *event) and N labels 0, …, 9, got {tuple(images.shape)} "
            f"and {tuple(labels.shape)} in {values[:12]}. "
            "Fix: stacked(torch.tensor(digits.images), torch.tensor(digits.target), num)."
        )
