"""What a process has set for all of its code, and a run must not depend on: default device, autocast, other threads."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from threading import RLock
from typing import TypeVar

import torch

from ...densities.precision import networks_in

Item = TypeVar("Item")


class Turn:
    """One run at a time: threads take turns, and a thread may open a run inside of its own.

    Pyro's handlers, torch's generators and the modes of modules are shared by all threads: two runs at once would
    read each other's sites and draw each other's noise. A forked process starts with a turn of its own.
    """

    def __init__(self) -> None:
        self._renew()
        os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self._lock = RLock()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Wait until no other thread has it, and hold it; also as a decorator, `@TURN.taken()`."""
        with self._lock:
            yield


TURN = Turn()


def default_device(device: torch.device) -> AbstractContextManager[object]:
    """Factory functions make their tensors on a device, where `torch.set_default_device` has named another one.

    Where nothing was set they go on to make them on the CPU.
    """
    now = torch.get_default_device()
    if now.type in ("cpu", device.type):
        return nullcontext()
    return device


def read_on_cpu(items: Iterable[Item]) -> Iterator[Item]:
    """The items, made with the CPU as default device: a loader draws its order from a generator of the CPU."""
    cpu = torch.device("cpu")
    with default_device(cpu):
        iterator = iter(items)
    while True:
        with default_device(cpu):
            try:
                item = next(iterator)
            except StopIteration:
                return
        yield item


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Arithmetic in the dtype of its operands, whatever autocast is around."""
    with ExitStack() as stack:
        for kind in dict.fromkeys(("cpu", device.type)):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        stack.enter_context(networks_in(torch.float32))
        yield
