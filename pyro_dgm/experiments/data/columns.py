"""Labels and context: categories as classes or one-hot, numbers in units of their spread."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...files.errors import FileError
from .readers.arrays import BATCH_NAMES, LABEL_NAMES
from .readers.content import ALL, Asked, BySplit, Content, require_name

MOST_CATEGORIES = 100  # of integers; more of them are numbers
MOST_CLASSES = 1000

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
                f"Fix: --data.context=[{asked.labels}]."
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
    for name in asked.context:
        require_name("context", name, list(content.beside), content.path)
    return list(asked.context)


def are_classes(values: BySplit) -> bool:
    """Whether values are a text or an integer for each datum, of few different ones."""
    for column in values.values():
        if column.size != len(column) or column.dtype.kind not in "biufU":
            return False
        if column.dtype.kind == "f" and not bool((column == np.floor(column)).all()):
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
    other numbers are standardized by mean and standard deviation of the training data, column by column.
    """
    train = values["train"]
    is_column = train.size == len(train)
    is_text = train.dtype.kind == "U"
    if is_column and (is_text or train.dtype.kind in "biu"):
        categories = categories_of(values)
        if is_text or len(categories) <= MOST_CATEGORIES:
            found = {split: _one_hot(column, categories) for split, column in values.items()}
            return found, f"{name}: {len(categories)} categories, one-hot"
    flat = {split: column.reshape(len(column), -1) for split, column in values.items()}
    if all(bool(np.isin(column, (0, 1)).all()) for column in flat.values()):
        return {split: _floats(column) for split, column in flat.items()}, f"{name}: 0 and 1"
    mean = flat["train"].mean(0, dtype=np.float64)
    spread = flat["train"].std(0, dtype=np.float64)
    spread[spread == 0] = 1.0
    scaled = {split: _floats((column - mean) / spread) for split, column in flat.items()}
    return scaled, f"{name}: {len(mean)} numbers, standardized by the training data"


def check_beside(path: Path, name: str, values: BySplit) -> None:
    """Refuse labels and context with missing or infinite values.

    Raises:
        FileError: with the first row of one.
    """
    for split, column in values.items():
        of_split = "" if split == ALL else f" of {split}"
        if column.dtype.kind not in "biufU":
            got = f"values of dtype {column.dtype} in '{name}'{of_split}"
            raise FileError(path, "numbers or texts", got, "leave it out of --data.context")
        rows = column.reshape(len(column), -1)
        is_bad = (rows == "") if column.dtype.kind == "U" else ~np.isfinite(rows)
        if is_bad.any():
            row = int(is_bad.any(1).argmax())
            got = f"none in '{name}', row {row + 1}{of_split}"
            raise FileError(path, "a value in every row", got, "leave that row out, or fill it in")


def _one_hot(column: np.ndarray, categories: np.ndarray) -> Tensor:
    place = np.searchsorted(categories, column.reshape(-1))
    found = torch.zeros(len(place), len(categories))
    found[torch.arange(len(place)), torch.from_numpy(place)] = 1.0
    return found


def _floats(array: np.ndarray) -> Tensor:
    return torch.as_tensor(array).to(torch.get_default_dtype())
