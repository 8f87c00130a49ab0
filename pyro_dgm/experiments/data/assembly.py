"""From what a file holds to what a data set is: kind, splits, mask, labels, context, each said in a line."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...files.errors import FileError
from .columns import (
    context_names,
    encode_context,
    encode_labels,
    filled_beside,
    label_name,
)
from .datasets import SPLITS, Kind
from .grey import binarized
from .kinds import Summary, choose_kind, first_missing, summarize
from .readers.content import Asked, BySplit, Content, refuse_unused
from .readers.locating import read_content
from .readers.suspects import warn_of_columns
from .shapes import as_rows, names_text, size_text
from .splits import Plan, plan_splits

EXACT = 2**24  # integers to which float32 holds
OF_TORCH = (
    "uint8",
    "int16",
    "int32",
    "int64",
    "float32",
    "float64",
)  # dtypes of maps that torch computes with
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Choices:
    """What a user chooses of the numbers; see `File`."""

    val: float | None = None
    test: float | None = None
    split_seed: int = 0
    kind: Kind | None = None
    levels: int | None = None
    binarize: str | float = "no"
    missing: str = "refuse"
    standardize: bool = False


@dataclass(frozen=True)
class Rows:
    """The numbers of a file as rows `(N, D)` by its splits, and what they are."""

    x: BySplit
    event_shape: tuple[int, ...]
    kind: Kind
    levels: int | None

    @property
    def is_mapped(self) -> bool:
        """Whether they are on disk."""
        return any(getattr(part, "_mmap", None) is not None for part in self.x.values())


def assemble(path: Path, asked: Asked, choices: Choices) -> dict[str, Any]:
    """The arguments of `Data` for a file or a folder.

    Raises:
        FileError, ValueError, ImportError: see `File`.
    """
    content = read_content(path, asked)
    refuse_unused(content, asked)
    rows, said = _read_rows(content, choices)
    warn_of_columns(content, asked, is_real=rows.kind is Kind.REAL, stacklevel=4)
    plan, line = _plan(content, rows, choices)
    x, masks, lines = _tensors(rows, plan, choices)
    levels, is_dynamic = rows.levels, False
    if choices.binarize != "no":
        x, of_binary = binarized(choices.binarize, x, rows.levels, choices.split_seed)
        levels, is_dynamic = 2, choices.binarize == "dynamic"
        lines.append(of_binary)
    labels, classes, of_labels = _labels(content, asked, plan)
    context, of_context = _context(content, asked, plan)
    for split, mask in masks.items():
        context[split] = (*context.get(split, ()), mask)
    return {
        **x,
        "event_shape": rows.event_shape,
        "levels": levels,
        "dynamic": is_dynamic,
        "context": context,
        "labels": labels,
        "classes": classes,
        "has_mask": bool(masks),
        "kind": Kind.BINARY if levels == 2 else rows.kind,
        "names": content.names,
        "said": [*said, line, *lines, *of_labels, *of_context],
    }


def _read_rows(content: Content, choices: Choices) -> tuple[Rows, list[str]]:
    """The numbers, all looked at once; missing ones only where they may be."""
    x, event_shape, turned = as_rows(content)
    names = content.names
    summaries = [summarize(content.path, split, part, names) for split, part in x.items()]
    summary = summaries[0]
    for other in summaries[1:]:
        summary |= other
    if summary.num_missing and choices.missing != "mask":
        places = [first_missing(split, part, names) for split, part in x.items()]
        first = next(place for place in places if place)
        got = f"{summary.num_missing} missing (NaN), the first in {first}"
        fix = "--data.missing=mask, or a file without those rows"
        raise FileError(content.path, "a number in every place", got, fix)
    if summary.low > summary.high:
        raise FileError(content.path, "numbers", "missing ones alone", "another --data.array")
    num = sum(len(part) for part in x.values())
    if summary.low == summary.high and num > 1:
        got = f"{summary.low:g} in every place, which leaves nothing to model"
        raise FileError(content.path, "numbers that differ", got, "a file of other numbers")
    _require_range(content, summary)
    kind, levels, text = choose_kind(
        content.path, x, summary, choices.kind, choices.levels, is_image=content.is_image
    )
    thing = "images" if content.is_image else "rows"
    if kind is Kind.COUNTS and choices.kind is None:
        _warn_of_float_counts(content, summary, stacklevel=5)
    line = f"data: {num:,} {thing} of {size_text(event_shape)}{names_text(names)}, {text}"
    return Rows(x, event_shape, kind, levels), [line, *content.said, *turned]


def _warn_of_float_counts(content: Content, summary: Summary, stacklevel: int) -> None:
    """Warn of whole numbers in floats, unless there is a reason for them: annotated data, or NaN among them."""
    if summary.dtype.kind == "f" and not summary.num_missing and "layer" not in content.options:
        warnings.warn(
            f"{content.path}: all numbers are whole, though of dtype {summary.dtype}: they are taken "
            "for counts, a mass and no density. Fix: --data.kind=real for measurements, "
            "--data.kind=counts for counts.",
            stacklevel=stacklevel,
        )


def _require_range(content: Content, summary: Summary) -> None:
    """Refuse numbers that the default dtype does not hold."""
    dtype = torch.get_default_dtype()
    extreme = max(summary.low, summary.high, key=abs)
    if abs(extreme) > torch.finfo(dtype).max:
        fix = "a smaller unit in the file, or log(x)"
        raise FileError(content.path, f"numbers that {dtype} holds", f"{extreme:g}", fix)


def _plan(content: Content, rows: Rows, choices: Choices) -> tuple[Plan, str]:
    """Which rows are whose, and a line that says so."""
    sizes = {split: len(part) for split, part in rows.x.items()}
    plan = plan_splits(
        content.path,
        sizes,
        choices.val,
        choices.test,
        choices.split_seed,
        in_order=rows.is_mapped or content.in_order,
        last_of_train=content.in_order,
    )
    found = {name: len(rows.x[plan[name][0]][plan[name][1]]) for name in SPLITS}
    numbers = ", ".join(f"{number:,} {name}" for name, number in found.items())
    if set(sizes) == set(SPLITS):
        how = "as in the file"
    elif rows.is_mapped:
        how = "consecutive rows of the file, which stays on disk (--data.val, --data.test)"
    elif content.in_order:
        how = "the last ones of train validate (--data.val)"
    else:
        how = f"at random by seed {choices.split_seed} (--data.val, --data.test, --data.split_seed)"
    return plan, f"splits: {numbers}, {how}"


def _tensors(rows: Rows, plan: Plan, choices: Choices) -> tuple[Tensors, Tensors, list[str]]:
    """The splits and their masks, none where nothing may be missing, with lines that say what was done."""
    x = {}
    for split in SPLITS:
        source, index = plan[split]
        x[split] = _as_tensor(rows.x[source][index], rows.kind)
    said = []
    if choices.standardize:
        said.append(_standardize(x, rows.kind))
    if choices.missing != "mask":
        return x, {}, said
    masks = {split: ~part.isnan() for split, part in x.items()}
    x = {split: part.nan_to_num(0.0) for split, part in x.items()}
    num_seen = sum(int(mask.sum()) for mask in masks.values())
    num = sum(mask.numel() for mask in masks.values())
    text = f"{1 - num_seen / num:.1%} of the numbers are, 0 stands there"
    said.append(f"missing: {text}; the mask is the last context (--data.missing)")
    return x, masks, said


def _as_tensor(part: np.ndarray, kind: Kind) -> Tensor:
    """Bytes of levels as bytes and a memory map as it is, all others in the default dtype, if it holds them."""
    is_mapped = getattr(part, "_mmap", None) is not None
    if is_mapped and part.dtype.isnative and part.dtype.name in OF_TORCH:
        return torch.from_numpy(part)
    if part.dtype == np.uint8 and kind is Kind.LEVELS:
        return torch.from_numpy(np.ascontiguousarray(part))
    dtype = torch.get_default_dtype()
    if part.dtype.kind in "iu" and part.size and part.max() > EXACT and dtype != torch.float64:
        return torch.from_numpy(part.astype(np.int64))
    wide = part.astype(np.float64 if dtype == torch.float64 else np.float32)
    return torch.from_numpy(wide).to(dtype)


def _standardize(x: Tensors, kind: Kind) -> str:
    """Shift and scale every column by mean and standard deviation of what is there of the training data."""
    if kind is not Kind.REAL:
        raise ValueError(
            f"data.standardize: expected real numbers, got {kind.value}. "
            "Fix: --data.kind=real, or leave --data.standardize out."
        )
    train = x["train"].double()
    is_there = ~train.isnan()
    num = is_there.sum(0).clamp(min=1)
    mean = train.nan_to_num(0.0).sum(0) / num
    deviation = torch.where(is_there, train - mean, 0.0)
    spread = (deviation.square().sum(0) / num).sqrt()
    spread = torch.where(spread > 0, spread, 1.0)
    for split, part in x.items():
        x[split] = ((part - mean) / spread).to(part.dtype)
    nats = sum(log(scale) for scale in spread.tolist())
    text = "mean 0 and standard deviation 1 in every column of the training data"
    return f"standardize: {text}; −log p of the file's own numbers is {nats:+.4g} nats more"


def _labels(content: Content, asked: Asked, plan: Plan) -> tuple[Tensors, list[str], list[str]]:
    name = label_name(content, asked)
    if name is None:
        return {}, [], []
    values = _beside(content, name, plan, has_mask=asked.has_mask, as_classes=True)
    labels, classes = encode_labels(values)
    use = "kept for figures" + ("" if name in (asked.context or ()) else "; not used by the model")
    return labels, classes, [f"labels: {len(classes)} classes by '{name}', {use} (--data.labels)"]


def _context(
    content: Content, asked: Asked, plan: Plan
) -> tuple[dict[str, tuple[Tensor, ...]], list[str]]:
    """A tensor of each name by split."""
    found: dict[str, tuple[Tensor, ...]] = {}
    said = []
    for name in context_names(content, asked):
        values = _beside(content, name, plan, has_mask=asked.has_mask, as_classes=False)
        by_split, text = encode_context(name, values)
        said.append(f"context: {text} (--data.context)")
        for split, value in by_split.items():
            found[split] = (*found.get(split, ()), value)
    return found, said


def _beside(
    content: Content, name: str, plan: Plan, *, has_mask: bool, as_classes: bool
) -> BySplit:
    """What stands beside the data, in the rows of the splits."""
    found = content.beside[name]
    values = filled_beside(content.path, name, found, has_mask=has_mask, as_classes=as_classes)
    return {split: values[source][rows] for split, (source, rows) in plan.items()}
