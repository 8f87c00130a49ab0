"""The door of every estimate on data that the model makes itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ...contract import PyroProgram
from ..adoption.plates import naming_of
from ..adoption.programs import as_module
from ..data.forms import as_tensors, check_observation_argument
from ..data.tensors import to_device
from ..process.states import evaluation_mode
from ..run.pair_checks import check_programs, require_positive
from ..run.sessions import Session
from ..vectorization.counting import num_rows
from ..vectorization.modes import meaning_of
from .templates import unconditioned


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
            _adopt_template(opened, like)
        yield opened


def _adopt_template(opened: Session, like: Any) -> None:
    """Let the model draw what it observes, on rows of a template, which start over for a longer context."""
    check_observation_argument((like,))
    (x,) = to_device(as_tensors((like,)), opened.device)
    num = num_rows(opened.context)
    if num is not None:
        x = x[torch.arange(num, device=x.device) % len(x)]
    template = (x, *opened.context)
    model, guide = opened.programs
    naming = naming_of(model, guide, template)
    model, guide = naming.adopt(model), naming.adopt(guide)
    vars(opened)["meaning"] = meaning_of(model, guide, template)
    vars(opened)["programs"] = (unconditioned(model, template), guide)
