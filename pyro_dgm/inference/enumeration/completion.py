"""A guide that draws what the model alone has, from the model: where draws of every latent are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyro import poutine
from torch import nn

from ...contract import PyroProgram
from ..run.traces import sites_of
from ..vectorization.rows import ByRows, OneAtATime, alone


class Completed(nn.Module):
    r"""$q(z \mid x)\, p(c \mid z)$: a guide with the discrete sites c of the model that it has not.

    Args:
        guide: draws z.
        model: the model, run once at z for the prior of c.
        names: of the sites c.
    """

    def __init__(self, guide: PyroProgram, model: PyroProgram, names: Sequence[str]):
        super().__init__()
        self.guide, self.model = guide, model
        self.names = tuple(names)

    def forward(self, *batch: Any) -> Any:
        """Run the guide, and the model at its draws; see `PyroProgram`."""
        drawn = poutine.trace(self.guide).get_trace(*batch)
        values = {name: site["value"] for name, site in sites_of(drawn).items()}
        at_draws = poutine.condition(self.model, data=values)
        poutine.block(at_draws, hide_fn=lambda msg: msg["name"] not in self.names)(*batch)
        return drawn.nodes["_RETURN"]["value"]


def completed(model: Any, guide: Any, names: Sequence[str]) -> Any:
    """The guide with the sites that the model alone has, run on particles as before; itself where there are none.

    Args:
        model: a program that takes a plate of particles.
        guide: its guide.
        names: of the sites.
    """
    if not names:
        return guide
    whole = Completed(alone(guide), alone(model), names)
    if isinstance(guide, ByRows):
        return ByRows(whole, guide.size)
    return OneAtATime(whole) if isinstance(guide, OneAtATime) else whole
