"""Whole data sets from a model, with the latents that they came from, global ones among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from torch import Tensor, nn

from ...contract import PyroProgram, Site
from ..data.forms import as_tensors
from ..data.tensors import Batch
from ..process.states import fork_rng
from ..run.traces import latent_sites
from .observation import is_same, sites_that_observe
from .templates import unconditioned


@dataclass(frozen=True)
class DataSet:
    r"""$\theta^* \sim p(\theta)$, $X \sim p(X \mid \theta^*)$.

    Attributes:
        arguments: of the programs, with X among them.
        truth: every latent site of the run that made X.
    """

    arguments: Batch
    truth: dict[str, Site]


@dataclass(frozen=True)
class DataSetSource:
    """A model that makes whole data sets, and where its data are among its arguments.

    Attributes:
        generator: the model as one that generates when its first argument is `None`.
        others: its further arguments.
        site: name of the observed site.
        position: of the data among the arguments of the model.
    """

    generator: PyroProgram
    others: Batch
    site: str
    position: int = 0

    @classmethod
    def of(cls, model: PyroProgram, context: Batch, like: Any = None) -> DataSetSource:
        """Find what makes data sets of a model.

        Args:
            model: any Pyro program.
            context: its further arguments.
            like: data for its first argument, for a model that does not run on `None`; or all its arguments as a
                tuple, of which the one that is observed is drawn.

        Raises:
            ValueError: if it does not observe one of its arguments at one site; as `unconditioned`.
        """
        if like is None:
            return cls(model, context, _site_of_draws(model, context))
        arguments = as_tensors(like if isinstance(like, tuple) else (like, *context))
        site, position = _observed_argument(model, arguments)
        others = (*arguments[:position], *arguments[position + 1 :])
        first = DataFirst(model, position) if position else model
        batch = (arguments[position], *others)
        return cls(unconditioned(first, batch, whole=True), others, site, position)

    def draw(self) -> DataSet:
        """One data set."""
        with torch.no_grad():
            trace = poutine.trace(self.generator).get_trace(None, *self.others)
        truth = latent_sites(trace)
        x = truth.pop(self.site)["value"]
        arguments = (*self.others[: self.position], x, *self.others[self.position :])
        return DataSet(arguments, truth)


class DataFirst(nn.Module):
    """A program as one whose data are its first argument.

    Args:
        program: any program.
        position: of its data among its arguments.
    """

    def __init__(self, program: PyroProgram, position: int):
        super().__init__()
        self.program = program
        self.position = position

    def forward(self, x: Any, *others: Any) -> Any:
        """Run the program; see `PyroProgram`."""
        return self.program(*others[: self.position], x, *others[self.position :])


def _observed_argument(model: PyroProgram, arguments: Batch) -> tuple[str, int]:
    """The observed site, and which argument has its values."""
    sites = sites_that_observe(model, arguments)
    for position, argument in enumerate(arguments):
        for name, site in sites.items():
            if (
                len(sites) == 1
                and isinstance(argument, Tensor)
                and is_same(site["value"], argument)
            ):
                return name, position
    raise ValueError(
        f"model: expected one observed site whose value is an argument, got {sorted(sites)}. "
        "Fix: pyro.sample('x', …, obs=x) of the argument as it is."
    )


def _site_of_draws(model: PyroProgram, context: Batch) -> str:
    """The site whose draws the model observes when they are given back to it as data."""
    with fork_rng(*context), torch.no_grad():
        drawn = latent_sites(poutine.trace(model).get_trace(None, *context))
    for name in reversed(drawn):
        value = drawn[name]["value"]
        try:
            sites = sites_that_observe(model, (value, *context))
        except Exception:  # whatever a user's program raises: these were not its data
            continue
        if [*sites] == [name] and is_same(sites[name]["value"], value):
            return name
    raise ValueError(
        f"model: expected one observed site, whose draws are the data, got a model that draws {sorted(drawn)} and "
        "observes none of them as it is. Fix: pyro.sample('x', …, obs=x) of the first argument as it is."
    )
