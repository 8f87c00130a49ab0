"""Readers of tables: csv, tsv and parquet files, whose columns are dims of the data, labels or context."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ....files.errors import FileError
from ....files.reading import describe
from .arrays import BATCH_NAMES
from .content import ALL, Asked, Content, list_flag, require_name, require_names
from .mixed import require_numbers
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
    frame, said = _without_index(_with_truths(frame))
    frame, of_drop = _without_dropped(path, frame, asked)
    names = list(frame.columns)
    if frame.empty:
        raise FileError(
            path, "rows of numbers", f"{len(frame)} rows", "a table with a row per datum"
        )
    labels, context = _columns_beside(path, names, asked)
    beside = list(dict.fromkeys([*([labels] if labels else []), *context]))
    data = [name for name in names if name not in beside]
    if not data:
        fix = "leave a column out of --data.labels and --data.context"
        raise FileError(path, "a column of data", "labels and context alone", fix)
    require_numbers(path, frame, data, context, asked)
    x = frame[data].to_numpy(dtype=_common_dtype(frame, data), na_value=np.nan)
    arrays = {name: {ALL: column_as_array(frame[name])} for name in beside}
    said += of_drop
    return Content(path, {ALL: x}, arrays, data, labels=labels, said=said, options=("drop",))


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


def _with_truths(frame: Any) -> Any:
    """The table with columns of truths, some missing, as such: pandas reads them as objects."""
    found = {}
    for place in range(len(frame.columns)):
        column = frame.iloc[:, place]
        if column.dtype.kind == "O" and all(isinstance(v, bool) for v in column.dropna()):
            found[frame.columns[place]] = "boolean"
    return frame.astype(found) if found else frame


def _without_index(frame: Any) -> tuple[Any, list[str]]:
    """The table without the numbers of its rows, which pandas writes as a first column without a name."""
    if len(frame.columns) < 2 or frame.columns[0] not in ("", "Unnamed: 0"):
        return frame, []
    first = frame.iloc[:, 0]
    if first.dtype.kind in "iu" and first.is_unique:
        return frame.iloc[:, 1:], ["data: the first column, the numbers of the rows, is left out"]
    return frame, []


def _without_dropped(path: Path, frame: Any, asked: Asked) -> tuple[Any, list[str]]:
    """The table without the columns that are not to be read."""
    drop = list(dict.fromkeys(asked.drop or ()))
    if not drop:
        return frame, []
    require_names("drop", drop, list(frame.columns), path)
    both = [name for name in drop if name in asked.columns]
    if both:
        fix = list_flag("drop", [name for name in drop if name not in both])
        fix = fix if len(both) < len(drop) else "leave --data.drop out"
        raise ValueError(
            f"data.drop: expected columns that are neither labels nor context, got '{both[0]}'. "
            f"Fix: {fix}."
        )
    left = frame.drop(columns=drop)
    if left.columns.empty:
        raise FileError(path, "a column of data", "--data.drop of all", "leave one out of it")
    return left, [f"data: not read: {', '.join(drop)} (--data.drop)"]


def _columns_beside(path: Path, names: list[str], asked: Asked) -> tuple[str | None, list[str]]:
    """The columns of labels and context: those asked for, else those of a usual name."""
    labels, context = asked.labels, asked.context
    if labels is not None:
        require_name("labels", labels, names, path)
    if context is None:
        context = [name for name in names if name.lower() in BATCH_NAMES and name != labels][:1]
    require_names("context", context, names, path)
    if labels is None:
        usual = [name for name in names if name.lower() in LABEL_COLUMNS and name not in context]
        labels = usual[0] if usual else None
    return labels, list(context)


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
