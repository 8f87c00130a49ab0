"""What a program takes: the names of its arguments, and whether an item of a stream is one datum or a batch of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from pyro import poutine
from pyro.poutine.subsample_messenger import _Subsample
from torch import nn

from ...contract import PyroProgram
from ..process.states import eval_mode, fork_rng
from .tensors import Batch


def arguments_of(program: PyroProgram) -> list[str]:
    """Names of a program's positional arguments, the observation first."""
    forward = program.forward if isinstance(program, nn.Module) else program
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = []
    for parameter in inspect.signature(forward).parameters.values():
        if parameter.kind in kinds:
            names.append(parameter.name)
    return names


def takes_as_one_datum(program: PyroProgram, read: Callable[[], Batch]) -> bool:
    """Whether a program takes an item of a stream, with a data dim in front, for one datum.

    It then runs on it, and no site of it has more dims than its plates and its events, as it has on a batch of batches.

    Args:
        program: a model or a guide.
        read: gives its arguments, the item as the one row of each.
    """
    try:
        batch = read()
        with fork_rng(*batch), eval_mode(program):
            nodes = poutine.trace(program).get_trace(*batch).nodes
            sites = [site for site in nodes.values() if _is_sample(site)]
    except Exception:  # whatever a user's program or collation raises
        return False
    return not any(_exceeds_its_plates(site) for site in sites)


def _is_sample(site: Any) -> bool:
    return site["type"] == "sample" and not isinstance(site["fn"], _Subsample)


def _exceeds_its_plates(site: Any) -> bool:
    depth = max([-frame.dim for frame in site["cond_indep_stack"] if frame.vectorized], default=0)
    num_batch = site["value"].dim() - len(site["fn"].event_shape)
    return max(num_batch, len(site["fn"].batch_shape)) > depth
