"""Data of a file or a folder: read, split, checked, and told how."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from .assembly import Choices, assemble
from .checks import check_splits
from .datasets import Data, Kind
from .readers.content import Asked


class File(Data):
    """Data of a file or a folder; what was not asked for is found, and `said` tells what and how to change it.

    - `.npy`, `.npz`, `.pt`, `.safetensors`: the array called x, data or images, or the only one, a row per datum;
      `x_train`, `val`, `test_x` and the like are splits; labels (`labels`, `y`) and a `batch` stand beside it. An
      `.npy` of 256 MiB or more stays on disk, and its splits are consecutive rows.
    - `.csv`, `.tsv`, `.parquet` (extra `parquet`): each column is a dim, but for those of labels, context and drop.
    - IDX files of any size and shape; a folder of them by MNIST's names, or one such file.
    - a folder of pictures (PNG, JPEG), whose folders are classes, or splits with folders of classes.
    - `.h5ad` (extra `anndata`): counts of X or a layer, labels and context of the columns of obs.
    - several files `NAME.train.csv`, `NAME.valid.csv`, `NAME.test.csv`, or in a folder: splits. `NAME` alone will do.

    Zeros and ones are binary. Bytes of images are 256 levels, other integers of images below 256 as many levels as the
    highest one says. All other integers from 0 are counts, and all other numbers real, as they are. Validation and test
    data are those of the file, else a tenth of the rows each, at random (of MNIST's files the last sixth).

    Args:
        path: of the file or folder.
        array: name of the array of data, where there are several.
        labels: name of the array or column of classes, which colour figures; `context=[…]` gives them to the programs.
        context: names of arrays or columns that model and guide take as context: categories (texts, integers of at most
            100 values) become one-hot, other numbers are standardized by the training data.
        val: validation data, as a share of the rows or a number.
        test: test data, likewise.
        split_seed: of the order of the rows in the splits.
        kind: `binary`, `levels`, `counts` or `real`.
        levels: number L of levels of integers 0, …, L − 1.
        binarize: `dynamic`, a fresh draw each time a training image is seen, and one fixed draw of the others;
            `fixed`, one draw of all; a threshold between 0 and 1 of the highest level, above which is 1.
        size: height and width, or both in one number, to which pictures are scaled and cropped.
        missing: `mask` puts 0 where a number is missing, and a mask, bool `(N, D)`, last into the context, as
            `Observed(likelihood)` takes it. A category that is missing, in labels or context, is one of its own; a
            number of the context that is missing becomes its mean, with a further column that is 1 where it is there.
        standardize: whether real numbers are shifted and scaled, column by column, by mean and standard deviation of
            the training data; log densities are then those of the scaled numbers.
        layer: of annotated data, in place of X.
        drop: names of columns of a table that are not read, such as identifiers and dates.

    Raises:
        FileError: for what is missing, cut off, empty or of another kind, and numbers that are not what they should be,
            with file, column and row.
        ValueError: for an option that does not fit, with the nearest name.
        ImportError: for a format whose extra is not installed.
    """

    def __init__(
        self,
        path: str,
        array: str | None = None,
        labels: str | None = None,
        context: list[str] | None = None,
        val: float | None = None,
        test: float | None = None,
        split_seed: int = 0,
        kind: Literal["binary", "levels", "counts", "real"] | None = None,
        levels: int | None = None,
        binarize: Literal["no", "dynamic", "fixed"] | float = "no",
        size: int | tuple[int, int] | None = None,
        missing: Literal["refuse", "mask"] = "refuse",
        standardize: bool = False,  # noqa: FBT001, FBT002
        layer: str | None = None,
        drop: list[str] | None = None,
    ):
        has_mask = missing == "mask"
        asked = Asked(array, labels, context, _as_size(size), layer, drop, has_mask)
        choices = Choices(
            val=val,
            test=test,
            split_seed=split_seed,
            kind=None if kind is None else Kind(kind),
            levels=levels,
            binarize=binarize,
            missing=missing,
            standardize=standardize,
        )
        self.path = Path(path).expanduser()
        super().__init__(**assemble(self.path, asked, choices))
        check_splits(self)


def _as_size(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    """Height and width.

    Raises:
        ValueError: for sizes below 1.
    """
    if size is None:
        return None
    both = (size, size) if isinstance(size, int) else tuple(size)
    if len(both) != 2 or min(both) < 1:
        raise ValueError(
            f"data.size: expected a height and a width from 1, got {size}. Fix: --data.size=32."
        )
    return both[0], both[1]
