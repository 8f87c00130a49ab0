"""Splits of data in an order of a seed's own, or as they lie."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor

from ...files.errors import FileError
from ...inference.process.states import check_seed
from .readers.content import ALL

SHARE = 0.1  # of the rows, for validation and for test
SHARE_OF_MNIST = 1 / 6  # the last 10,000 of 60,000
LEAST = 2  # rows of a split: a standard error needs two
PURPOSES = {"val": "validate", "test": "test"}  # what a split is there to

Rows = slice | np.ndarray
Plan = dict[str, tuple[str, Rows]]  # by split: which rows of which split of the file


def shuffle(images: Tensor, seed: int) -> Tensor:
    """The images in an order of the seed's own; the random state outside stays as it is."""
    generator = torch.Generator().manual_seed(seed)
    return images[torch.randperm(len(images), generator=generator)]


def plan_splits(
    path: Path,
    sizes: Mapping[str, int],
    val: float | None,
    test: float | None,
    seed: int,
    *,
    in_order: bool = False,
    last_of_train: bool = False,
) -> Plan:
    """Which rows are to train, to validate and to test: those of the file, and what it lacks from its training rows.

    Args:
        path: the file, for messages.
        sizes: number of rows by split of the file, under `ALL` if it has none.
        val: a share below 1 or a number; default: a tenth.
        test: likewise.
        seed: of the order.
        in_order: whether rows stay in their order: those to test are the last ones, before them those to validate.
        last_of_train: whether validation data are by default the last sixth, as of MNIST.

    Raises:
        ValueError: for a share or a number where the file has that split, or that leaves a split with fewer than 2.
        FileError: if the file has splits, but nothing to train on.
    """
    source = ALL if ALL in sizes else "train"
    if source not in sizes:
        got = f"splits {', '.join(sorted(sizes))}"
        raise FileError(path, "data to train on", got, "add train, or give one file without splits")
    plan: Plan = {}
    numbers: dict[str, int] = {}
    for name, asked in (("test", test), ("val", val)):
        if name in sizes:
            _refuse_second(path, name, asked)
            plan[name] = (name, slice(None))
        else:
            share = SHARE_OF_MNIST if last_of_train and name == "val" else SHARE
            numbers[name] = _number(path, name, share if asked is None else asked, sizes[source])
    num_train = sizes[source] - sum(numbers.values())
    if num_train < LEAST:
        _refuse_few(path, sizes[source], numbers)
    order = _order(sizes[source], seed, in_order=in_order or not numbers)
    plan["train"] = (source, _part(order, 0, num_train))
    start = num_train
    for name in ("val", "test"):
        if name in numbers:
            plan[name] = (source, _part(order, start, numbers[name]))
            start += numbers[name]
    return plan


def _refuse_few(path: Path, num: int, numbers: Mapping[str, int]) -> NoReturn:
    rows = f"{num} row" if num == 1 else f"{num} rows"
    least = LEAST * (1 + len(numbers))
    if num < least:
        uses = ["train", *(PURPOSES[name] for name in numbers)]
        each = " and ".join(f"{LEAST} to {use}" for use in uses)
        raise FileError(path, f"{least} rows or more, {each}", rows, "more rows")
    taken = " and ".join(f"{number} to {PURPOSES[name]}" for name, number in numbers.items())
    what = f"{LEAST} rows or more to train"
    raise FileError(path, what, f"{rows}, {taken}", "smaller --data.val and --data.test")


def _order(num: int, seed: int, *, in_order: bool) -> np.ndarray | None:
    if not 0 <= check_seed(seed) < 2**63:
        raise ValueError(
            f"data.split_seed: expected 0, …, 2**63 - 1, got {seed}. Fix: --data.split_seed=0."
        )
    return None if in_order else shuffle(torch.arange(num, device="cpu"), seed).numpy()


def _part(order: np.ndarray | None, start: int, num: int) -> Rows:
    """Some rows of an order, or of the order that they have."""
    return slice(start, start + num) if order is None else order[start : start + num]


def _refuse_second(path: Path, name: str, asked: float | None) -> None:
    if asked is not None:
        raise ValueError(
            f"data.{name}: expected none, since {path} has data to {name} of its own, got {asked:g}. "
            f"Fix: leave --data.{name} out."
        )


def _number(path: Path, name: str, asked: float, num: int) -> int:
    """How many rows a share or a number is."""
    if 0 < asked < 1:
        return max(LEAST, round(asked * num))
    if not asked >= LEAST or not float(asked).is_integer():
        raise ValueError(
            f"data.{name}: expected a share between 0 and 1, or a number of rows from {LEAST}, "
            f"got {asked:g} for {path}. Fix: --data.{name}=0.1."
        )
    return int(asked)
