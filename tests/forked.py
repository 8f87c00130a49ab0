"""Several processes for a test: forks of this one, so that nothing is imported twice, each a rank of one group."""

from __future__ import annotations

import os
import signal
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed

LIMIT = 60.0  # seconds


def run_ranks(work: Callable[[int], Any], world: int, limit: float = LIMIT) -> list[Any]:
    """What each rank finds, by rank: `None` of one that was killed; an error as its text.

    Raises:
        TimeoutError: if a rank has not ended by then; all are killed.
    """
    with tempfile.TemporaryDirectory() as folder:
        pids = [_fork(work, rank, world, Path(folder)) for rank in range(world)]
        is_late = not _wait(pids, limit)
        if is_late:
            raise TimeoutError(f"expected {world} ranks to end within {limit} s, got none of one")
        found = []
        for rank in range(world):
            path = Path(folder) / f"{rank}.pt"
            found.append(torch.load(path, weights_only=False) if path.exists() else None)
        return found


def _fork(work: Callable[[int], Any], rank: int, world: int, folder: Path) -> int:
    with warnings.catch_warnings():
        # JAX, where another test has imported it, warns of forks at large; no rank touches it.
        warnings.filterwarnings("ignore", message="os.fork", category=RuntimeWarning)
        pid = os.fork()
    if pid:
        return pid
    try:
        torch.set_num_threads(1)
        meet = f"file://{folder}/meet"
        limit = timedelta(seconds=LIMIT)
        distributed.init_process_group(
            "gloo", init_method=meet, rank=rank, world_size=world, timeout=limit
        )
        try:
            found = work(rank)
        except BaseException as error:
            if not isinstance(error, Exception):
                traceback.print_exc()
            found = f"{type(error).__name__}: {error}"
        torch.save(found, folder / f"{rank}.part")
        (folder / f"{rank}.part").replace(folder / f"{rank}.pt")
    finally:
        os._exit(0)


def _wait(pids: list[int], limit: float) -> bool:
    """Whether all have ended in time; those that have not are killed."""
    end = time.monotonic() + limit
    left = list(pids)
    while left and time.monotonic() < end:
        left = [pid for pid in left if os.waitpid(pid, os.WNOHANG)[0] == 0]
        time.sleep(0.02)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return not left
