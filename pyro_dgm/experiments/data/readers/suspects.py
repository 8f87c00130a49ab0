"""Columns of a table that a density should hardly have: identifiers, and columns of one value."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from .content import Asked, Content, list_flag

FEWEST = 8  # rows: fewer may be in order by chance


def warn_of_columns(content: Content, asked: Asked, *, is_real: bool, stacklevel: int) -> None:
    """Warn of columns that are likely identifiers, and, of real numbers, of those that are constant.

    Args:
        content: of a table; of anything else nothing is said.
        asked: what the user names.
        is_real: whether the numbers are real ones, which have a density.
        stacklevel: of the warnings.
    """
    if "drop" not in content.options or len(content.names) < 2:
        return
    identifiers, constants = [], []
    for place, name in enumerate(content.names):
        column = np.concatenate([rows[:, place] for rows in content.x.values()])
        if is_identifier(column):
            identifiers.append(name)
        elif is_real and len(np.unique(column[~np.isnan(column)])) < 2:
            constants.append(name)
    drop = list_flag("drop", [*(asked.drop or ()), *identifiers, *constants])
    if identifiers:
        what = "a different integer in every row: an identifier?"
        warnings.warn(_warning(identifiers, what, drop), stacklevel=stacklevel)
    if constants:
        what = "one value or none in all rows, where a density has no upper bound."
        warnings.warn(_warning(constants, what, drop), stacklevel=stacklevel)


def is_identifier(column: np.ndarray) -> bool:
    """Whether all numbers are integers, all different, and either consecutive in some order, or monotone.

    Example:
        >>> is_identifier(np.arange(1000, 1020)[::-1]), is_identifier(np.arange(20) ** 2 % 19)
        (True, False)
    """
    if len(column) < FEWEST or column.dtype.kind == "b":
        return False
    if column.dtype.kind == "f" and not bool((np.floor(column) == column).all()):
        return False
    steps = np.diff(column)
    if bool((steps > 0).all() or (steps < 0).all()):
        return True
    is_consecutive = column.max() - column.min() == len(column) - 1
    return bool(is_consecutive) and len(np.unique(column)) == len(column)


def _warning(names: Sequence[str], what: str, drop: str) -> str:
    quoted = ", ".join(f"'{name}'" for name in names)
    subject = f"column {quoted} has" if len(names) == 1 else f"columns {quoted} have"
    return f"{subject} {what} Leave it out: {drop}"
