"""Labels and context: categories as classes or one-hot, numbers in units of their spread."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...files.errors import FileError
from .readers.arrays import BATCH_NAMES, LABEL_NAMES
from .readers.content import ALL, Asked, BySplit, Content, list_flag, require_name, require_names
from .readers.mixed import MOST_CATEGORIES

MOST_CLASSES = 1000
MISSING = "(missing)"  # the category of what is missing

Tensors = dict[str, Tensor]


def label_name(content: Content, asked: Asked) -> str | None:
    """The name of the classes: the one asked for, of the format, or a usual one whose values are classes.

    Raises:
        ValueError: if what is asked for is not there or is no class.
    """
    if asked.labels is not None:
        require_name("labels", asked.labels, list(content.beside), content.path)
        if not are_classes(content.beside[asked.labels]):
            raise ValueError(
                f"data.labels: expected classes, texts or integers of at most {MOST_CLASSES} "
                f"values, got '{asked.labels}' in {content.path}, which holds others. "
                f"Fix: {_as_context(asked)} in place of --data.labels."
            )
        return asked.labels
    if content.labels is not None:
        return content.labels
    usual = [name for name in content.beside if name.lower() in LABEL_NAMES]
    return next((name for name in usual if are_classes(content.beside[name])), None)


def context_names(content: Content, asked: Asked) -> list[str]:
    """The names of what is context: those asked for, else a batch of each datum where there is one.

    Raises:
        ValueError: for a name that is not there.
    """
    if asked.context is None:
        return [name for name in content.beside if name.lower() in BATCH_NAMES][:1]
    require_names("context", asked.context, list(content.beside), content.path)
    return list(asked.context)


def _as_context(asked: Asked) -> str:
    """The flag that makes what was asked for as labels context, too."""
    return list_flag("context", list(dict.fromkeys([*(asked.context or ()), str(asked.labels)])))


def are_classes(values: BySplit) -> bool:
    """Whether values are a text or an integer for each datum, of few different ones."""
    for column in values.values():
        if column.size != len(column) or column.dtype.kind not in "biufU":
            return False
        if column.dtype.kind == "f":
            there = column[~np.isnan(column)]
            if not bool((there == np.floor(there)).all()):
                return False
    return len(categories_of(values)) <= MOST_CLASSES


def categories_of(values: BySplit) -> np.ndarray:
    """The different values of all splits, ascending."""
    return np.unique(np.concatenate([column.reshape(-1) for column in values.values()]))


def encode_labels(values: BySplit) -> tuple[Tensors, list[str]]:
    """Classes 0, …, C − 1 by split, and their names."""
    categories = categories_of(values)
    found = {}
    for split, column in values.items():
        found[split] = torch.from_numpy(np.searchsorted(categories, column.reshape(-1)))
    is_whole = categories.dtype.kind == "f"
    names = [str(int(name)) if is_whole else str(name) for name in categories]
    return found, names


def encode_context(name: str, values: BySplit) -> tuple[Tensors, str]:
    """A tensor `(N, K)` of each split in the default dtype, and a line that says what it is.

    Texts, truths and integers of at most 100 values are categories, one-hot with a column for each value in any split;
    other numbers are standardized by mean and standard deviation of the training data, column by column. A text that
    is missing is a category; of numbers that are missing, NaN, the mean stands there, with a column that is 0.
    """
    train = values["train"]
    is_column = train.size == len(train)
    is_text = train.dtype.kind == "U"
    if is_column and (is_text or train.dtype.kind in "biu"):
        categories = categories_of(values)
        if is_text or len(categories) <= MOST_CATEGORIES:
            found = {split: _one_hot(column, categories) for split, column in values.items()}
            of_missing = ", the missing ones are one of them" if MISSING in categories else ""
            return found, f"{name}: {len(categories)} categories, one-hot{of_missing}"
    flat = {split: column.reshape(len(column), -1) for split, column in values.items()}
    if all(bool(np.isin(column, (0, 1)).all()) for column in flat.values()):
        return {split: _floats(column) for split, column in flat.items()}, f"{name}: 0 and 1"
    return _standardized(name, flat)


def _standardized(name: str, flat: BySplit) -> tuple[Tensors, str]:
    """Numbers in units of their spread in the training data, and behind them which are there, if some are not."""
    train = flat["train"]
    is_there = np.isfinite(train)
    num = np.maximum(is_there.sum(0), 1)
    mean = np.where(is_there, train, 0).sum(0, dtype=np.float64) / num
    spread = np.sqrt((np.where(is_there, train - mean, 0) ** 2).sum(0, dtype=np.float64) / num)
    spread[spread == 0] = 1.0
    found = {}
    has_missing = any(bool(np.isnan(column).any()) for column in flat.values())
    for split, column in flat.items():
        scaled = np.nan_to_num((column - mean) / spread)
        if has_missing:
            scaled = np.concatenate([scaled, np.isfinite(column)], axis=1)
        found[split] = _floats(scaled)
    thing = "number" if len(mean) == 1 else "numbers"
    text = f"{name}: {len(mean)} {thing}, standardized by the training data"
    of_missing = ", and where they are there" if has_missing else ""
    return found, text + of_missing


def filled_beside(
    path: Path, name: str, values: BySplit, *, has_mask: bool, as_classes: bool
) -> BySplit:
    """Labels or context in which nothing is missing, or what is missing is a category or NaN.

    Args:
        path: the file, for messages.
        name: of the column or the array.
        values: by split.
        has_mask: whether something may be missing.
        as_classes: whether numbers are classes, too, such as those of labels.

    Raises:
        FileError: for what is missing and must not be, and for infinite numbers, with the first row of one.
    """
    _refuse_infinite(path, name, values)
    if not any(_is_missing(column).any() for column in values.values()):
        return values
    if not has_mask:
        _refuse_missing(path, name, values, as_classes=as_classes)
    if not as_classes and all(column.dtype.kind != "U" for column in values.values()):
        return values
    return {split: _with_category(column) for split, column in values.items()}


def _refuse_infinite(path: Path, name: str, values: BySplit) -> None:
    for split, column in values.items():
        of_split = "" if split == ALL else f" of {split}"
        if column.dtype.kind not in "biufU":
            got = f"values of dtype {column.dtype} in '{name}'{of_split}"
            raise FileError(path, "numbers or texts", got, "leave it out of --data.context")
        if column.dtype.kind == "f":
            is_bad = np.isinf(column.reshape(len(column), -1)).any(1)
            if is_bad.any():
                got = f"inf in '{name}', row {int(is_bad.argmax()) + 1}{of_split}"
                raise FileError(path, "finite numbers", got, "leave that row out of the file")


def _refuse_missing(path: Path, name: str, values: BySplit, *, as_classes: bool) -> None:
    for split, column in values.items():
        is_bad = _is_missing(column.reshape(len(column), -1)).any(1)
        if is_bad.any():
            of_split = "" if split == ALL else f" of {split}"
            got = f"none in '{name}', row {int(is_bad.argmax()) + 1}{of_split}"
            if as_classes or column.dtype.kind == "U":
                how = "missing is a category of its own then"
            else:
                how = "a further column says where it is there then"
            fix = f"--data.missing=mask ({how}), or fill it in"
            raise FileError(path, "a value in every row", got, fix)


def _is_missing(column: np.ndarray) -> np.ndarray:
    if column.dtype.kind == "U":
        return column == ""
    return np.isnan(column) if column.dtype.kind == "f" else np.zeros(column.shape, dtype=bool)


def _with_category(column: np.ndarray) -> np.ndarray:
    """Texts, or whole numbers as texts, with a category of what is missing."""
    is_missing = _is_missing(column)
    texts = column
    if column.dtype.kind != "U":
        texts = np.array([f"{value:.15g}" for value in column.reshape(-1)])
    return np.where(is_missing.reshape(texts.shape), MISSING, texts)


def _one_hot(column: np.ndarray, categories: np.ndarray) -> Tensor:
    place = np.searchsorted(categories, column.reshape(-1))
    found = torch.zeros(len(place), len(categories))
    found[torch.arange(len(place)), torch.from_numpy(place)] = 1.0
    return found


def _floats(array: np.ndarray) -> Tensor:
    return torch.as_tensor(array).to(torch.get_default_dtype())
