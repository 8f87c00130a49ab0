"""Which data a run was trained on, in a few numbers: what a checkpoint in the middle of an epoch must agree with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import pyro
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from ..process.states import fork_rng
from .batches import Batches, LoaderBatches
from .sharding import OrderOfRank
from .stored import StoredRows
from .tensors import is_array, to_tensor

ROWS_AT_ONCE = 2**22  # bytes of the data that are looked at at once

WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32}

Identity = dict[str, int | str]


def identify(batches: Batches | LoaderBatches, seed: int) -> Identity:
    """What makes the batches of an epoch: seed, sizes, and the numbers themselves where they are in memory.

    Of a loader only that is known which it says: its batch size and sampler, and its tensors if it has a
    `TensorDataset`; of another map-style Dataset its first, middle and last item, where they are the same when they are
    read again; of a list all its values.

    Args:
        batches: of a run.
        seed: of the order.
    """
    found: Identity = {"seed": seed}
    if isinstance(batches, Batches):
        found["num_data"] = len(batches)
        found["batch_size"] = batches.batch_size
        found["shuffle"] = str(batches.shuffle)
        found["data"] = hash_tensors(batches.tensors)
        if batches.transform is not None:
            found["transform"] = name_of(batches.transform)
        return found
    loader = batches.loader
    if isinstance(loader, DataLoader):
        found["batch_size"] = str(loader.batch_size)
        found["sampler"] = type(loader.sampler).__name__
        if isinstance(loader.sampler, OrderOfRank):
            found["shuffle"] = str(loader.sampler.shuffle)
        found |= identify_dataset(loader.dataset, batches.device)
    elif isinstance(loader, list):
        found["batches"] = len(loader)
        found["data"] = hash_tensors(tuple(values_of(loader)))
    return found


def identify_dataset(dataset: Dataset[Any], device: torch.device) -> Identity:
    """The data that a Dataset gives by index, as `identify` knows them; nothing of a stream."""
    if isinstance(dataset, IterableDataset):
        return {}
    num: int = len(dataset)  # type: ignore[arg-type]
    if isinstance(dataset, TensorDataset):
        return {"num_data": num, "data": hash_tensors(dataset.tensors)}
    return {"num_data": num, "items": _hash_items(dataset, num, device)}


def _hash_items(dataset: Dataset[Any], num: int, device: torch.device) -> str:
    """A hash of a few items; of none that differs when it is read again, as one with noise of its own does."""
    items = []
    for place in sorted({0, num // 2, num - 1} if num else {}):
        with fork_rng(torch.empty(0, device=device)):
            first, second = _hash_item(dataset, place), _hash_item(dataset, place)
        items.append(first if first == second else "another each time")
    return " ".join(items)


def _hash_item(dataset: Dataset[Any], place: int) -> str:
    """A hash of the numbers of an item, read on a fixed random state of torch, NumPy and Python."""
    before = pyro.util.get_rng_state()
    try:
        pyro.util.set_rng_seed(0)
        item = dataset[place]
    except (LookupError, TypeError):  # its sampler gives other keys
        return "none of that key"
    finally:
        pyro.util.set_rng_state(before)
    return hash_tensors(tuple(_leaves(item)))


def _leaves(item: Any) -> list[Any]:
    """The numbers and texts in an item, in their order; of what is neither its type."""
    if isinstance(item, Mapping):
        item = [part for pair in item.items() for part in pair]
    if isinstance(item, (tuple, list)):
        return [leaf for part in item for leaf in _leaves(part)]
    if is_array(item):
        return [to_tensor(item)]
    return [item if isinstance(item, (str, int, float)) else type(item).__name__]


def name_of(transform: Any) -> str:
    """The name of a transform's function or class."""
    return getattr(transform, "__qualname__", type(transform).__qualname__)


def values_of(batches: list[Any]) -> list[Any]:
    """All that a list of batches holds, in its order."""
    values: list[Any] = []
    for batch in batches:
        values += batch if isinstance(batch, (tuple, list)) else [batch]
    return values


def hash_tensors(tensors: tuple[Any, ...]) -> str:
    """A hash of every bit of the tensors in their order; one pass over the data, on their device.

    Example:
        >>> x = torch.zeros(3, 2)
        >>> hash_tensors((x,)) == hash_tensors((x.clone(),)), hash_tensors((x,)) == hash_tensors((x + 1,))
        (True, False)
    """
    digest = hashlib.sha256()
    for value in tensors:
        if not isinstance(value, (Tensor, StoredRows)):
            digest.update(repr(value).encode())
            continue
        digest.update(f"{tuple(value.shape)} {value.dtype}".encode())
        for rows in hashes_of_rows(value):
            digest.update(rows.numpy().tobytes())
    return digest.hexdigest()[:16]


def hashes_of_rows(value: Tensor | StoredRows) -> Iterator[Tensor]:
    """One integer for each row, on the CPU, some rows at a time."""
    parts = value.blocks() if isinstance(value, StoredRows) else (value,)
    for part in parts:
        for rows in _blocks(part):
            yield _mix_rows(rows).cpu()


def _blocks(value: Tensor) -> tuple[Tensor, ...]:
    """Some rows at a time `(N, numbers)`."""
    flat = value.detach().reshape(len(value) if value.dim() else 1, -1)
    if flat.numel() == 0:
        return ()
    width = flat.shape[1] * flat.element_size()
    return flat.split(max(1, ROWS_AT_ONCE // width))


def _mix_rows(rows: Tensor) -> Tensor:
    """One integer for each row, which changes with every bit and every place of it."""
    words = rows.contiguous().view(WORDS.get(rows.element_size(), torch.int64)).to(torch.int64)
    place = torch.arange(1, words.shape[1] + 1, device=rows.device)
    odd = (place * 6364136223846793005 + 1442695040888963407) | 1  # integers wrap around
    return (words * odd).sum(1)
