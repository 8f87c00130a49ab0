"""What programs make when they first run, made on all data: an AutoGuide's parameters, `pyro.param` statements."""

from __future__ import annotations

import warnings
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.contrib.easyguide import EasyGuide
from pyro.infer.autoguide import AutoGuide
from pyro.infer.autoguide.effect import AutoMessenger
from torch import nn

from ...contract import PyroProgram
from ..data.tensors import Batch, has_rows, take_rows
from ..process.states import fork_rng

FEW = 3  # data that are looked at where a few tell


def initialise(
    model: PyroProgram | None, guide: PyroProgram | None, batch: Batch
) -> list[Any] | None:
    """Let the programs make their parameters once, on all the data that they will be asked about; it takes no noise.

    Pyro's guides that look at the model do it when they first run, and a `pyro.param("loc", torch.zeros(len(x)))` then
    has its shape: that of a few after a run on a few of the data. What has run before stays as it is.

    Args:
        model: a Pyro program, or `None`.
        guide: its guide, or `None`.
        batch: their arguments.

    Returns:
        The sample statements of a run on a few of the data; `None` if a program fails there, or has made something.
    """
    if isinstance(guide, nn.Module) and any(_waits_for_model(m) for m in guide.modules()):
        with fork_rng(*batch), torch.no_grad():
            guide(*batch)  # with the arguments that it gives its parts, which may be others
    if not any(has_rows(value) for value in batch):
        return None
    store = pyro.get_param_store()
    before = set(store.keys())
    sites = run_quietly(model, guide, few_of(batch))
    made = [name for name in store if name not in before]
    for name in made:
        del store[name]
    if made:
        run_quietly(model, guide, batch)
        return None
    return sites


def _waits_for_model(module: nn.Module) -> bool:
    """Whether it is a guide that has not seen its model yet."""
    if isinstance(module, AutoMessenger):
        return not list(module.parameters())
    if isinstance(module, AutoGuide) and module.master is not None:
        return False
    is_one = isinstance(module, (AutoGuide, EasyGuide))
    return is_one and getattr(module, "prototype_trace", None) is None


def few_of(batch: Batch) -> Batch:
    """The first few of the data."""
    num = next(len(value) for value in batch if has_rows(value))
    return take_rows(batch, torch.arange(min(FEW, num), device="cpu"))


def run_quietly(
    model: PyroProgram | None, guide: PyroProgram | None, batch: Batch
) -> list[Any] | None:
    """The sample statements of one run of the model at the guide's draws; `None` if a program fails."""
    sites: list[Any] = []
    with (
        fork_rng(*batch),
        torch.no_grad(),
        pyro.validation_enabled(False),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        drawn = None
        try:
            for program in (guide, model):
                if program is None:
                    continue
                run = program if drawn is None else poutine.replay(program, trace=drawn)
                drawn = poutine.trace(run).get_trace(*batch)
                sites += [site for site in drawn.nodes.values() if site["type"] == "sample"]
        except Exception:  # whatever a user's program raises: who runs it next says why
            return None
    return sites
