"""Parts of the session that estimates still take one by one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ...contract import PyroProgram
from .data import (
    Batch,
    as_tensors,
    check_observation_argument,
    extreme_batch,
    repeat_rows,
    split_rows,
    take_rows,
    to_device,
)
from .explain import run_or_explain
from .rules import check_sites
from .sessions import Session, check_pair, check_program, require_positive
from .states import device_of, evaluation_mode
from .structure import BLOCK
from .supports import is_elementwise
from .traces import PairTrace

__all__ = [
    "check_pair",
    "extreme_batch",
    "repeat_rows",
    "require_positive",
    "split_rows",
    "take_rows",
]


@contextmanager
def estimating(*programs: Any, seed: int) -> Iterator[None]:
    """`evaluation_mode`, for Pyro programs."""
    for program in programs:
        check_program(program)
    with evaluation_mode(*programs, seed=seed):
        yield


def placed(program: Any, batch: Batch) -> Batch:
    """The data as tensors on the program's device."""
    check_batch(batch)
    return Session(program, None, batch, 1, 1, 0).batch


def placed_context(program: Any, context: Batch) -> Batch:
    """The context as tensors on the program's device."""
    return to_device(as_tensors(context), device_of(program))


check_batch = check_observation_argument


def checked_run(model: PyroProgram, guide: PyroProgram, batch: Batch) -> PairTrace:
    """A run on the most extreme data, all of which can be scored."""
    pair = run_or_explain(model, guide, extreme_batch(batch), given=batch)
    check_sites(pair)
    if not all(is_elementwise(site) for site in pair.observed.values()):
        for block in split_rows(batch, BLOCK):
            check_sites(run_or_explain(model, guide, block))
    return pair
