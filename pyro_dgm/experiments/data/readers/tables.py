"""Readers of tables: csv, tsv and parquet files, whose columns are dims of the data, labels or context."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ....files.errors import FileError
from ....files.reading import describe
from .arrays import BATCH_NAMES
from .content import ALL, Asked, Content, require_name
from .stored import first_bytes, one_line

LABEL_COLUMNS = ("label", "labels", "class")
DELIMITERS = (",", "\t", ";")
DAMAGED = "write it again, with as many columns in every row"


def read_csv(path: Path, asked: Asked) -> Content:
    """A table of text, whose first row is names unless all of it are numbers."""
    import pandas as pd

    what = "a table in csv form"
    start = first_bytes(path, what)
    if b"\0" in start:
        raise FileError(path, what, describe(start), "give it the suffix of its format")
    try:
        with path.open(encoding="utf-8-sig") as file:
            first = file.readline().strip()
        delimiter = max(DELIMITERS, key=first.count)
        has_names = _are_names(first.split(delimiter))
        frame = pd.read_csv(
            path, sep=delimiter, header=0 if has_names else None, encoding="utf-8-sig"
        )
    except (OSError, ValueError, pd.errors.ParserError) as error:
        raise FileError(
            path, what, f"one that can't be read: {one_line(error)}", DAMAGED
        ) from error
    frame.columns = [str(name).strip() for name in frame.columns]
    return content_of_table(path, frame, asked)


def read_parquet(path: Path, asked: Asked) -> Content:
    """A table in parquet form.

    Raises:
        ImportError: without pyarrow.
    """
    import pandas as pd

    what = "a table in parquet form"
    start = first_bytes(path, what)
    try:
        import pyarrow
    except ImportError as error:
        raise ImportError(
            f"{path}: expected pyarrow to read parquet, got none. Fix: pip install pyarrow."
        ) from error
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        got = f"{describe(start)} that can't be read: {one_line(error)}"
        raise FileError(path, what, got, "write it again by frame.to_parquet(path)") from error
    frame.columns = [str(name) for name in frame.columns]
    return content_of_table(path, frame, asked)


def content_of_table(path: Path, frame: Any, asked: Asked) -> Content:
    """The columns of a table as data, but for labels and context.

    Args:
        path: the file, for messages.
        frame: a pandas table.
        asked: what the user names.

    Raises:
        FileError: for no rows, or a column of texts that is neither label nor context.
        ValueError: for a name that is not there.
    """
    frame, said = _without_index(frame)
    names = list(frame.columns)
    if frame.empty:
        raise FileError(
            path, "rows of numbers", f"{len(frame)} rows", "a table with a row per datum"
        )
    labels, context = _columns_beside(path, names, asked)
    beside = list(dict.fromkeys([*([labels] if labels else []), *context]))
    data = [name for name in names if name not in beside]
    _require_numbers(path, frame, data)
    x = frame[data].to_numpy(dtype=_common_dtype(frame, data), na_value=np.nan) if data else None
    if x is None:
        fix = "leave a column out of --data.labels and --data.context"
        raise FileError(path, "a column of data", "labels and context alone", fix)
    arrays = {name: {ALL: column_as_array(frame[name])} for name in beside}
    return Content(path, {ALL: x}, arrays, data, labels=labels, said=said)


def _are_names(fields: list[str]) -> bool:
    """Whether the first row is names: texts, or 0, 1, 2, … as pandas numbers columns, also behind an empty field."""
    texts = [field.strip().strip('"') for field in fields]
    numbered = [str(number) for number in range(len(texts))]
    if texts == numbered and len(texts) > 2:  # as data, 0 and 0, 1 are likely
        return True
    if texts[0] == "" and texts[1:] == numbered[:-1]:
        return True
    for text in texts:
        try:
            float(text or "nan")
        except ValueError:
            return True
    return False


def _without_index(frame: Any) -> tuple[Any, list[str]]:
    """The table without the numbers of its rows, which pandas writes as a first column without a name."""
    if len(frame.columns) < 2 or frame.columns[0] not in ("", "Unnamed: 0"):
        return frame, []
    first = frame.iloc[:, 0]
    if first.dtype.kind in "iu" and first.is_unique:
        return frame.iloc[:, 1:], ["data: the first column, the numbers of the rows, is left out"]
    return frame, []


def _columns_beside(path: Path, names: list[str], asked: Asked) -> tuple[str | None, list[str]]:
    """The columns of labels and context: those asked for, else those of a usual name."""
    labels, context = asked.labels, asked.context
    if labels is not None:
        require_name("labels", labels, names, path)
    if context is None:
        context = [name for name in names if name.lower() in BATCH_NAMES and name != labels][:1]
    for name in context:
        require_name("context", name, names, path)
    if labels is None:
        usual = [name for name in names if name.lower() in LABEL_COLUMNS and name not in context]
        labels = usual[0] if usual else None
    return labels, list(context)


def _require_numbers(path: Path, frame: Any, columns: list[str]) -> None:
    """Refuse columns of texts, with the first text."""
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    texts = []
    for name in columns:
        dtype = frame[name].dtype
        if not (is_numeric_dtype(dtype) or is_bool_dtype(dtype)) or dtype.kind == "c":
            texts.append(name)
    if not texts:
        return
    column = frame[texts[0]]
    row = _first_text(column)
    others = f" (and {len(texts) - 1} more columns)" if len(texts) > 1 else ""
    got = f"{str(column.iloc[row])[:40]!r} in column '{texts[0]}', row {row + 1}{others}"
    names = ", ".join(texts[:8])
    fix = f"--data.context=[{names}], --data.labels={texts[0]}, or a file without them"
    raise FileError(path, "numbers", got, fix)


def _first_text(column: Any) -> int:
    """The first row that is no number."""
    import pandas as pd

    is_text = pd.to_numeric(column, errors="coerce").isna() & column.notna()
    return int(is_text.to_numpy(dtype=bool).argmax())


def _common_dtype(frame: Any, columns: list[str]) -> Any:
    """Integers and truths where all columns are, else real numbers."""
    kinds = {frame[name].dtype.kind for name in columns}
    has_missing = bool(frame[columns].isna().to_numpy().any())
    if kinds == {"b"} and not has_missing:
        return np.bool_
    return np.int64 if kinds <= {"b", "i", "u"} and not has_missing else np.float64


def column_as_array(column: Any) -> np.ndarray:
    """A column of labels or context: numbers, else texts; what is missing is NaN or an empty text."""
    if column.dtype.kind in "biuf" and not hasattr(column.dtype, "na_value"):
        return column.to_numpy()
    if column.dtype.kind in "biuf":
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    return column.astype("object").where(column.notna(), "").astype(str).to_numpy(dtype=np.str_)
