"""What is left at the end of an epoch: a last batch of one datum goes into the one before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sized
from typing import Any

from torch.utils.data import DataLoader, IterableDataset

from .stored import is_stored
from .tensors import Batch, concat_rows, is_array


def batch_sizes(num: int, batch_size: int, *, join: bool) -> list[int]:
    """Sizes of the batches of so many data.

    Args:
        num: number of data.
        batch_size: data per batch.
        join: whether a rest of one datum goes into the batch before: batch normalization can't be trained on it.

    Example:
        >>> batch_sizes(9, 4, join=False), batch_sizes(9, 4, join=True)
        ([4, 4, 1], [4, 5])
    """
    num_whole, rest = divmod(num, batch_size)
    sizes = [batch_size] * num_whole
    if join and rest == 1 and num_whole > 0:
        sizes[-1] += 1
    elif rest:
        sizes.append(rest)
    return sizes


def batches_before_one_datum(loader: Any) -> int | None:
    """Batches of a loader before a last one of one datum; `None` where there is no such batch, or no way to know."""
    if isinstance(loader, list):
        sizes = [_num_data(batch) for batch in loader]
    elif isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset):
        sizes = _sizes_of_loader(loader)
    else:
        return None
    if len(sizes) < 2 or sizes[-1] != 1 or sizes[-2] == 1:
        return None
    return len(sizes) - 1


def join_one_datum(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The batches of a stream, of which a last one of one datum goes into the one before."""
    waiting: list[Batch] = []
    for batch in batches:
        waiting.append(batch)
        while len(waiting) > 2 or (len(waiting) == 2 and _num_data(waiting[1]) != 1):
            yield waiting.pop(0)
    if len(waiting) == 2 and _num_data(waiting[0]) > 1:
        waiting = [concat_rows(waiting)]
    yield from waiting


def refuse_one_datum(error: Exception, batch: tuple[Any, ...]) -> None:
    """Say what can be done where batch normalization fails on one datum; other errors are let through.

    Raises:
        ValueError: if it is this one.
    """
    if "more than 1 value per channel" in str(error):
        raise ValueError(
            "data: expected batches of two data or more, as batch normalization needs to be trained, "
            f"got one of {len(batch[0])}. "
            "Fix: batch_size=2 or more, DataLoader(…, drop_last=True), or nn.LayerNorm."
        ) from error


def _sizes_of_loader(loader: DataLoader[Any]) -> list[int]:
    """Sizes of its batches; none where a sampler of the user's own makes them."""
    size = loader.batch_size
    sampler = loader.sampler
    if size is None or loader.drop_last or not isinstance(sampler, Sized):
        return []
    return batch_sizes(len(sampler), size, join=False)


def _num_data(batch: Any) -> int:
    """The number of data of one batch in a list of them, 0 where it is not to be seen."""
    if isinstance(batch, Mapping):
        batch = tuple(batch.values())
    first = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
    has_shape = is_stored(first) or is_array(first)
    return int(first.shape[0]) if has_shape and first.ndim > 0 else 0
