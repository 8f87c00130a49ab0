"""Which data a run saw, in one number."""

from __future__ import annotations

import hashlib
from typing import Any

import torch

from .datasets import SPLITS, Data

BLOCK = 2**24  # bytes that are hashed at once


def fingerprint(data: Data) -> str:
    """SHA-256 over name, dtype, shape and bytes of every split, context included, in hexadecimal digits.

    It is the same on every device, and of data in memory or on disk, which are read in blocks. Labels that serve
    pictures alone, levels and names do not count.

    Args:
        data: the data.

    Example:
        >>> x = torch.arange(12.0).reshape(6, 2)
        >>> data = Data(x[:2], x[2:4], x[4:], event_shape=(2,))
        >>> fingerprint(data) == fingerprint(Data(x[:2], x[2:4], x[4:], event_shape=(2,)))
        True
        >>> fingerprint(data) == fingerprint(Data(x[2:4], x[:2], x[4:], event_shape=(2,)))
        False
    """
    found = hashlib.sha256()
    for name in SPLITS:
        for position, value in enumerate(data.split(name)):
            shape = tuple(value.shape)
            dtype = torch.as_tensor(value[:1]).dtype
            found.update(f"{name}[{position}] {dtype} {shape}\n".encode())
            _add(found, value)
    return found.hexdigest()


def _add(found: Any, value: Any) -> None:
    """The bytes of an array, block by block."""
    first = torch.as_tensor(value[:1])
    num = max(1, BLOCK // max(1, first.numel() * first.element_size()))
    for start in range(0, len(value), num):
        block = torch.as_tensor(value[start : start + num]).detach().cpu().contiguous()
        found.update(block.flatten().view(torch.uint8).numpy().data)
