"""Data sets as objects: train, validation and test tensors in one, and what kind of numbers they hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from math import prod

from torch import Tensor

from ...inference.data.batches import Batches
from ...inference.data.binarization import binarize

SPLITS = ("train", "val", "test")


class Kind(Enum):
    """What the numbers of a data set are, by which a likelihood is chosen."""

    BINARY = "binary"  # 0 and 1
    LEVELS = "levels"  # integers 0, …, L - 1
    COUNTS = "counts"  # integers 0, 1, 2, … without an end
    REAL = "real"


class Data:
    """Three splits of rows `(N, D)`: images of levels, binary tables, counts or real numbers.

    Args:
        train: training data.
        val: validation data.
        test: test data.
        event_shape: shape of one datum, such as `(height, width)`, `(channels, height, width)` or `(D,)`; its product
            is D.
        levels: number L of levels of integers 0, …, L − 1; `None` for counts and real numbers.
        dynamic: whether training images are grey bytes, binarized anew each time one is seen.
        context: further arguments of the programs by split, such as `{"train": (labels,), "val": …, "test": …}`, each
            with a row per datum.
        labels: a class 0, …, C − 1 for each datum by split, for pictures; no argument of a program.
        classes: names of the C classes.
        has_mask: whether the last context is a mask, bool `(N, D)`: which numbers are observed; the others are 0.
        kind: what the numbers are; default: by `levels`, else counts where all of `train` are integers from 0.
        names: of the D columns, for tables.
        said: how the data were read, in a line each: what was chosen where nothing was asked for.
    """

    def __init__(
        self,
        train: Tensor,
        val: Tensor,
        test: Tensor,
        event_shape: tuple[int, ...],
        levels: int | None = None,
        *,
        dynamic: bool = False,
        context: Mapping[str, tuple[Tensor, ...]] | None = None,
        labels: Mapping[str, Tensor] | None = None,
        classes: Sequence[str] = (),
        has_mask: bool = False,
        kind: Kind | None = None,
        names: Sequence[str] = (),
        said: Sequence[str] = (),
    ):
        self.train = train
        self.val = val
        self.test = test
        self.event_shape = tuple(event_shape)
        self.levels = levels
        self.dynamic = dynamic
        self.context = dict(context or {})
        self.labels = dict(labels or {})
        self.classes = list(classes)
        self.has_mask = has_mask
        self.names = list(names)
        self.said = list(said)
        self._kind = kind

    @property
    def dim(self) -> int:
        """Numbers D in one datum."""
        return prod(self.event_shape)

    @property
    def num_context(self) -> int:
        """Numbers in the context of one datum; 0 without one."""
        return sum(prod(value.shape[1:]) for value in self.context.get("train", ()))

    @property
    def kind(self) -> Kind:
        """What the numbers are."""
        if self._kind is None:
            self._kind = self._find_kind()
        return self._kind

    def _find_kind(self) -> Kind:
        if self.levels is not None:
            return Kind.BINARY if self.levels == 2 else Kind.LEVELS
        is_count = (self.train >= 0) & (self.train == self.train.round())
        return Kind.COUNTS if bool(is_count.all()) else Kind.REAL

    def split(self, name: str) -> tuple[Tensor, ...]:
        """The arguments of the programs for a split, `"train"`, `"val"` or `"test"`: data, then context."""
        return (getattr(self, name), *self.context.get(name, ()))

    def batches(self, batch_size: int) -> Batches:
        """The training data in batches, binarized anew in each epoch if they are `dynamic`."""
        transform = binarize if self.dynamic else None
        train = self.split("train")
        return Batches(train if len(train) > 1 else train[0], batch_size, transform=transform)
