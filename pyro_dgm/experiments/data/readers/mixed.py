"""Tables of numbers and texts: which columns of texts can be context, and the flags under which a table is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....display.listing import first_quoted
from ....files.errors import FileError
from .content import Asked, list_flag

MOST_CATEGORIES = 100  # of a column of texts that is proposed as context
SHOWN = 8  # names of columns in a message


@dataclass(frozen=True)
class TextColumns:
    """Columns of texts, by what they can be.

    Attributes:
        categories: of few texts, each in several rows: context.
        others: of many texts, such as dates and names, or of one alone: of no use here.
        spoilt: numbers, but for a few texts such as `?`.
    """

    categories: list[str]
    others: list[str]
    spoilt: list[str]


def require_numbers(
    path: Path, frame: Any, columns: Sequence[str], context: Sequence[str], asked: Asked
) -> None:
    """Refuse columns of texts among the data, with the flags under which the whole table is read.

    Args:
        path: the file, for messages.
        frame: a pandas table.
        columns: those of the data.
        context: those of the context, asked for or found.
        asked: what the user names.

    Raises:
        FileError: with the first text.
    """
    texts = [name for name in columns if not _is_numeric(frame[name])]
    if not texts:
        return
    numbers = [name for name in columns if name not in texts]
    first = frame[texts[0]]
    row = int(_is_text(first).argmax())
    others = ", and texts in " + first_quoted(texts[1:], SHOWN) if len(texts) > 1 else ""
    got = f"{str(first.iloc[row])[:40]!r} in column '{texts[0]}', row {row + 1}{others}"
    raise FileError(path, "numbers", got, _fix(frame, texts, numbers, context, asked))


def _fix(
    frame: Any, texts: list[str], numbers: list[str], context: Sequence[str], asked: Asked
) -> str:
    """Flags under which the table is read at once, or what to change in it where there are none."""
    found = _sort(frame, texts)
    fixes = []
    if numbers:
        beside = [name for name in frame.columns if name not in (*texts, *numbers)]
        used = [*numbers, *beside, *found.categories]
        has_missing = bool(frame[used].isna().to_numpy().any())
        fixes.append(_flags(found, context, asked, has_mask=has_missing or asked.has_mask))
    if found.spoilt:
        column = frame[found.spoilt[0]]
        text = str(column[_is_text(column)].iloc[0])[:40]
        fixes.append(f"an empty cell in place of {text!r}, with --data.missing=mask")
    return ", or ".join(fixes) or "a table with a column of numbers, which are the data"


def _flags(found: TextColumns, context: Sequence[str], asked: Asked, *, has_mask: bool) -> str:
    """What was asked for, and with it the columns of texts as context, or left out."""
    flags = []
    drop = [*(asked.drop or ()), *found.others, *found.spoilt]
    if found.categories or asked.context:
        flags.append(list_flag("context", [*context, *found.categories]))
    if drop:
        flags.append(list_flag("drop", drop))
    if has_mask:
        flags.append("--data.missing=mask")
    return " ".join(flags)


def _sort(frame: Any, texts: list[str]) -> TextColumns:
    found = TextColumns([], [], [])
    for name in texts:
        column = frame[name].dropna()
        num = column.nunique()
        if len(column) >= 2 * _is_text(column).sum():
            found.spoilt.append(name)
        elif 2 <= num <= MOST_CATEGORIES and 2 * num <= len(column):
            found.categories.append(name)
        else:
            found.others.append(name)
    return found


def _is_numeric(column: Any) -> bool:
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    is_number = is_numeric_dtype(column.dtype) or is_bool_dtype(column.dtype)
    return is_number and column.dtype.kind != "c"


def _is_text(column: Any) -> Any:
    """Where a column holds something that is no number, as an array of truths."""
    import pandas as pd

    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        return column.notna().to_numpy(dtype=bool)
    is_text = pd.to_numeric(column, errors="coerce").isna() & column.notna()
    return is_text.to_numpy(dtype=bool)
