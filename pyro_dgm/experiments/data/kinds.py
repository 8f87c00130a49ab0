"""What the numbers of a file are, binary, levels, counts or real: found, or compared with what was asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

from ...files.errors import FileError
from .datasets import Kind

BLOCK = 2**22  # numbers that are looked at at once
MOST_LEVELS = 256  # of images, which a kind is found for


@dataclass(frozen=True)
class Summary:
    """What all numbers of a file have in common, the missing ones left out.

    Attributes:
        low, high: smallest and largest number.
        is_integer: whether all are integers.
        num_missing: how many are NaN.
        dtype: of the arrays.
    """

    low: float
    high: float
    is_integer: bool
    num_missing: int
    dtype: np.dtype[Any]

    def __or__(self, other: Summary) -> Summary:
        return Summary(
            min(self.low, other.low),
            max(self.high, other.high),
            self.is_integer and other.is_integer,
            self.num_missing + other.num_missing,
            np.result_type(self.dtype, other.dtype),
        )


def summarize(path: Path, split: str, x: np.ndarray, names: Sequence[str] = ()) -> Summary:
    """One pass over rows `(N, D)`, in blocks.

    Raises:
        FileError: for what is no number, or is infinite, with its place.
    """
    if x.dtype.kind not in "biuf":
        got = f"{'texts' if x.dtype.kind in 'US' else 'values'} of dtype {x.dtype} in {split}"
        raise FileError(path, "numbers", got, "x.astype(float) before it is saved, or --data.array")
    found = Summary(inf, -inf, is_integer=True, num_missing=0, dtype=x.dtype)
    for start, block in _blocks(x):
        if x.dtype.kind == "f":
            is_infinite = np.isinf(block)
            if is_infinite.any():
                where = _place(is_infinite, start, split, names)
                raise FileError(path, "finite numbers", f"inf in {where}", "leave that row out")
        found |= _summary_of(block)
    return found


def first_missing(split: str, x: np.ndarray, names: Sequence[str] = ()) -> str:
    """The place of the first NaN, in words."""
    for start, block in _blocks(x):
        is_missing = np.isnan(block)
        if is_missing.any():
            return _place(is_missing, start, split, names)
    return ""


def choose_kind(
    path: Path,
    x: dict[str, np.ndarray],
    summary: Summary,
    kind: Kind | None,
    levels: int | None,
    *,
    is_image: bool,
) -> tuple[Kind, int | None, str]:
    """Kind and levels of all splits, asked for or found, and a line that says which.

    Raises:
        ValueError: if what is asked for contradicts itself.
        FileError: if the numbers are not what is asked for, with the first that is not.
    """
    _require_agreement(kind, levels)
    if levels is None and kind is Kind.BINARY:
        levels = 2
    if levels is not None:
        _require(path, x, _are_levels(levels), f"integers 0, …, {levels - 1}", _fix(summary))
        return (
            (Kind.BINARY if levels == 2 else Kind.LEVELS),
            levels,
            f"{levels} levels, as asked for",
        )
    if kind is Kind.LEVELS:
        _require(path, x, _are_counts, "integers 0, 1, …", _fix(summary))
        levels = int(summary.high) + 1
        return kind, levels, f"integers to {summary.high:.0f}: {levels} levels (--data.levels)"
    if kind is Kind.COUNTS:
        _require(path, x, _are_counts, "counts 0, 1, …", _fix(summary))
        return kind, None, "counts, as asked for"
    if kind is Kind.REAL:
        return kind, None, "real numbers, as asked for"
    return _find_kind(summary, is_image=is_image)


def _find_kind(summary: Summary, *, is_image: bool) -> tuple[Kind, int | None, str]:
    name, high = summary.dtype.name, summary.high
    if not summary.is_integer or summary.low < 0:
        return Kind.REAL, None, f"{name}: real numbers (--data.kind)"
    if high <= 1:
        return Kind.BINARY, 2, f"{name}, 0 and 1: binary (--data.kind)"
    if is_image and summary.dtype == np.uint8:
        return Kind.LEVELS, 256, "uint8: 256 levels (--data.levels)"
    if is_image and high < MOST_LEVELS:
        levels = int(high) + 1
        return Kind.LEVELS, levels, f"integers to {high:.0f}: {levels} levels (--data.levels)"
    return Kind.COUNTS, None, f"integers to {high:.0f}: counts (--data.kind, --data.levels)"


def _require_agreement(kind: Kind | None, levels: int | None) -> None:
    if levels is None:
        return
    if levels < 2:
        raise ValueError(f"data.levels: expected 2 or more, got {levels}. Fix: --data.levels=256.")
    agreeing = (None, Kind.BINARY if levels == 2 else Kind.LEVELS, Kind.LEVELS)
    if kind not in agreeing:
        raise ValueError(
            f"data.levels: expected none with kind={kind and kind.value}, got {levels}. "
            "Fix: leave --data.levels or --data.kind out."
        )


def _require(path: Path, x: dict[str, np.ndarray], are: Any, what: str, fix: str) -> None:
    """Refuse the first number that is not what it should be."""
    for split, rows in x.items():
        for start, block in _blocks(rows):
            is_other = ~(are(block) | _is_missing(block))
            if is_other.any():
                value = block[tuple(np.argwhere(is_other)[0])]
                got = f"{value:g} in {_place(is_other, start, split, ())}"
                raise FileError(path, what, got, fix)


def _are_levels(levels: int) -> Any:
    return lambda block: _are_counts(block) & (block <= levels - 1)


def _are_counts(block: np.ndarray) -> np.ndarray:
    return (block >= 0) & (block == np.floor(block))


def _is_missing(block: np.ndarray) -> np.ndarray:
    return np.isnan(block) if block.dtype.kind == "f" else np.zeros(block.shape, dtype=bool)


def _fix(summary: Summary) -> str:
    """What the numbers are."""
    if summary.is_integer and summary.low >= 0:
        return f"--data.levels={int(summary.high) + 1}, or --data.kind=counts"
    if summary.is_integer:
        return f"--data.kind=real, or x - ({summary.low:.0f}) in the file"
    return "--data.kind=real, or --data.binarize=0.5 of numbers in [0, 1]"


def _summary_of(block: np.ndarray) -> Summary:
    num_missing = int(np.isnan(block).sum()) if block.dtype.kind == "f" else 0
    there = block[~np.isnan(block)] if num_missing else block
    if not there.size:
        return Summary(inf, -inf, is_integer=True, num_missing=num_missing, dtype=block.dtype)
    is_integer = block.dtype.kind != "f" or bool((there == np.floor(there)).all())
    low, high = float(there.min()), float(there.max())
    return Summary(low, high, is_integer, num_missing, block.dtype)


def _blocks(x: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Rows in blocks, each with the number of its first row."""
    num = max(1, BLOCK // max(1, x[:1].size))
    for start in range(0, len(x), num):
        yield start, x[start : start + num]


def _place(is_here: np.ndarray, start: int, split: str, names: Sequence[str]) -> str:
    """The first place of a block, in words: row and column count from 1."""
    row, *column = np.argwhere(is_here)[0]
    of_split = "" if split == "all" else f" of {split}"
    if not column:
        return f"row {start + row + 1}{of_split}"
    name = f"'{names[column[0]]}'" if names else str(column[0] + 1)
    return f"column {name}, row {start + row + 1}{of_split}"
