"""The sites of a pair as named arrays: draws, densities and data of one block, with dims named after the plates."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pyro import poutine
from torch import Tensor, nn

from ..contract import DATA, PARTICLES
from ..inference.run.particles import Particles, draw
from ..inference.run.rules import check_sites
from ..inference.run.simulation import generative_trace
from ..inference.run.traces import Site, plate_depth, plate_names, plate_value, sample_sites
from .datatree import DATUM, SAMPLE, Arrays, taken
from .smoothing import resampled

WEIGHTED = ("posterior", "posterior_predictive", "log_likelihood", "sample_stats")
ARRAY = tuple[tuple[str, ...], np.ndarray]


@dataclass(frozen=True)
class Reading:
    """How the sites of a pair are read.

    Attributes:
        model, guide: the pair.
        num: draws K per datum.
        dims: site → names of its event dims.
        resampled: whether the draws of the guide are resampled with their smoothed weights.
        prior: whether the model is drawn from as well.
    """

    model: Callable
    guide: Callable
    num: int
    dims: Mapping[str, Sequence[str]]
    resampled: bool
    prior: bool

    def groups(self, batch: tuple) -> dict[str, Arrays]:
        """The groups of a block of data."""
        particles = draw(self.model, self.guide, *batch, num=self.num)
        check_sites(particles.pair)
        found = self._drawn(particles)
        if self.resampled:
            index = resampled(particles.log_weight).cpu().numpy()
            found = {
                name: taken(group, index) if name in WEIGHTED else group
                for name, group in found.items()
            }
        if self.prior:
            found["prior"], found["prior_predictive"] = self._simulated(batch, particles)
        return found

    def _drawn(self, particles: Particles) -> dict[str, Arrays]:
        latent = _sites(particles.guide_trace, particles.values)
        observed = _sites(particles.model_trace, particles.observations)
        log_p = {n: particles.log_p[n] for n in observed}
        return {
            "posterior": {n: self._array(n, s, plate_value(s)) for n, s in latent.items()},
            "posterior_predictive": {
                n: self._array(n, s, _predicted(s)) for n, s in observed.items()
            },
            "log_likelihood": {n: _per_draw(v) for n, v in log_p.items()},
            "sample_stats": {n: _per_draw(v) for n, v in _statistics(particles).items()},
            "observed_data": {n: self._observation(n, s) for n, s in observed.items()},
        }

    def _simulated(self, batch: tuple, particles: Particles) -> tuple[Arrays, Arrays]:
        r"""K data sets of the model: $z^{(k)}_i \sim p(z \mid c_i)$, $x^{(k)}_i \sim p(x \mid z^{(k)}_i, c_i)$."""
        size, context = len(batch[0]), batch[1:]
        depth = plate_depth(poutine.trace(self.model).get_trace(None, *context))
        drawn = dict(sample_sites(generative_trace(self.model, self.num, size, context, depth)))

        def arrays(names: Iterable[str]) -> Arrays:
            return {
                n: self._array(n, drawn[n], _replicated(drawn[n], self.num, size))
                for n in names
                if n in drawn
            }

        return arrays(particles.values), arrays(particles.observations)

    def _array(self, name: str, site: Site, value: Tensor) -> ARRAY:
        plates = [{PARTICLES: "draw", DATA: DATUM}.get(p, p) for p in plate_names(site)]
        return ("chain", *plates, *self._event_dims(name, site)), _numpy(value)[None]

    def _observation(self, name: str, site: Site) -> ARRAY:
        plates = [{DATA: DATUM}.get(p, p) for p in plate_names(site) if p != PARTICLES]
        dims = (*plates, *self._event_dims(name, site))
        value = site["value"]
        return dims, _numpy(value.reshape(value.shape[value.dim() - len(dims) :]))

    def _event_dims(self, name: str, site: Site) -> list[str]:
        return event_dims(name, len(site["fn"].event_shape), self.dims)


def constants(program: Callable, batch: tuple, dims: Mapping[str, Sequence[str]]) -> Arrays:
    """The further arguments of a program that have a row for each datum, under the names it gives them."""
    names = _further_arguments(program, len(batch) - 1)
    return {
        name: ((DATUM, *event_dims(name, value.dim() - 1, dims)), _numpy(value))
        for name, value in zip(names, batch[1:], strict=True)
        if isinstance(value, Tensor) and value.dim() > 0
    }


def event_dims(name: str, num: int, dims: Mapping[str, Sequence[str]]) -> list[str]:
    """Names of the event dims of a site: `dims[name]`, or `<name>_dim_0`, …."""
    given = list(dims.get(name, ()))
    if given and len(given) != num:
        raise ValueError(
            f"to_arviz: expected {num} names for the event dims of site '{name}', got dims={given}."
        )
    return given or [f"{name}_dim_{i}" for i in range(num)]


def _further_arguments(program: Callable, num: int) -> list[str]:
    """Names of a program's positional arguments behind the first; `context_<i>` for those that have none."""
    forward = program.forward if isinstance(program, nn.Module) else program
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    named = [p.name for p in inspect.signature(forward).parameters.values() if p.kind in kinds][
        1 : num + 1
    ]
    return [*named, *(f"context_{i}" for i in range(len(named), num))]


def _replicated(site: Site, num: int, size: int) -> Tensor:
    """The draws of a generative run as K for each of N data, `(K, …, N, *event)`."""
    value, place = plate_value(site), plate_names(site).index(DATA)
    draws = value.movedim(place, 1).flatten(0, 1)[: num * size]
    return draws.unflatten(0, (num, size)).movedim(1, place)


def _sites(trace: Any, names: Iterable[str]) -> dict[str, Site]:
    return {name: trace.nodes[name] for name in names}


def _statistics(particles: Particles) -> dict[str, Tensor]:
    return {
        "lp": particles.log_joint,
        "log_q": particles.log_guide,
        "log_weight": particles.log_weight,
    }


def _per_draw(value: Tensor) -> ARRAY:
    return (*SAMPLE, DATUM), _numpy(value)[None]


def _predicted(site: Site) -> Tensor:
    return plate_value(site, site["fn"].sample())


def _numpy(value: Tensor) -> np.ndarray:
    return value.detach().cpu().numpy()
