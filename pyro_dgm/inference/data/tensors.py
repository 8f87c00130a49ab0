"""Data as users have them, as tensors: whole sets in memory, or a stream of batches; checked once, as they come."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

Batch = tuple[Any, ...]

# Integers without a sign, which torch stores but does not compute with, become those with one.
UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)
SIGNED = {"uint16": "int64", "uint32": "int64", "uint64": "int64"}

BLOCK = (
    2**18
)  # values that are looked at at once: they stay in the cache, and a set may fill the memory


def is_array(value: Any) -> bool:
    """Whether a value holds a row per datum: a tensor, a NumPy array or memory map, a pandas table or column."""
    if isinstance(value, (Tensor, np.ndarray)):
        return True
    pandas = sys.modules.get("pandas")  # who has a DataFrame has imported it
    return pandas is not None and isinstance(value, (pandas.DataFrame, pandas.Series))


def to_tensor(value: Any, name: str = "data") -> Tensor:
    """A tensor of an array's numbers, sharing its memory where torch can.

    Args:
        value: a tensor, a NumPy array of any byte order and stride, a memory map, a pandas table or column.
        name: of the argument, for messages.

    Raises:
        TypeError: for an array of objects or texts.
        ValueError: for a masked array with masked values.
    """
    if isinstance(value, Tensor):
        value = value.clone() if value.is_inference() else value
        return value.to(torch.int64) if value.dtype in UNSIGNED else value
    array = np.asanyarray(value)
    if array.dtype.kind not in "biufc":
        raise TypeError(
            f"{name}: expected numbers, got {type(value).__name__} of dtype {array.dtype}. "
            "Fix: the numeric columns, frame.select_dtypes('number'), or x.astype('float32')."
        )
    if isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array):
        raise ValueError(
            f"{name}: expected a number in every place, got {int(array.mask.sum())} masked ones. Fix: "
            "dgm.impute(model, guide, x.filled(0), observed=~x.mask), or x.filled(value)."
        )
    dtype = array.dtype.newbyteorder("=")
    array = array.astype(SIGNED.get(dtype.name, dtype), copy=False)
    is_table = not isinstance(
        value, np.ndarray
    )  # of columns one after the other: rows add up otherwise
    if is_table or any(stride < 0 for stride in array.strides):
        array = np.ascontiguousarray(array)
    with warnings.catch_warnings():
        # Memory maps must not be written to, and nobody does.
        warnings.filterwarnings("ignore", message=".*not writable.*")
        return torch.as_tensor(array, device="cpu")


def to_log_weights(value: Any) -> Tensor:
    """Log weights `(K, N)`, from an array of any kind; half precision becomes single.

    Raises:
        TypeError: for what is no array.
        ValueError: for another number of dims.
    """
    if not is_array(value):
        raise TypeError(
            f"log_weight: expected an array (K, N), got {type(value).__name__}. "
            "Fix: particles.log_weight."
        )
    log_weight = to_tensor(value, "log_weight")
    if log_weight.dim() != 2:
        raise ValueError(
            f"log_weight: expected shape (K, N), draws by data, got {tuple(log_weight.shape)}. "
            "Fix: log_weight[:, None] for the draws of one datum."
        )
    is_half = log_weight.dtype in (torch.float16, torch.bfloat16)
    return log_weight.float() if is_half else log_weight


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The arguments with their tensors on a device."""
    moved = [value.to(device) if isinstance(value, Tensor) else value for value in batch]
    return tuple(moved)


def check_data(tensor: Tensor, name: str) -> None:
    """Refuse empty, NaN and infinite data."""
    if tensor.numel() == 0:
        raise ValueError(
            f"{name}: expected at least one datum, got a tensor of shape {tuple(tensor.shape)}. "
            "Fix: a row per datum, and at least one."
        )
    if tensor.is_floating_point() and not bool(sum_of_extremes(tensor).isfinite()):
        num = int((~tensor.isfinite()).sum())
        raise ValueError(
            f"{name}: expected finite values, got {num} NaN or infinite of {tensor.numel()}. "
            "Fix: x = x[x.isfinite().flatten(1).all(1)], or "
            "dgm.impute(model, guide, x, observed=x.isfinite())."
        )


def refuse_complex(value: Any, name: str) -> None:
    """Refuse complex numbers as an observation, in a tensor or an array."""
    dtype = getattr(value, "dtype", None)
    if "complex" in str(dtype):
        raise TypeError(
            f"{name}: expected real numbers, got {dtype}, of which no site has a density. "
            "Fix: torch.view_as_real(x).flatten(1), real and imaginary parts, or x.abs()."
        )


def sum_of_extremes(tensor: Tensor) -> Tensor:
    """A number that is finite where all values are: one fast pass, without a second tensor of the data's size."""
    smallest, largest = tensor.detach().aminmax()
    return smallest.double() + largest.double()


def take_rows(batch: Batch, rows: slice | Tensor) -> Batch:
    """The arguments at some data, a range, numbers or a mask; what has no data dim stays whole."""
    taken = []
    for value in batch:
        if not has_rows(value):
            taken.append(value)
        elif (
            isinstance(rows, Tensor) and rows.dtype is torch.int64
        ):  # a third of the time of value[rows]
            taken.append(value.index_select(0, rows.to(value.device)))
        else:
            taken.append(value[rows])
    return tuple(taken)


def split_rows(batch: Batch, num: int) -> Iterator[Batch]:
    """The arguments in blocks of `num` data."""
    for start in range(0, len(batch[0]), num):
        yield take_rows(batch, slice(start, start + num))


def repeat_rows(value: Any, num: int) -> Any:
    """An argument whose data are there `num` times, one copy after the other; what has no data dim stays whole."""
    return value.repeat(num, *[1] * (value.dim() - 1)) if has_rows(value) else value


def has_rows(value: Any) -> bool:
    """Whether an argument has a row for each datum."""
    return isinstance(value, Tensor) and value.dim() > 0


def concat_rows(batches: Sequence[Batch]) -> Batch:
    """Several batches as one."""
    if len(batches) == 1:
        return batches[0]
    joint = []
    for values in zip(*batches, strict=True):
        joint.append(_concat(values) if has_rows(values[0]) else values[0])
    return tuple(joint)


def _concat(values: Sequence[Tensor]) -> Tensor:
    shapes = {tuple(value.shape[1:]) for value in values}
    if len(shapes) > 1:
        raise ValueError(
            f"data: expected batches of one event shape, got {sorted(shapes)}. Fix: one shape for every datum; "
            "DataLoader(stream, batch_size=None) for a stream of batches."
        )
    return torch.cat([*values])


def rebatch(batches: Iterable[Batch], num: int) -> Iterator[Batch]:
    """A stream in blocks of `num` data, whatever the sizes of its batches: the blocks of the concatenated set."""
    waiting: list[Batch] = []
    count = 0
    for batch in batches:
        waiting.append(batch)
        count += len(batch[0])
        if count < num:
            continue
        whole = concat_rows(waiting)
        full = count - count % num
        yield from split_rows(take_rows(whole, slice(full)), num)
        waiting = [take_rows(whole, slice(full, None))]
        count -= full
    if count:
        yield concat_rows(waiting)
