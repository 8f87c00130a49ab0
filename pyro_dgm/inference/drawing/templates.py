"""Models that need data to run as models that generate: what they observe is drawn instead."""

from __future__ import annotations

from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.uncondition_messenger import UnconditionMessenger
from torch import Tensor, nn

from ...contract import PyroProgram
from ..data.tensors import Batch
from ..process.states import fork_rng
from ..run.explain import cause_of
from ..run.traces import latent_sites
from ..sites.kinds import is_data
from ..vectorization.counting import num_rows
from .observation import sites_that_observe


class Unconditioned(nn.Module):
    r"""$x \sim p(x \mid z)$ in place of data: a model that generates when its first argument is `None`.

    It then runs on rows of a template, of which only shapes count, and draws every site that observes. Given data it is
    the model itself. Factors and deterministic values stay as they are.

    Args:
        program: any Pyro program that observes its first argument.
        template: data for that argument `(N, *event)`, one row or more.
        whole: whether a run makes as many data as the template has rows; else one for each row of the further
            arguments, and one where these have none.
    """

    template: Tensor

    def __init__(self, program: PyroProgram, template: Tensor, *, whole: bool = False):
        super().__init__()
        self.program = program
        self.whole = whole
        self.register_buffer("template", template, persistent=False)

    def forward(self, x: Any = None, *context: Any) -> Any:
        """Run the program; see `PyroProgram`."""
        if x is not None:
            return self.program(x, *context)
        with DrawsData():
            return self.program(self.template[self._rows(context)], *context)

    def _rows(self, context: Batch) -> Tensor:
        num = num_rows(context)
        if num is None:
            num = len(self.template) if self.whole else 1
        return torch.arange(num, device=self.template.device) % len(self.template)


class DrawsData(UnconditionMessenger):
    """`poutine.uncondition` of data alone: a factor keeps its weight."""

    def _pyro_sample(self, msg: Any) -> None:
        if is_data(msg):
            super()._pyro_sample(msg)


def generative(model: PyroProgram, batch: Batch) -> PyroProgram:
    """A model as one that generates when its first argument is `None`: itself, if it does, or unconditioned.

    Args:
        model: any Pyro program.
        batch: data for its arguments, observation first.

    Raises:
        ValueError: as `unconditioned`.
    """
    with fork_rng(*batch), torch.no_grad(), pyro.validation_enabled(False):
        try:
            model(None, *batch[1:])
        except Exception:  # whatever a user's program raises
            return unconditioned(model, batch)
    return model


def unconditioned(model: PyroProgram, batch: Batch, *, whole: bool = False) -> PyroProgram:
    """A model as `Unconditioned`, once it is known that its draws do not depend on the data that it is given.

    Args:
        model: any Pyro program.
        batch: data for its arguments, observation first: the template.
        whole: whether a run makes as many data as the template has rows.

    Raises:
        ValueError: if it fails, or draws otherwise from other rows of the template.
    """
    x, *context = batch
    if not _is_observed(model, batch):  # it is context, which draws may depend on
        return Unconditioned(model, x, whole=whole)
    rolled = x.roll(1, 0)
    draws = []
    for rows in (x, rolled):
        program = Unconditioned(model, rows, whole=True)
        try:
            with fork_rng(x, seed=0), torch.no_grad():
                trace = poutine.trace(program).get_trace(None, *context)
        except Exception as error:  # whatever a user's program raises
            cause = cause_of(error).partition(" Fix: ")[0].rstrip(".")
            raise ValueError(
                f"expected a model that runs on data of shape {tuple(x.shape)}; got an error: {cause}. "
                "Fix: like=x, data as the model's first argument takes them."
            ) from error
        draws.append({name: site["value"] for name, site in latent_sites(trace).items()})
    for name, value in draws[0].items():
        if not torch.equal(value, draws[1][name]):
            raise ValueError(
                f"site '{name}': expected a model whose draws do not depend on the data that it observes, got one "
                "that reads them. Fix: write it with x=None, for `if x is None` to draw what it reads."
            )
    return Unconditioned(model, x, whole=whole)


def _is_observed(model: PyroProgram, batch: Batch) -> bool:
    """Whether a site of the model observes its first argument, in whatever shape; yes if it can't be told."""
    try:
        with pyro.validation_enabled(False):
            sites = sites_that_observe(model, batch)
    except Exception:  # whatever a user's program raises: whoever runs it next says why
        return True
    values = [site["value"].flatten() for site in sites.values()]
    x = batch[0].flatten()
    return any(len(value) == len(x) and bool((value == x).all()) for value in values)
