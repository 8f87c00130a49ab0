"""What a user calls data, and what is none: arrays, streams of batches, and the answers to everything else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from .stored import as_stored, is_stored
from .tensors import Batch, check_data, has_rows, is_array, refuse_complex, to_tensor


@runtime_checkable
class RowsByNumber(Protocol):
    """A map-style dataset, whatever its class: data by their number, and how many there are."""

    def __len__(self) -> int:
        """Number of data."""

    def __getitem__(self, place: Any, /) -> Any:
        """One datum."""


def is_option(value: Any) -> bool:
    """Whether a value is an argument that says nothing of the data: `None`, a number, settings in a dict."""
    return value is None or isinstance(value, (int, float, dict))


def is_stream(value: Any) -> bool:
    """Whether a value gives batches of data one after the other: a Dataset, a DataLoader, a list of batches."""
    if is_array(value) or is_stored(value) or isinstance(value, (str, tuple, Mapping, nn.Module)):
        return False
    if isinstance(value, list):
        is_number = bool(value) and is_array(value[0]) and value[0].ndim == 0
        return bool(value) and not is_number and not isinstance(value[0], (int, float, list))
    return isinstance(value, (Dataset, Iterable, RowsByNumber))


def read_whole(value: Any, name: str = "data") -> Tensor:
    """All rows of an array as one dense tensor, wherever they are."""
    if is_stored(value):
        rows = as_stored(value, name)
        return torch.cat([*rows.blocks()] or [rows.take(slice(0))])
    return to_tensor(value, name)


def is_beyond_budget(batch: Sequence[Any]) -> bool:
    """Whether arguments are stored rows that are too large to be read at once, dense as they are used."""
    for position, value in enumerate(batch):
        if is_stored(value):
            rows = as_stored(value, f"data[{position}]")
            if len(rows) > rows.num_at_once:
                return True
    return False


def as_tensors(batch: Sequence[Any], name: str = "data") -> Batch:
    """The arguments of a program with arrays as tensors, checked for NaN and for one row per datum in each.

    What is no array stays as it is, and every tensor where it is.

    Raises:
        TypeError: for a complex observation.
        ValueError: for empty, NaN or infinite data, or tensors of different lengths.
    """
    values, lengths = [], []
    for position, argument in enumerate(batch):
        value = argument
        if is_stored(argument) or is_array(argument):
            value = read_whole(argument, f"{name}[{position}]")
            if position == 0:
                refuse_complex(value, f"{name}[0]")
            check_data(value, f"{name}[{position}]")
        if has_rows(value):
            lengths.append(len(value))
        values.append(value)
    check_lengths(lengths, name)
    return tuple(values)


def check_lengths(lengths: Sequence[int], name: str) -> None:
    """Refuse arguments with other numbers of data than each other."""
    if len(set(lengths)) > 1:
        raise ValueError(
            f"{name}: expected tensors of one length, got {lengths}. Fix: one row per datum in each."
        )


def check_observation_argument(batch: Sequence[Any]) -> None:
    """Refuse what can't be the data x of a program: nothing, another program, a list of numbers, one number.

    Raises:
        TypeError, ValueError: with the call that works; for complex numbers.
    """
    if not batch:
        raise ValueError(
            "data: expected x after the programs, got none. Fix: nll(model, guide, x), encode(guide, x); for a "
            "model that holds its data, `def model(x):` that takes them, and so its guide."
        )
    x = batch[0]
    if is_stored(x):
        return
    if is_array(x):
        refuse_complex(x, "data[0]")
        if x.ndim == 0:
            raise ValueError(
                f"data: expected a tensor (N, *event), got a 0-dim tensor {x}. Fix: x[None], for one datum."
            )
        return
    if callable(x) and not is_stream(x):
        raise TypeError(
            f"data: expected x after the programs, got {type(x).__name__}, a program too many. Fix: "
            "encode(guide, x), active_units(guide, x), ais(model, x, start=guide), hmc(model, x, start=guide)."
        )
    if not is_stream(x):
        raise TypeError(
            f"data: expected x as a tensor or an array (N, *event), got {type(x).__name__}. Fix: {fix_of_form(x)}."
        )
    if len(batch) > 1:
        raise TypeError(
            f"data: expected one {type(x).__name__} whose batches hold all arguments, got "
            f"{len(batch)} arguments. "
            "Fix: batches (x, context), as TensorDataset(x, context) gives them."
        )


def fix_of_form(x: Any) -> str:
    """How what is no array becomes one, as code."""
    if not isinstance(x, Mapping):
        return "torch.as_tensor(x) for a list of numbers, *x for a tuple of arguments"
    arrays = [str(key) for key, value in x.items() if is_array(value) and value.ndim > 0]
    if not arrays and len(x):  # splits of a dataset, a file of arrays
        return f"one of what it holds, data[{next(iter(x))!r}]"
    names = ", ".join(arrays)
    pairs = ", ".join([f"{key!r}: {key}" for key in arrays])
    return (
        f"programs of arrays, `lambda {names}: model({{**data, {pairs}}})` and so the guide, the observation "
        "first, and these arrays as arguments in the same order"
    )


def check_list(data: list[Any], name: str) -> None:
    """Refuse a list that holds the arguments of a program, or numbers, in place of batches."""
    shapes = {tuple(part.shape[1:]) for part in data if is_array(part)}
    if len(shapes) > 1:
        raise TypeError(
            f"{name}: expected a list of batches of one event shape, got {sorted(shapes)}. "
            "Fix: a tuple for the arguments of a program, (x, labels)."
        )
    if not is_stream(data):
        raise TypeError(
            f"{name}: expected a tensor, an array or a list of batches, got a list of numbers or an empty one. "
            "Fix: torch.as_tensor(x), one row per datum."
        )
