"""The processes of `torchrun`: one group for a command, and what rank 0 does alone, before the others or for them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

import torch
from torch import distributed

from ...inference.process.distributed import gather, raise_together, rank_and_world
from ...inference.process.meeting import ALONE

Found = TypeVar("Found")
OF_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def is_under_torchrun() -> bool:
    """Whether `torchrun` has started this process beside others, and nobody has made their group yet."""
    is_started = all(name in os.environ for name in OF_TORCHRUN)
    return is_started and int(os.environ["WORLD_SIZE"]) > 1 and not distributed.is_initialized()


@contextmanager
def process_group() -> Iterator[None]:
    """The group of the processes that `torchrun` has started, until the end; nothing without it.

    They exchange tensors by gloo on CPUs and by NCCL on GPUs, of which each process has that of its `LOCAL_RANK`.
    """
    if not is_under_torchrun():
        yield
        return
    backend = "gloo"
    if torch.cuda.is_available():
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group(backend)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def default_device() -> str:
    """The GPU of this process if there is one, else the CPU."""
    if not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{os.environ['LOCAL_RANK']}" if rank_and_world()[1] > 1 else "cuda"


@contextmanager
def on_rank_zero() -> Iterator[bool]:
    """Whether this is rank 0, which asks all questions inside alone; the others go by, and stop if it raises."""
    rank, _ = rank_and_world()
    with raise_together():
        token = ALONE.set(True)
        try:
            yield rank == 0
        finally:
            ALONE.reset(token)


def rank_zero_first(work: Callable[[], Found]) -> Found:
    """What every rank makes, after rank 0: what that leaves in a folder, such as a download, the others find there."""
    rank, _ = rank_and_world()
    found: list[Found] = []
    for is_turn in (rank == 0, rank > 0):
        with raise_together():
            if is_turn:
                found.append(work())
    return found[0]


@contextmanager
def claimed(claim: AbstractContextManager[Path]) -> Iterator[Path]:
    """The run directory that rank 0 holds and writes; the others know its name."""
    with ExitStack() as stack:
        folder: Path | None = None
        with raise_together():
            if rank_and_world()[0] == 0:
                folder = stack.enter_context(claim)
        found = gather(folder)[0]
        assert found is not None
        yield found


def find_device(name: str | None) -> torch.device:
    """The device of that name, or the GPU if there is one; it is tried, so that a mistake shows at once.

    Raises:
        ValueError: for a device that this machine does not have.
    """
    if name is None:
        name = default_device()
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ValueError(
            f"expected a device of this machine, got --device={name} ({reason}). Fix: --device=cpu."
        ) from error
    return device
