"""Arrays by name, of npz, pt and safetensors files: which one is the data, and which are splits, labels, context."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ....files.errors import FileError
from .content import ALL, SPLIT_NAMES, Asked, BySplit, Content, require_name, require_names

DATA_NAMES = ("x", "data", "images", "counts", "features", "inputs", "samples", "arr_0")
LABEL_NAMES = ("labels", "label", "y", "targets", "target", "classes", "class")
BATCH_NAMES = ("batch", "batches", "batch_label", "batch_labels", "batch_index")
NUM_BITS = "num_vars"  # how many bits of each row are data, where rows are packed


def content_of_arrays(path: Path, arrays: Mapping[str, np.ndarray], asked: Asked) -> Content:
    """Arrays by name as data, splits and what stands beside them.

    `x_train`, `train_x`, `train` and the like are splits as they are. The data are the array called x, data, images or
    the only one; arrays of as many rows stand beside them.

    Args:
        path: the file, for messages.
        arrays: its arrays by name.
        asked: what the user names.

    Raises:
        ValueError: for a name that is not there, or if it can't be told which array is the data.
    """
    groups = _by_role({name: array for name, array in arrays.items() if array.ndim > 0})
    role = _role_of_data(path, groups, asked)
    x = groups.pop(role)
    if ALL in x and len(x) > 1:
        got = f"'{role}' and its splits {sorted(set(x) - {ALL})}"
        raise FileError(path, "data as a whole or by split", got, "leave one of them out")
    said = []
    bits = arrays.get(NUM_BITS)
    if bits is not None and bits.ndim == 0:
        x = _unpacked(x, int(bits), path)
        said.append(f"data: bits of packed bytes, {NUM_BITS} = {int(bits)}")
    beside, others = _of_as_many_rows(x, groups)
    if asked.labels is not None:
        require_name("labels", asked.labels, list(beside), path)
    require_names("context", asked.context or (), list(beside), path)
    if others:
        said.append(f"data: not used, of other numbers of rows: {', '.join(sorted(others))}")
    return Content(path, x, beside, said=said, options=("array",))


def _by_role(arrays: Mapping[str, np.ndarray]) -> dict[str, BySplit]:
    """Arrays by their name without the split, and by split: `x_train` is the split train of x."""
    groups: dict[str, BySplit] = {}
    for name, array in arrays.items():
        role, split = _role_and_split(name)
        groups.setdefault(role, {})[split] = array
    return groups


def _role_and_split(name: str) -> tuple[str, str]:
    words = re.split(r"[_.\-/ ]", name)
    for word, rest in ((words[0], words[1:]), (words[-1], words[:-1])):
        split = SPLIT_NAMES.get(word.lower())
        if split is not None:
            return "_".join(rest) or "x", split
    return name, ALL


def _role_of_data(path: Path, groups: Mapping[str, BySplit], asked: Asked) -> str:
    """The name of the data among those of the arrays."""
    roles = list(groups)
    if asked.array is not None:
        require_name("array", asked.array, roles, path)
        return asked.array
    for known in DATA_NAMES:
        for role in roles:
            if role.lower() == known:
                return role
    beside = {*LABEL_NAMES, *BATCH_NAMES, *asked.columns}
    left = [role for role in roles if role.lower() not in beside]
    if len(left) == 1:
        return left[0]
    what = "an array of data, called x, data or images, or the only one"
    got = f"arrays {', '.join(roles)}" if roles else "no array"
    raise FileError(path, what, got, f"--data.array={left[0]}" if left else "np.savez(path, x=x)")


def _unpacked(x: BySplit, num_bits: int, path: Path) -> BySplit:
    """Bits of rows that are packed into bytes, `np.packbits(x, axis=1)`."""
    found = {}
    for split, packed in x.items():
        if (
            packed.dtype != np.uint8
            or packed.ndim != 2
            or packed.shape[1] != math.ceil(num_bits / 8)
        ):
            what = f"rows of {num_bits} bits, in {math.ceil(num_bits / 8)} bytes each"
            got = f"{packed.dtype} {packed.shape} in {split}"
            raise FileError(path, what, got, "np.packbits(x, axis=1), or leave num_vars out")
        found[split] = np.unpackbits(packed, axis=1)[:, :num_bits].astype(np.bool_)
    return found


def _of_as_many_rows(
    x: BySplit, groups: Mapping[str, BySplit]
) -> tuple[dict[str, BySplit], list[str]]:
    """Arrays with a row per datum in every split, and the names of the others."""
    beside, others = {}, []
    sizes = {split: len(rows) for split, rows in x.items()}
    for role, arrays in groups.items():
        if {split: len(rows) for split, rows in arrays.items()} == sizes:
            beside[role] = arrays
        else:
            others.append(role)
    return beside, others
