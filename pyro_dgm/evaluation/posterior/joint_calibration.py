"""Simulation-based calibration where all data share a draw: every simulation is a whole data set."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from pyro import poutine
from pyro.infer.autoguide import AutoGuide
from pyro.poutine.trace_struct import Trace
from torch import Tensor, nn

from ...contract import PyroProgram, Site
from ...inference.data.tensors import has_rows
from ...inference.drawing.simulation import run_without_data
from ...inference.process.states import fork_rng
from ...inference.run.kinds import is_deterministic, is_factor
from ...inference.run.particles import draw
from ...inference.run.sessions import Session
from ...inference.run.traces import latent_sites, log_density, plate_value, sites_of
from ..likelihood.quantities import names_of_numbers
from .uniformity import rounding_of_draws

Fit = Callable[..., Any]


def shares_draws(pair: Session) -> bool:
    """Whether the model draws a site once for all data; its noise is not the session's."""
    with fork_rng(torch.empty(0, device=pair.device)):
        trace = run_without_data(pair.programs[0], pair.context, pair.programs[1])
    return any(_is_shared(site) for site in latent_sites(trace).values())


def _is_shared(site: Site) -> bool:
    return all(frame.dim != -1 or not frame.vectorized for frame in site["cond_indep_stack"])


class DataSets:
    r"""$\theta^* \sim p(\theta)$, $X \sim p(X \mid \theta^*)$, and draws of a guide for each X.

    Args:
        pair: the open session, with `None` for the observation.
        size: number of data in each set; the rows of the further arguments, if they have any.
        fit: gives the guide of a data set; `None` for one guide that answers any.

    Raises:
        ValueError: for no size, a factor in the model, or an AutoGuide without `fit`, which knows one data set alone.
    """

    def __init__(self, pair: Session, size: int | None, fit: Fit | None):
        self.pair, self.fit = pair, fit
        self.model, self.guide = pair.programs
        if fit is None:
            _refuse_auto_guide(self.guide)
        trace = run_without_data(self.model, pair.context)
        _refuse_factors(trace)
        self.observed = self._observation(trace)
        self.template = sites_of(trace)[self.observed]["value"]
        if not any(has_rows(value) for value in pair.context):
            if size is None:
                raise ValueError(
                    "sbc: expected the number of data in a set, for all of them share a draw, got none. "
                    "Fix: sbc(model, guide, size=len(x))."
                )
            self.template = self.template[:1].expand(size, *self.template.shape[1:])
        latent = latent_sites(trace)
        self.shared = [name for name, site in latent.items() if _is_shared(site)]
        self.shapes = {name: plate_value(latent[name]).shape for name in self.shared}
        self.depth: int | None = None

    def _observation(self, trace: Trace) -> str:
        """The site that observes what it drew, when that is the data."""
        drawn = latent_sites(trace)
        for name in reversed(drawn):
            with suppress(Exception):  # whatever a program raises on data that are none of its own
                value = drawn[name]["value"]
                run = poutine.trace(self.model).get_trace(value, *self.pair.context)
                if run.nodes[name]["is_observed"]:
                    return name
        raise ValueError(
            f"model: expected a site that observes the data, got {list(drawn)}. "
            "Fix: pyro.sample('x', p_x, obs=x), with x the model's first argument."
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the statistics: every number that all data share, and the joint density."""
        names: list[str] = []
        for name in self.shared:
            names += names_of_numbers(name, self.shapes[name])
        return (*names, "log p(X, z)")

    def compare(self) -> tuple[Tensor, Tensor, float]:
        """Statistics of the guide's draws `(L, 1, S)` and of the truth `(1, S)` of one data set; their rounding."""
        run = poutine.trace(poutine.uncondition(self.model))
        sites = sites_of(run.get_trace(self.template, *self.pair.context))
        x = sites[self.observed]["value"].detach()
        batch = (x, *self.pair.context)
        guide = self.guide if self.fit is None else self._fitted(batch)
        particles = draw(self.model, guide, *batch, num=self.pair.num)
        truth = [plate_value(sites[name]).reshape(1, -1).double() for name in self.shared]
        log_p = torch.zeros(1, 1, dtype=torch.float64, device=x.device)
        for site in sites.values():
            if not is_deterministic(site):
                log_p = log_p + log_density(site).double().sum()
        draws = [particles.values[n].reshape(self.pair.num, 1, -1).double() for n in self.shared]
        joint = particles.log_joint.sum(-1)
        for shared in particles.shared_p.values():
            joint = joint + shared
        rounding = rounding_of_draws(particles)
        return (
            torch.cat([*draws, joint[:, None, None]], -1),
            torch.cat([*truth, log_p], -1),
            rounding,
        )

    def _fitted(self, batch: tuple[Any, ...]) -> PyroProgram:
        assert self.fit is not None
        with torch.enable_grad():
            guide: PyroProgram = self.fit(*batch)
        return guide


def _refuse_auto_guide(guide: Any) -> None:
    modules = guide.modules() if isinstance(guide, nn.Module) else ()
    for module in modules:
        if isinstance(module, AutoGuide):
            raise ValueError(
                f"sbc: expected a guide that answers any data, got {type(module).__name__}, which is fitted to one "
                "data set. Fix: fit=, a function that fits a guide to a simulated set and returns it."
            )


def _refuse_factors(trace: Trace) -> None:
    factors = [name for name, site in sites_of(trace).items() if is_factor(site)]
    if factors:
        raise ValueError(
            f"sbc: expected a model without pyro.factor, which makes data, got {factors}. Fix: the model without it."
        )
