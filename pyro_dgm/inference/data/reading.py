"""Data as estimates take them: on the device of the programs, batches in their order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from ...contract import PyroProgram
from ..process.states import derive_seed, device_of, with_own_rng
from .batches import Batches, as_batches
from .forms import as_tensors, check_observation_argument, is_stream
from .tensors import Batch, concat_rows, to_device

ROWS = 512  # of a batch, where a dataset does not say it


def read_stream(source: Any, program: Any, device: torch.device, seed: int) -> Iterator[Batch]:
    """The batches of a loader, a dataset or a list, on a device; its noise is not the estimate's.

    Args:
        source: where they come from.
        program: whose arguments they hold.
        device: where they go.
        seed: of the noise of what reads them.

    Raises:
        ValueError: if there are none.
    """
    if isinstance(source, Batches):
        source = source.in_order()
    batches = as_batches(source, ROWS, program, device, shuffle=False)
    found = False
    own_seed = derive_seed(seed, 1)
    for batch in with_own_rng(batches.epoch(own_seed), own_seed):
        found = True
        yield batch
    if not found:
        raise ValueError(
            "data: expected at least one batch, got a loader that yields none. Fix: drop_last=False."
        )


def place_data(module: object, batch: Batch) -> Batch:
    """The data as tensors where a module's weights are, checked as a session checks them."""
    check_observation_argument(batch)
    return to_device(as_tensors(batch), device_of(module))


def read_arguments(program: PyroProgram, batch: Batch) -> Batch:
    """The arguments of a program as tensors, checked; a stream of batches is read whole.

    Args:
        program: whose arguments they are; it orders batches that are dicts.
        batch: arrays, the observation first; or one stream.

    Raises:
        TypeError, ValueError: for what is no data, or bad data.
    """
    check_observation_argument(batch)
    if not is_stream(batch[0]):
        return as_tensors(batch)
    source = list(batch[0]) if isinstance(batch[0], Iterator) else batch[0]
    stream = as_batches(source, 512, program, device_of(program), shuffle=False)
    batches = [as_tensors(part) for part in with_own_rng(stream.epoch(), 0)]
    return concat_rows(batches or [stream.first()])
