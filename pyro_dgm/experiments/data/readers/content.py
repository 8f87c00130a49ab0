"""What a file or a folder holds: rows of data, and what stands beside them, as a whole or by split."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml

from ....files.errors import FileError
from ...spelling import nearest

ALL = "all"  # the only split of rows that are not split yet
SPLITS = ("train", "val", "test")
# Names of splits that files, folders and arrays have, and what they mean.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "tr": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
    "t10k": "test",
}

BySplit = dict[str, np.ndarray]


@dataclass(frozen=True)
class Asked:
    """What a user asks for by name.

    Attributes:
        array: name of the array of data, where there are several.
        labels: name of the array or column of classes.
        context: names of arrays or columns that are context.
        size: height and width of images.
        layer: of annotated data, in place of X.
        drop: names of columns that are not read.
        has_mask: whether what is missing is told by a mask, and not refused.
    """

    array: str | None = None
    labels: str | None = None
    context: Sequence[str] | None = None
    size: tuple[int, int] | None = None
    layer: str | None = None
    drop: Sequence[str] | None = None
    has_mask: bool = False

    @property
    def columns(self) -> list[str]:
        """Names that are no data: labels and context, each once."""
        names = [] if self.labels is None else [self.labels]
        return list(dict.fromkeys([*names, *(self.context or ())]))


@dataclass
class Content:
    """Rows of data, `(N, *event)`, with what stands beside them.

    Attributes:
        path: where it was read.
        x: the data by split; under `ALL` where they are not split.
        beside: further arrays with a row per datum, by name and split.
        names: of the columns, for tables.
        labels: the name in `beside` of the classes, where the format says so.
        in_order: whether rows to validate by are the last ones of those to train on, as is usual for MNIST.
        said: how it was read.
        options: those of array, size, layer and drop that the format has.
    """

    path: Path
    x: BySplit
    beside: dict[str, BySplit] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    labels: str | None = None
    in_order: bool = False
    said: list[str] = field(default_factory=list)
    options: tuple[str, ...] = ()

    @property
    def is_split(self) -> bool:
        """Whether the file has splits of its own."""
        return ALL not in self.x

    @property
    def is_image(self) -> bool:
        """Whether a datum has a height and a width."""
        return next(iter(self.x.values())).ndim >= 3


def joined(path: Path, parts: dict[str, Content]) -> Content:
    """Files that are a split each, as one content; what not all of them have beside their data is left out.

    Raises:
        FileError: if one has splits of its own, or no two have the same columns.
    """
    first = next(iter(parts.values()))
    for part in parts.values():
        if part.is_split:
            got = f"one with splits {sorted(part.x)} of its own"
            raise FileError(part.path, "a file that is one split", got, f"--data.path={part.path}")
        if part.names != first.names:
            _refuse_other_columns(first, part)
    shared = [name for name in first.beside if all(name in p.beside for p in parts.values())]
    beside = {name: {key: p.beside[name][ALL] for key, p in parts.items()} for name in shared}
    x = {key: part.x[ALL] for key, part in parts.items()}
    said = list(dict.fromkeys(line for part in parts.values() for line in part.said))
    labels = first.labels if first.labels in shared else None
    return Content(path, x, beside, first.names, labels, first.in_order, said, first.options)


def refuse_unused(content: Content, asked: Asked) -> None:
    """Refuse an option that the format does not have.

    Raises:
        ValueError: for such an option.
    """
    purposes = {
        "array": "arrays by name",
        "size": "pictures in a folder",
        "layer": "h5ad files",
        "drop": "tables",
    }
    for name, purpose in purposes.items():
        value = getattr(asked, name)
        if value is not None and name not in content.options:
            raise ValueError(
                f"data.{name}: expected none for {content.path}, since it is for {purpose}, "
                f"got {value}. Fix: leave --data.{name} out."
            )


def _refuse_other_columns(first: Content, second: Content) -> None:
    other = sorted(set(first.names) ^ set(second.names)) or "the same ones in another order"
    raise FileError(
        second.path,
        f"the columns of {first.path.name}",
        f"others: {other}",
        "one order of columns in all files",
    )


def list_flag(option: str, names: Sequence[str]) -> str:
    r"""The flag that gives a list of names, as a shell takes it: quoted, and without spaces.

    Example:
        >>> list_flag("drop", ["id", "0", "first, second"])
        '\'--data.drop=[id,"0","first, second"]\''
    """
    return shlex.quote(f"--data.{option}=[{','.join(map(_as_item, names))}]")


def _as_item(name: str) -> str:
    """A name as it stands in a list of YAML: in quotes where it would be read as something else."""
    try:
        is_plain = yaml.safe_load(f"[{name}]") == [name]
    except yaml.YAMLError:
        is_plain = False
    return name if is_plain else f'"{name}"'


def require_names(option: str, given: Sequence[str], names: Sequence[str], path: Path) -> None:
    """Refuse a list with a name that a file does not have; the fix is the list with the nearest one.

    Raises:
        ValueError: for such a name.
    """
    for name in given:
        close = nearest(name, names)
        mended = [close if other == name else other for other in given]
        kept = [other for other in dict.fromkeys(mended) if other is not None]
        fix = list_flag(option, kept) if kept else f"leave --data.{option} out"
        require_name(option, name, names, path, fix)


def require_name(
    option: str, name: str, names: Sequence[str], path: Path, fix: str | None = None
) -> None:
    """Refuse a name that a file does not have, with the nearest one that it has.

    Raises:
        ValueError: for such a name.
    """
    if name in names:
        return
    known = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    close = nearest(name, names)
    meant = f", did you mean '{close}'" if close else ""
    example = close or (names[0] if names else None)
    if fix is None:
        fix = f"--data.{option}={example}" if example else f"leave --data.{option} out"
    raise ValueError(
        f"data.{option}: expected a name in {path}, one of: {known or 'none'}; "
        f"got '{name}'{meant}. Fix: {fix}."
    )
