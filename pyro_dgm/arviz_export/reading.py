"""The sites of a pair as named arrays: draws, densities and data of one block, with dims named after the plates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from pyro.distributions import Delta
from torch import Tensor

from ..contract import DATA, PARTICLES, Site
from ..evaluation.likelihood.smoothing import resampled_indices
from ..evaluation.likelihood.weights import Weights
from ..inference.data.tensors import Batch, has_rows
from ..inference.drawing.observation import refuse_factors
from ..inference.drawing.simulation import generative_trace
from ..inference.drawing.templates import generative
from ..inference.process.states import derive_seed, fork_rng
from ..inference.run.particles import Particles
from ..inference.run.sessions import Session
from ..inference.run.traces import latent_sites, log_density, plate_names, plate_value
from ..inference.sites.kinds import is_deterministic
from ..inference.sites.supports import is_discrete
from .datatree import DATUM, SAMPLE, Array, Arrays, take_draws

WEIGHTED = ("posterior", "posterior_predictive", "log_likelihood", "log_prior", "sample_stats")
PLATES = {DATA: DATUM}  # plate → name of its dim


@dataclass(frozen=True)
class Block:
    """What was read of a block of data.

    Attributes:
        groups: group → its arrays.
        weights: of the draws that were read, before any resampling.
    """

    groups: dict[str, Arrays]
    weights: Weights


@dataclass(frozen=True)
class Reading:
    """How the sites of a pair are read.

    Attributes:
        pair: the open session.
        dims: site → names of its event dims.
        resampled: whether the draws of the guide are resampled with their smoothed weights.
        prior: whether the model is drawn from as well.
    """

    pair: Session
    dims: Mapping[str, Sequence[str]]
    resampled: bool
    prior: bool

    def read(self, block: Batch, number: int) -> Block:
        """The groups of a block of data, and what `nll` says of it by the same draws of the guide.

        All other draws have a noise of their own, by the number of the block, so that the guide's are those of `nll`.
        """
        particles = self.pair.draw(block)
        weights = Weights.of(particles)
        with fork_rng(block[0], seed=derive_seed(self.pair.seed, number + 1)):
            return Block(self._groups(block, particles), weights)

    def _groups(self, block: Batch, particles: Particles) -> dict[str, Arrays]:
        groups = self._drawn(particles)
        if self.resampled:
            index = resampled_indices(particles.log_weight).cpu().numpy()
            for name in WEIGHTED:
                groups[name] = take_draws(groups[name], index)
        if self.prior:
            groups["prior"], groups["prior_predictive"] = self._simulated(block, particles)
        return groups

    def _drawn(self, particles: Particles) -> dict[str, Arrays]:
        """The groups of the guide's draws, and of the data that they belong to."""
        predictive, observed = Arrays(), Arrays()
        for name, site in particles.pair.observed.items():
            predictive[name] = self.draws(name, site, plate_value(site, site["fn"].sample()))
            observed[name] = self.observation(name, site)
        return {
            "posterior": self._posterior(particles),
            "posterior_predictive": predictive,
            **densities(particles),
            "sample_stats": _statistics(particles),
            "observed_data": observed,
        }

    def _posterior(self, particles: Particles) -> Arrays:
        """The latent sites, and the values that the programs compute of them."""
        found = Arrays()
        for name, site in particles.pair.latent.items():
            found[name] = self.draws(name, site, particles.values[name])
        for name, site in particles.pair.deterministic.items():
            shaped = with_plates(site)
            found[name] = self.draws(name, shaped, plate_value(shaped))
        return found

    def _simulated(self, block: Batch, particles: Particles) -> tuple[Arrays, Arrays]:
        r"""K data sets of the model: $z^{(k)}_i \sim p(z \mid c_i)$, $x^{(k)}_i \sim p(x \mid z^{(k)}_i, c_i)$."""
        num, size = self.pair.num, len(block[0])
        depth = self.pair.structure.depth
        model = generative(self.pair.model, block)
        trace = generative_trace(model, num, size, block[1:], depth)
        refuse_factors(model, trace, block[1:], depth)
        latent, observed = Arrays(), Arrays()
        for name, site in latent_sites(trace).items():
            found = observed if name in particles.pair.observed else latent
            found[name] = self.draws(name, site, _as_data_sets(site, num, size))
        return latent, observed

    def draws(self, name: str, site: Site, value: Tensor) -> Array:
        """Values `(K, …, N, *event)` of a site as one chain of draws."""
        plates = [PLATES.get(plate, plate) for plate in plate_names(site) if plate != PARTICLES]
        dims = (*SAMPLE, *plates, *self._event_dims(name, site))
        return dims, _numpy(_as_integers(site, value)[None])

    def observation(self, name: str, site: Site) -> Array:
        """The observed value of a site, without the dim of the particles, all of which see the same data."""
        plates = [PLATES.get(plate, plate) for plate in plate_names(site) if plate != PARTICLES]
        dims = (*plates, *self._event_dims(name, site))
        _check_shape(name, site)
        value = _as_integers(site, site["value"])
        copies = value.reshape(-1, *value.shape[value.dim() - len(dims) :])
        return dims, _numpy(copies[0])

    def _event_dims(self, name: str, site: Site) -> list[str]:
        return event_dims(name, len(site["fn"].event_shape), self.dims)


