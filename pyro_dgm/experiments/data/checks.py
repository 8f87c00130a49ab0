"""Every split is looked at before the first step: finite, in range, of one shape, with its context."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor

from ...inference.data.tensors import sum_of_extremes
from .datasets import SPLITS, Data
from .splits import LEAST

FIX = "Data(train, val, test, event_shape, levels) with splits of one kind"
BLOCK = 2**22  # numbers that are looked at at once


def check_splits(data: Data) -> None:
    """Refuse data that training, validation or evaluation would stumble over later.

    Each split needs at least 2 rows of `data.dim` numbers that are finite, integers 0, …, L − 1 where there are levels
    (between 0 and 1, or bytes, where they are binarized anew in each epoch), and as many rows of context, finite and of
    one shape in all splits, of which the last is a mask where `has_mask` says so.

    Args:
        data: three splits.

    Raises:
        ValueError: with the split, the argument and the row.
    """
    for name in SPLITS:
        x = getattr(data, name)
        _check_shape(name, x, data)
        _check_values(name, x, data)
        _check_context(name, data)
        labels = data.labels.get(name)
        if labels is not None and len(labels) != len(x):
            raise ValueError(
                f"data.labels['{name}']: expected {len(x)} classes, one for each datum, "
                f"got {len(labels)}. Fix: labels of the same rows."
            )


def _check_shape(name: str, x: Any, data: Data) -> None:
    width = x[:1].numel() if len(x) else data.dim
    if len(x) < LEAST or width != data.dim or x.shape[1:] != data.train.shape[1:]:
        raise ValueError(
            f"data.{name}: expected at least {LEAST} rows of {data.dim} numbers, event shape "
            f"{data.event_shape}, got {tuple(x.shape)}. Fix: {FIX}."
        )


def _check_values(name: str, x: Tensor, data: Data) -> None:
    _check_finite(f"data.{name}", x)
    if data.levels is None:
        return
    is_grey = name == "train" and data.dynamic
    if is_grey and x.dtype is torch.uint8:
        return
    high = 1 if is_grey else data.levels - 1
    num = max(1, BLOCK // data.dim)
    for start in range(0, len(x), num):
        block = x[start : start + num].reshape(-1, data.dim)
        smallest, largest = block.aminmax()
        is_whole = is_grey or not block.is_floating_point() or bool((block == block.round()).all())
        if smallest < 0 or largest > high or not is_whole:
            _refuse_value(name, block, high, start, is_grey=is_grey)


def _refuse_value(name: str, block: Tensor, high: int, start: int, *, is_grey: bool) -> NoReturn:
    is_bad = (block < 0) | (block > high)
    if not is_grey:
        is_bad |= block != block.round()
    row = int(is_bad.any(1).int().argmax())
    value = block[row][is_bad[row]][0].item()
    what = "numbers from 0 to 1" if is_grey else f"integers 0, …, {high}"
    raise ValueError(
        f"data.{name}: expected {what}, got {value:g} in row {start + row}. "
        "Fix: levels= of the data, or levels=None for numbers without levels."
    )


def _check_finite(name: str, x: Tensor) -> None:
    if not x.is_floating_point() or bool(sum_of_extremes(x).isfinite()):
        return
    is_bad = ~x.isfinite().reshape(len(x), -1).all(1)
    row = int(is_bad.int().argmax())
    raise ValueError(
        f"{name}: expected finite numbers, got NaN or inf in {int(is_bad.sum())} of {len(x)} rows, "
        f"first in row {row}. Fix: leave the rows out, or File(path, missing='mask')."
    )


def _check_context(name: str, data: Data) -> None:
    context = data.context.get(name, ())
    of_train = data.context.get("train", ())
    if len(context) != len(of_train):
        raise ValueError(
            f"data.context['{name}']: expected {len(of_train)} tensors as in train, got {len(context)}. "
            "Fix: the same context in every split."
        )
    x = getattr(data, name)
    for position, (value, first) in enumerate(zip(context, of_train, strict=True)):
        own_name = f"data.context['{name}'][{position}]"
        if len(value) != len(x) or value.shape[1:] != first.shape[1:]:
            raise ValueError(
                f"{own_name}: expected shape {(len(x), *first.shape[1:])}, "
                f"got {tuple(value.shape)}. Fix: a row for each datum, and one width in all splits."
            )
        _check_finite(own_name, value)
    if data.has_mask:
        _check_mask(name, x, context)


def _check_mask(name: str, x: Tensor, context: tuple[Tensor, ...]) -> None:
    mask = context[-1] if context else None
    if mask is None or mask.dtype is not torch.bool or mask.shape != x.shape:
        got = "none" if mask is None else f"{mask.dtype} {tuple(mask.shape)}"
        raise ValueError(
            f"data.context['{name}']: expected a mask, bool {tuple(x.shape)}, as its last tensor, "
            f"since has_mask=True; got {got}. Fix: observed = x.isfinite(), behind the context."
        )
