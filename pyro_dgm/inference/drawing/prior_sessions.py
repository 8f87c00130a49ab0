"""The door of every estimate on data that the model makes itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ...contract import PyroProgram
from ..adoption.programs import as_module
from ..data.tensors import as_tensors, check_observation_argument, to_device
from ..process.states import evaluation_mode
from ..run.pair_checks import check_programs, require_positive
from ..run.sessions import Session
from .templates import adopt_template


@contextmanager
def session_of_prior(
    model: PyroProgram | None,
    guide: PyroProgram | None,
    *context: Any,
    num: int = 1,
    chunk: int = 20_000,
    seed: int = 0,
    like: Any = None,
) -> Iterator[Session]:
    """Open a pair for data that the model makes itself: `session` with `None` for the observation.

    Its arguments are those of `session`, with the programs' further arguments, a row per datum, for the data; and
    `like`, data as the first argument of a model takes them that does not run on `None`, see `Unconditioned`.

    Raises:
        TypeError: for what is no program.
        ValueError: for counts below 1; with `like`, for a model whose draws depend on the data it is given.
    """
    check_programs(model, guide)
    require_positive(num=num, chunk=chunk)
    model, guide = as_module(model), as_module(guide)  # so that their networks change modes
    with evaluation_mode(model, guide, seed=seed):
        opened = Session(model, guide, (None, *context), num, chunk, seed)
        if like is not None:
            check_observation_argument((like,))
            template = to_device(as_tensors((like,)), opened.device)
            pair = adopt_template(*opened.programs, (*template, *opened.context))
            vars(opened)["meaning"], *programs = pair
            vars(opened)["programs"] = tuple(programs)
        yield opened