def _check_shape(name: str, site: Site) -> None:
    """Refuse an observation of more numbers than its distribution has: which of them have a plate is unknown."""
    value, law = site["value"], site["fn"]
    batch_shape = value.shape[: value.dim() - len(law.event_shape)]
    if torch.broadcast_shapes(batch_shape, law.batch_shape) != law.batch_shape:
        raise ValueError(
            f"to_arviz: site '{name}': expected a value for each plate and event dim, got data of shape "
            f"{tuple(value.shape)} for a distribution that draws {tuple(law.shape())}. Fix: "
            f"`with data_plate(x):` around pyro.sample('{name}', …), or .to_event(1)."
        )


def densities(particles: Particles) -> dict[str, Arrays]:
    """`log_likelihood` and `log_prior`: log density of each of the model's sites, pointwise in all its plates.

    Sites that depend on the same summed sites have one density, under the names of all.
    """
    pair, likelihood, prior = particles.pair, Arrays(), Arrays()
    for entry, log_p in (particles.log_p | particles.shared_p).items():
        names = set(particles.sites_of(entry))
        found = _pointwise(particles, entry, log_p)
        if names <= set(pair.observed):
            likelihood[entry] = found
        elif names <= set(pair.latent):
            prior[entry] = found
    return {"log_likelihood": likelihood, "log_prior": prior}


def _pointwise(particles: Particles, entry: str, log_p: Tensor) -> Array:
    """Log density `(1, K, *plates)` of a site; what several sites have as one is a sum over all but the data plate."""
    plates = [DATA] if log_p.dim() > 1 else []
    if entry not in particles.groups:
        site = particles.pair.joint[entry]
        sizes = _sizes_of_plates(site)
        if list(sizes) != plates:
            plates = list(sizes)
            log_p = log_density(site).reshape(len(log_p), *sizes.values())
    return (*SAMPLE, *[PLATES.get(plate, plate) for plate in plates]), _numpy(log_p[None])


def _sizes_of_plates(site: Site) -> dict[str, int]:
    """Plate around a site → its size, outermost dim first, without that of the particles."""
    sizes = {frame.name: frame.size for frame in site["cond_indep_stack"] if frame.vectorized}
    return {plate: sizes[plate] for plate in plate_names(site) if plate != PARTICLES}


def _statistics(particles: Particles) -> Arrays:
    """The log densities of the draws, and their log weights."""
    log_joint, log_guide = particles.log_joint, particles.log_guide
    found = {
        "lp": _per_draw(log_joint),
        "log_q": _per_draw(log_guide),
        "log_weight": _per_draw(log_joint - log_guide),
    }
    for name, log_f in particles.factors.items():
        found[f"factor[{name}]"] = _per_draw(log_f)
    return found


def constants(pair: Session, batch: Batch, dims: Mapping[str, Sequence[str]]) -> Arrays:
    """The further arguments of a model that have a row for each datum, under the names it gives them."""
    found = Arrays()
    context = batch[1:]
    for name, value in zip(_names_of_context(pair, len(context)), context, strict=True):
        if has_rows(value):
            found[name] = (DATUM, *event_dims(name, value.dim() - 1, dims)), _numpy(value)
    return found


def _names_of_context(pair: Session, num: int) -> list[str]:
    """Names of a model's positional arguments behind the first; `context_<i>` for those that have none."""
    if num == 0:
        return []
    names = pair.arguments[1 : num + 1]
    for i in range(len(names), num):
        names.append(f"context_{i}")
    return names


def event_dims(name: str, num: int, dims: Mapping[str, Sequence[str]]) -> list[str]:
    """Names of the event dims of a site: `dims[name]`, or `<name>_dim_0`, …."""
    given = list(dims.get(name, ()))
    if given and len(given) != num:
        raise ValueError(
            f"to_arviz: expected {num} names for the event dims of site '{name}', got dims={given}. "
            f"Fix: dims={{'{name}': {[f'{name}_dim_{i}' for i in range(num)]}}}."
        )
    if given:
        return given
    return [f"{name}_dim_{i}" for i in range(num)]


def evenly_spread(num: int, total: int) -> Tensor:
    """Indices of `num` data, evenly spread over the set, the first and the last among them; all if there are fewer."""
    return torch.linspace(0, total - 1, min(num, total), dtype=torch.float64).round().long()


def _as_data_sets(site: Site, num: int, size: int) -> Tensor:
    """The draws of a generative run as K for each of N data, `(K, …, N, *event)`."""
    value, place = plate_value(site), plate_names(site).index(DATA)
    draws = value.movedim(place, 1).flatten(0, 1)[: num * size]
    return draws.unflatten(0, (num, size)).movedim(1, place)


def with_plates(site: Site) -> Site:
    """A deterministic site under its plates; Pyro takes all dims of its value for one event if none are named."""
    value, batch_shape = site["value"], site["fn"].batch_shape
    num_plates = len(batch_shape)
    if value.shape[:num_plates] != batch_shape:
        value = value.expand(*batch_shape, *site["fn"].event_shape)
    law = Delta(value, event_dim=value.dim() - num_plates)
    return {**site, "fn": law, "value": value}


def _as_integers(site: Site, value: Tensor) -> Tensor:
    """Values of a discrete site as integers, which ArviZ draws as bars; all others as they are."""
    if is_deterministic(site) or not is_discrete(site["fn"]):
        return value
    return value.to(torch.int64)


def _per_draw(value: Tensor) -> Array:
    return (*SAMPLE, DATUM), _numpy(value[None])


def _numpy(value: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    return value.detach().cpu().numpy()
