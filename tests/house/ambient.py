"""What a process has set for all of its code: each as a context in which every entry must give the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import torch


@contextmanager
def another_default_device() -> Iterator[None]:
    """Tensors without a device land on another one than the programs'; "meta" stands for any."""
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def deterministic_algorithms() -> Iterator[None]:
    """Also fills what `torch.empty` returns with NaN."""
    torch.use_deterministic_algorithms(mode=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(mode=False)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


AROUND: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "another default device": another_default_device,
    "a device as a context": partial(torch.device, "meta"),
    "deterministic algorithms": deterministic_algorithms,
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "default dtype float32": partial(default_dtype, torch.float32),
    "autocast": partial(torch.autocast, "cpu", torch.bfloat16),
}
