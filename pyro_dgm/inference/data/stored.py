"""Rows that are not in memory as dense numbers: memory maps, arrays on disk, sparse counts; read a batch at a time."""

from __future__ import annotations

import mmap
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from .extremes import Reach, reach_of
from .tensors import is_array, to_tensor

BUDGET = 2**24  # bytes that are read, or made dense, at once where all rows are looked at
PAGES = 2**27  # bytes of a memory map that stay in memory once they were read
AROUND = 2**21  # bytes that the system maps around a row, at most


@runtime_checkable
class ArrayLike(Protocol):
    """What h5py, zarr, xarray and others call an array: rows by number, with a shape and a dtype."""

    shape: Any
    dtype: Any

    def __getitem__(self, rows: Any, /) -> Any:
        """Some rows."""


def is_sparse(value: Any) -> bool:
    """Whether a value is a sparse matrix of SciPy or a sparse tensor."""
    if isinstance(value, Tensor):
        return value.layout is not torch.strided
    sparse = sys.modules.get("scipy.sparse")  # who has such a matrix has imported it
    return sparse is not None and bool(sparse.issparse(value))


def is_stored(value: Any) -> bool:
    """Whether a value has rows that are read as they are needed: a memory map, an array on disk, sparse rows."""
    if isinstance(value, StoredRows) or is_sparse(value):
        return True
    if isinstance(value, np.memmap):
        return value.ndim > 0
    if is_array(value) or isinstance(value, (np.generic, nn.Module, type)):
        return False
    return isinstance(value, ArrayLike) and len(value.shape) > 0


def as_stored(value: Any, name: str = "data") -> StoredRows:
    """The rows of a memory map, an array on disk or a sparse matrix.

    Raises:
        TypeError: for what holds no numbers.
        ValueError: for sparse data of other than two dims.
    """
    if isinstance(value, StoredRows):
        return value
    return SparseRows.of(value, name) if is_sparse(value) else ArrayRows(value, name)


