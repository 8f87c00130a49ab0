"""Data as estimates take them: on the device of the programs, batches in their order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from ..process.states import derive_seed, device_of, with_own_rng
from .batches import Batches, as_batches
from .tensors import Batch, as_tensors, check_observation_argument, to_device

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
    for batch in with_own_rng(batches.epoch(), derive_seed(seed, 1)):
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
