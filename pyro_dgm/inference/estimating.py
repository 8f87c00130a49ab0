"""What every estimate shares: data where the programs are, no gradients, no trace left in weights or random state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import pyro
import torch
from pyro.poutine.trace_struct import Trace
from torch import Tensor, nn

from .preflight import check_data, check_sites, extreme_rows, run_or_explain
from .supports import is_elementwise
from .traces import evaluating, isolated, observed_sites

BLOCK = 10_000  # data that a check of all of them sees at once


@contextmanager
def estimating(*programs: Any, seed: int) -> Iterator[None]:
    """Evaluation mode, validation off, and a fork of the random state under a seed."""
    with ExitStack() as stack:
        stack.enter_context(isolated(torch.empty(0, device=device_of(*programs)), seed=seed))
        stack.enter_context(evaluating(*programs))
        stack.enter_context(pyro.validation_enabled(False))
        yield


def placed(program: Any, batch: tuple) -> tuple:
    """The arguments with arrays as tensors, on the program's device, checked for NaN and for one common length.

    Raises:
        TypeError: for a guide among the arguments.
        ValueError: for empty, NaN or infinite data, or tensors of different lengths.
    """
    if batch and callable(batch[0]):
        raise TypeError(
            f"expected the data after the model, got {type(batch[0]).__name__}: this takes a model without its guide. "
            "Fix: leave it out, or start=guide for ais and bdmc."
        )
    device = device_of(program)
    values = tuple(torch.as_tensor(b) if isinstance(b, (Tensor, np.ndarray)) else b for b in batch)
    values = tuple(v.to(device) if isinstance(v, Tensor) else v for v in values)
    for position, value in enumerate(values):
        if isinstance(value, Tensor):
            check_data(value, f"data[{position}]")
    lengths = [len(v) for v in values if isinstance(v, Tensor) and v.dim() > 0]
    if len(set(lengths)) > 1:
        raise ValueError(f"data: expected tensors of one length, got {lengths}. Fix: one row per datum in each.")
    return values


def blocks_of(batch: tuple, num: int) -> Iterator[tuple]:
    """The arguments in blocks of `num` data."""
    for start in range(0, len(batch[0]), num):
        yield rows_of(batch, slice(start, start + num))


def rows_of(batch: tuple, rows: slice | Tensor) -> tuple:
    """The arguments at some data; what has no data dim stays whole."""
    return tuple(value[rows] if isinstance(value, Tensor) and value.dim() > 0 else value for value in batch)


def repeated(value: Any, num: int) -> Any:
    """An argument whose data are there `num` times, one copy after the other; what has no data dim stays as it is."""
    return value.repeat(num, *[1] * (value.dim() - 1)) if isinstance(value, Tensor) and value.dim() > 0 else value


def most_extreme(batch: tuple) -> tuple:
    """The few data in which a value outside a support shows, wherever it hides in the set: what a check looks at."""
    return rows_of(batch, extreme_rows(batch[0], 1))


def checked_run(model: Callable, guide: Callable, batch: tuple) -> tuple[Trace, Trace]:
    """Run the pair on its most extreme data and refuse what can't be scored: `(guide trace, model trace)`.

    All data are looked at where a support is one of whole events, such as the simplex.
    """
    traces = run_or_explain(model, guide, most_extreme(batch))
    check_sites(*traces)
    if not all(is_elementwise(site) for site in observed_sites(traces[1]).values()):
        for block in blocks_of(batch, BLOCK):
            check_sites(*run_or_explain(model, guide, block))
    return traces


def check_pair(model: Any, guide: Any, caller: str = "nll") -> None:
    """Refuse what is no pair of programs, such as a VAE in place of its two programs."""
    if not (callable(model) and callable(guide)):
        raise TypeError(
            f"expected a model and its guide, got {type(model).__name__} and {type(guide).__name__}. "
            f"Fix: {caller}(vae.model, vae.guide, x)."
        )


def at_least_one(**counts: int) -> None:
    """Refuse counts below 1."""
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name}: expected at least 1, got {count}.")


def device_of(*programs: Any) -> torch.device:
    """The device of the programs' tensors; the CPU if they have none."""
    modules = [p for p in programs if isinstance(p, nn.Module)]
    tensors = [t for m in modules for t in (*m.parameters(), *m.buffers())]
    return tensors[0].device if tensors else torch.device("cpu")
