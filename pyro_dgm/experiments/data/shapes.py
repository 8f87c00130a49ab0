"""Arrays as rows `(N, D)` with the shape of one datum: channels come first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...files.errors import FileError
from .readers.content import ALL, BySplit, Content

CHANNELS = (1, 3, 4)  # numbers of channels that a last dim is taken for
MOST_NAMES, MOST_LETTERS = 6, 16  # of columns, in a line


def as_rows(content: Content) -> tuple[BySplit, tuple[int, ...], list[str]]:
    """The data of each split as rows `(N, D)`, the event shape, and lines that say what was turned.

    Images `(N, height, width, channels)` become `(N, channels, height, width)`, one channel alone becomes
    `(N, height, width)`, and one number per datum becomes a row of one.

    Raises:
        FileError: for no numbers, or splits of different shapes.
    """
    arrays = {split: _with_event(array) for split, array in content.x.items()}
    shape = next(iter(arrays.values())).shape[1:]
    for split, array in arrays.items():
        if array.shape[1:] != shape or 0 in array.shape:
            what = f"rows of shape {shape} in every split"
            of_split = "" if split == ALL else f" in {split}"
            got = f"{array.shape}{of_split}"
            raise FileError(content.path, what, got, "a row for each datum, all of one shape")
    said = []
    if len(shape) == 3 and _is_last_channels(*shape):
        arrays = {split: np.moveaxis(array, 3, 1) for split, array in arrays.items()}
        shape = (shape[2], *shape[:2])
        said.append("data: channels come first in a row")
    if len(shape) == 3 and shape[0] == 1:
        shape = shape[1:]
    rows = {split: array.reshape(len(array), -1) for split, array in arrays.items()}
    return rows, tuple(shape), said


def _is_last_channels(first: int, second: int, last: int) -> bool:
    """Whether a datum has its channels last; where first and last may be channels, an image is taken to be a square."""
    return last in CHANNELS and (first not in CHANNELS or first == second != last)


def _with_event(array: np.ndarray) -> np.ndarray:
    return array[:, None] if array.ndim == 1 else array


def names_text(names: Sequence[str]) -> str:
    """The first names of columns in brackets; none where they are only numbered.

    Example:
        >>> names_text(["age", "income"]), names_text(["0", "1"])
        (' (age, income)', '')
    """
    if not names or list(names) == [str(number) for number in range(len(names))]:
        return ""
    shown = [name if len(name) <= MOST_LETTERS else f"{name[:MOST_LETTERS]}…" for name in names]
    more = ", …" if len(names) > MOST_NAMES else ""
    return f" ({', '.join(shown[:MOST_NAMES])}{more})"


def size_text(event_shape: tuple[int, ...]) -> str:
    """A shape as one says it: 28×28, 32×32×3, 16 columns."""
    if len(event_shape) == 1:
        return f"{event_shape[0]} columns" if event_shape[0] > 1 else "1 column"
    if len(event_shape) == 3:
        channels, height, width = event_shape
        return f"{height}×{width}×{channels}"
    return "×".join(map(str, event_shape))
