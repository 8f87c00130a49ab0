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

from .structure import check_data, check_sites, extreme_rows, run_or_explain
from .supports import is_elementwise
from .traces import eval_mode, fork_rng, observed_sites

BLOCK = 10_000  # data that a check of all of them sees at once


@contextmanager
def estimating(*programs: Any, seed: int) -> Iterator[None]:
    """`undisturbed`, for Pyro programs; refuses what is none."""
    for program in programs:
        check_program(program)
    with evaluation_mode(*programs, seed=seed):
        yield


@contextmanager
def evaluation_mode(*modules: Any, seed: int) -> Iterator[None]:
    """Evaluation mode, validation off, and a fork of the random state under a seed."""
    with ExitStack() as stack:
        stack.enter_context(fork_rng(torch.empty(0, device=device_of(*modules)), seed=seed))
        stack.enter_context(eval_mode(*modules))
        stack.enter_context(pyro.validation_enabled(False))
        yield


def placed(program: Any, batch: tuple) -> tuple:
    """The data with arrays as tensors, on the program's device, checked for NaN and for one common length.

    Raises:
        TypeError: for an observation that is no tensor or array.
        ValueError: for no data; for empty, NaN or infinite ones, or tensors of different lengths.
    """
    check_batch(batch)
    return placed_context(program, batch)


def placed_context(program: Any, context: tuple) -> tuple:
    """The same of arguments that follow the observation, of which there may be none."""
    device = device_of(program)
    values = tuple(
        torch.as_tensor(c) if isinstance(c, (Tensor, np.ndarray)) else c for c in context
    )
    values = tuple(v.to(device) if isinstance(v, Tensor) else v for v in values)
    for position, value in enumerate(values):
        if isinstance(value, Tensor):
            check_data(value, f"data[{position}]")
    lengths = [len(v) for v in values if isinstance(v, Tensor) and v.dim() > 0]
    if len(set(lengths)) > 1:
        raise ValueError(
            f"data: expected tensors of one length, got {lengths}. Fix: one row per datum in each."
        )
    return values


def check_batch(batch: tuple) -> None:
    """Refuse what is no tensor of data."""
    if not batch:
        raise ValueError(
            "data: expected x after the programs, got none. Fix: nll(model, guide, x), encode(guide, x)."
        )
    x = batch[0]
    if callable(x):
        raise TypeError(
            f"data: expected x after the programs, got {type(x).__name__}, a program too many. "
            "Fix: encode(guide, x), active_units(guide, x), ais(model, x, start=guide), hmc(model, x, start=guide)."
        )
    if not isinstance(x, (Tensor, np.ndarray)):
        raise TypeError(
            f"data: expected x as a tensor or an array (N, *event), got {type(x).__name__}. Fix: torch.as_tensor(x) "
            "for a list of numbers, *x for a tuple of arguments, torch.cat([x for x, *_ in loader]) for a loader."
        )
    if x.ndim == 0:
        raise ValueError(
            f"data: expected a tensor (N, *event), got a 0-dim tensor {x}. Fix: x[None], for one datum."
        )


def split_rows(batch: tuple, num: int) -> Iterator[tuple]:
    """The arguments in blocks of `num` data."""
    for start in range(0, len(batch[0]), num):
        yield take_rows(batch, slice(start, start + num))


def take_rows(batch: tuple, rows: slice | Tensor) -> tuple:
    """The arguments at some data; what has no data dim stays whole."""
    return tuple(
        value[rows] if isinstance(value, Tensor) and value.dim() > 0 else value for value in batch
    )


def repeat_rows(value: Any, num: int) -> Any:
    """An argument whose data are there `num` times, one copy after the other; what has no data dim stays as it is."""
    return (
        value.repeat(num, *[1] * (value.dim() - 1))
        if isinstance(value, Tensor) and value.dim() > 0
        else value
    )


def extreme_batch(batch: tuple) -> tuple:
    """The few data in which a value outside a support shows, wherever it hides in the set: what a check looks at."""
    return take_rows(batch, extreme_rows(batch[0], 1))


def checked_run(model: Callable, guide: Callable, batch: tuple) -> tuple[Trace, Trace]:
    """Run the pair on its most extreme data and refuse what can't be scored: `(guide trace, model trace)`.

    All data are looked at where a support is one of whole events, such as the simplex.
    """
    traces = run_or_explain(model, guide, extreme_batch(batch), given=batch)
    check_sites(*traces)
    if not all(is_elementwise(site) for site in observed_sites(traces[1]).values()):
        for block in split_rows(batch, BLOCK):
            check_sites(*run_or_explain(model, guide, block))
    return traces


def check_pair(model: Any, guide: Any, fix: str = "vae.model, vae.guide in place of vae") -> None:
    """Refuse what is no pair of programs, such as a VAE in place of its two programs."""
    if not (_runs(model) and _runs(guide)):
        raise TypeError(
            f"expected a model and its guide, got {type(model).__name__} and {type(guide).__name__}. Fix: {fix}."
        )


def check_program(program: Any) -> None:
    """Refuse what can't be run, such as a VAE in place of one of its programs; `None` stands for no program."""
    if program is not None and not _runs(program):
        raise TypeError(
            f"expected a Pyro program, a model or a guide, got {type(program).__name__}. "
            "Fix: vae.model or vae.guide in place of vae."
        )


def _runs(program: Any) -> bool:
    """Whether it is a function, or a module with a forward of its own: a VAE has none, it holds two programs."""
    forward = program.forward if isinstance(program, nn.Module) else program
    return callable(forward) and getattr(forward, "__func__", forward) is not nn.Module.forward


def require_positive(**counts: int) -> None:
    """Refuse counts below 1."""
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name}: expected at least 1, got {count}.")


def device_of(*programs: Any) -> torch.device:
    """The device of the programs' tensors; the CPU if they have none."""
    modules = [p for p in programs if isinstance(p, nn.Module)]
    tensors = [t for m in modules for t in (*m.parameters(), *m.buffers())]
    return tensors[0].device if tensors else torch.device("cpu")