class StoredRows(ABC):
    """Rows `(N, *event)` that become a dense tensor on a device where they are taken; abstract.

    Attributes:
        shape: N and the event shape.
        name: of the argument, for messages.
        device: where rows go.
    """

    shape: tuple[int, ...]
    name: str
    device: torch.device = torch.device("cpu")

    def __len__(self) -> int:
        """Number of rows."""
        return self.shape[0]

    @abstractmethod
    def take(self, rows: Tensor | slice) -> Tensor:
        """Some rows, dense, on the device."""

    @abstractmethod
    def to(self, device: torch.device) -> StoredRows:
        """The same rows, of which those that are taken go to a device."""

    @cached_property
    def dtype(self) -> torch.dtype:
        """Of the rows that are taken."""
        return self.take(slice(0, 1)).dtype

    @property
    def num_at_once(self) -> int:
        """Rows that are read at once where all are looked at."""
        width = self.take(slice(0, 1))
        return max(1, BUDGET // max(1, width.numel() * width.element_size()))

    def blocks(self) -> Iterator[Tensor]:
        """All rows in their order, as many at once as the budget holds."""
        num = self.num_at_once
        for start in range(0, len(self), num):
            yield self.take(slice(start, start + num))

    @cached_property
    def reach(self) -> Reach:
        """Smallest value, largest value and distance from integers of each row; one pass over all of them."""
        return Reach.concat([reach_of(block).cpu() for block in self.blocks()])

    def check(self) -> None:
        """Refuse no rows, NaN and infinite values."""
        if 0 in self.shape:
            raise ValueError(
                f"{self.name}: expected at least one datum, got an array of shape {self.shape}. "
                "Fix: a row per datum, and at least one."
            )
        is_bad = ~(self.reach.smallest.isfinite() & self.reach.largest.isfinite())
        if bool(is_bad.any()):
            raise ValueError(
                f"{self.name}: expected finite values, got NaN or infinite ones in {int(is_bad.sum())} of "
                f"{len(self)} rows. Fix: the other rows alone, x = x[x.isfinite().flatten(1).all(1)] of a tensor."
            )


class ArrayRows(StoredRows):
    """Rows of an array that reads them from where they are: a memory map, HDF5, zarr, a backed matrix."""

    def __init__(self, array: Any, name: str = "data"):
        self.array, self.name = array, name
        self.shape = tuple(int(size) for size in array.shape)
        self._num_mapped = 0

    def to(self, device: torch.device) -> ArrayRows:  # noqa: D102
        moved = ArrayRows(self.array, self.name)
        moved.device = device
        moved.__dict__.update({key: self.__dict__[key] for key in ("reach",) if key in vars(self)})
        return moved

    def take(self, rows: Tensor | slice) -> Tensor:  # noqa: D102
        if isinstance(rows, slice):
            found = self._read(rows)
        else:  # in ascending order, as files are read and as h5py wants it
            places, inverse = np.unique(rows.cpu().numpy(), return_inverse=True)
            found = self._read(_as_range(places))
            if not bool((np.diff(inverse) == 1).all()):
                found = found.index_select(0, torch.as_tensor(inverse, device="cpu"))
        if self.device.type == "cuda":
            found = found.pin_memory()
        return found.to(self.device, non_blocking=True)

    def _read(self, rows: Any) -> Tensor:
        if isinstance(self.array, np.memmap):
            return self._read_map(rows)
        block = self.array[rows]
        if is_sparse(block):  # of a matrix that is backed by a file
            return SparseRows.of(block, self.name).take(slice(None))
        found = to_tensor(np.asarray(block), self.name)
        return found.clone() if isinstance(rows, slice) else found  # aligned as tensors are

    def _read_map(self, rows: Any) -> Tensor:
        """Rows of a memory map, of whose pages few are in memory at any time."""
        if isinstance(rows, slice):
            found = to_tensor(np.asarray(self.array[rows]), self.name).clone()  # no part of the map
            self._release(AROUND + found.numel() * found.element_size())
            return found
        parts = []
        for some in np.array_split(rows, -(-len(rows) * AROUND // PAGES)):
            parts.append(to_tensor(np.asarray(self.array[some]), self.name))
            self._release(AROUND * len(some))
        return torch.cat(parts)

    def _release(self, num_bytes: int) -> None:
        """Give pages of the map back to the system, which holds them as long as it has memory for them."""
        self._num_mapped += num_bytes
        if self._num_mapped < PAGES:
            return
        self._num_mapped = 0
        mapped = getattr(self.array, "_mmap", None)
        advice = getattr(mmap, "MADV_DONTNEED", None)  # not on every system
        is_file = self.array.mode in ("r", "r+")  # a copy on write would be lost
        if mapped is not None and advice is not None and is_file:
            mapped.madvise(advice)


class SparseRows(StoredRows):
    """Rows of a sparse matrix `(N, D)`, in compressed form; those that are taken become dense on the device.

    Args:
        starts: where each row begins among the values, and the last one ends, `(N + 1,)`.
        columns: of the values.
        values: of the matrix, row by row.
        width: D.
        name: of the argument, for messages.
    """

    def __init__(
        self, starts: Tensor, columns: Tensor, values: Tensor, width: int, name: str = "data"
    ):
        self.starts, self.columns, self.values = starts, columns, values
        self.shape, self.name = (len(starts) - 1, width), name

    @classmethod
    def of(cls, value: Any, name: str = "data") -> SparseRows:
        """The rows of a matrix of SciPy or a sparse tensor, in any of their formats.

        Raises:
            ValueError: for other than two dims.
        """
        if value.ndim != 2:
            raise ValueError(
                f"{name}: expected sparse rows (N, D), got {value.ndim} dims. "
                "Fix: a two-dim matrix, and x.reshape(-1, *event) in the program."
            )
        if isinstance(value, Tensor):
            return cls(*_compressed(value), value.shape[1], name)
        matrix = value.tocsr()
        if not matrix.has_canonical_format:  # entries that are there twice are a sum
            matrix = matrix.copy()
            matrix.sum_duplicates()
        parts = [to_tensor(part, name) for part in (matrix.indptr, matrix.indices, matrix.data)]
        return cls(parts[0], parts[1], parts[2], value.shape[1], name)

    def to(self, device: torch.device) -> SparseRows:  # noqa: D102
        moved = SparseRows(self.starts, self.columns, self.values, self.shape[1], self.name)
        moved.device = device
        moved.__dict__.update({key: self.__dict__[key] for key in ("reach",) if key in vars(self)})
        return moved

    def take(self, rows: Tensor | slice) -> Tensor:  # noqa: D102
        place, column, values = self._entries(rows)
        num = len(range(*rows.indices(len(self)))) if isinstance(rows, slice) else len(rows)
        dense = torch.zeros(num, self.shape[1], dtype=values.dtype, device=self.device)
        index = (place.to(self.device), column.to(self.device))
        return dense.index_put_(index, values.to(self.device))

    def _entries(self, rows: Tensor | slice) -> tuple[Tensor, Tensor, Tensor]:
        """Row, column and value of all entries of some rows."""
        rows = (
            torch.arange(len(self), device="cpu")[rows] if isinstance(rows, slice) else rows.cpu()
        )
        starts = self.starts[rows].long()
        counts = self.starts[rows + 1].long() - starts
        place = torch.repeat_interleave(counts)
        before = counts.cumsum(0) - counts
        entry = torch.arange(len(place), device="cpu") + (starts - before)[place]
        return place, self.columns[entry].long(), self.values[entry]


def _as_range(places: np.ndarray) -> Any:
    """Ascending numbers as a slice, where none is left out."""
    if len(places) and places[-1] - places[0] + 1 == len(places):
        return slice(int(places[0]), int(places[-1]) + 1)
    return places


def _compressed(value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Starts, columns and values of the rows of a sparse tensor."""
    value = value.detach().cpu()
    if value.layout is torch.sparse_csr:
        return value.crow_indices(), value.col_indices(), value.values()
    entries = value.to_sparse().coalesce()
    row, column = entries.indices()
    counts = torch.bincount(row, minlength=value.shape[0])
    starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return starts, column, entries.values()
