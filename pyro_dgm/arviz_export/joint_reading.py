"""The sites of a pair whose data share a draw, as named arrays: joint draws, with one weight for all data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from pyro import poutine
from torch import Tensor

from ..contract import Site
from ..evaluation.likelihood.model_evidence import joint_draws
from ..evaluation.likelihood.smoothing import resampled_indices
from ..evaluation.likelihood.weights import is_joint
from ..inference.drawing.templates import DrawsData
from ..inference.process.states import derive_seed, fork_rng
from ..inference.run.particles import Particles
from ..inference.run.traces import PairTrace, plate_value, sites_of, vectorized
from ..inference.vectorization.modes import ParticleMode
from ..inference.vectorization.rows import OneAtATime
from .datatree import DATUM, SAMPLE, Array, Arrays
from .reading import Reading, densities, with_plates

DRAW = 1  # which dim of all arrays counts the draws


@dataclass(frozen=True)
class JointReading:
    """How the sites of a pair with globals are read: all data at once, some draws after the other.

    Attributes:
        reading: the pair, and names of dims.
        kept: indices of the data whose draws are kept.
    """

    reading: Reading
    kept: Tensor

    def groups(self) -> dict[str, Arrays]:
        """All groups; globals have no datum dim."""
        pair = self.reading.pair
        parts: list[dict[str, Arrays]] = []
        log_w, observed = [], Arrays()
        for particles in joint_draws(pair):
            if not parts:
                observed = self._observed(particles.pair)
            parts.append(self._drawn(particles))
            log_w.append(particles.log_weight_of_set)
        groups = _concat_draws(parts)
        if self.reading.resampled:
            index = resampled_indices(torch.cat(log_w)[:, None])[:, 0].cpu().numpy()
            for name, arrays in groups.items():
                groups[name] = _mapped(arrays, lambda v: np.take(v, index, DRAW))
        if self.reading.prior:
            groups |= self._simulated()
        groups["observed_data"] = observed
        kept = self.kept.cpu().numpy()
        return {name: _take_data(arrays, kept) for name, arrays in groups.items()}

    def _drawn(self, particles: Particles) -> dict[str, Arrays]:
        """Sites and densities of some draws."""
        pair, is_single = particles.pair, self._is_single
        posterior, predictive = Arrays(), Arrays()
        for name, site in pair.latent.items():
            posterior[name] = self._draws(name, site, particles.values[name])
        for name, site in pair.observed.items():
            predictive[name] = self._draws(
                name, site, _of_run(site, site["fn"].sample(), is_single=is_single)
            )
        for name, site in pair.deterministic.items():
            shaped = with_plates(site)
            value = _of_run(shaped, shaped["value"], is_single=is_single)
            posterior[name] = self._draws(name, shaped, value)
        return {
            "posterior": posterior,
            "posterior_predictive": predictive,
            **densities(particles),
            "sample_stats": _statistics(particles),
        }

    def _simulated(self) -> dict[str, Arrays]:
        r"""Data sets of the model: $\theta^{(k)}$, then $z^{(k)}$ and $X^{(k)}$ of all data."""
        pair = self.reading.pair
        if pair.structure.factors:
            raise ValueError(
                f"to_arviz: expected a model without pyro.factor to draw from, got {list(pair.structure.factors)}. "
                "Fix: to_arviz(…, prior=False)."
            )
        known = set(pair.structure.latent)
        parts = []
        with fork_rng(pair.batch[0], seed=derive_seed(pair.seed, 1)):
            for sites in self._runs_of_model():
                found: dict[str, Arrays] = {"prior": Arrays(), "prior_predictive": Arrays()}
                for name, site in sites.items():
                    if name in pair.structure.deterministic:
                        continue
                    value = _of_run(site, site["value"], is_single=self._is_single)
                    group = "prior" if name in known else "prior_predictive"
                    found[group][name] = self._draws(name, site, value)
                parts.append(found)
        return _concat_draws(parts)

    def _runs_of_model(self) -> Iterator[dict[str, Site]]:
        """The sites of the model where nothing is observed, run after run."""
        pair = self.reading.pair
        if self._is_single:
            assert isinstance(pair.model, OneAtATime)
            model = DrawsData()(pair.model.program)
            for _ in range(pair.num):
                yield sites_of(poutine.trace(model).get_trace(*pair.batch))
            return
        step = max(1, pair.chunk // len(pair))
        for start in range(0, pair.num, step):
            num = min(step, pair.num - start)
            run = vectorized(DrawsData()(pair.model), num, pair.structure.depth)
            yield sites_of(poutine.trace(run).get_trace(*pair.batch))

    @property
    def _is_single(self) -> bool:
        return self.reading.pair.structure.particles is ParticleMode.SINGLE

    def _observed(self, pair: PairTrace) -> Arrays:
        return {name: self.reading.observation(name, s) for name, s in pair.observed.items()}

    def _draws(self, name: str, site: Site, value: Tensor) -> Array:
        return self.reading.draws(name, site, value)


def has_densities(particles: Particles) -> bool:
    """Whether each datum has a density of its own, given the globals: none has under a sum that all data share."""
    pair = particles.pair
    shared = [entry for entry in particles.shared_p if entry not in pair.latent]
    return not shared and not is_joint(pair)


def _of_run(site: Site, value: Tensor, *, is_single: bool) -> Tensor:
    """A value of a site with a dim of draws, `(K, *plates, *event)`."""
    shaped = plate_value(site, value)
    return shaped[None] if is_single else shaped


def _statistics(particles: Particles) -> Arrays:
    """Joint densities of all data `(1, K)`."""
    log_w = particles.log_weight_of_set
    log_q = particles.log_guide.sum(-1)
    for shared in particles.shared_q.values():
        log_q = log_q + shared
    found = {"lp": log_w + log_q, "log_q": log_q, "log_weight": log_w}
    for name in particles.pair.factors:
        log_f = particles.shared_p.get(name)
        if log_f is None:
            log_f = particles.log_p[name].sum(-1)
        found[f"factor[{name}]"] = log_f
    return {name: (SAMPLE, value[None].detach().cpu().numpy()) for name, value in found.items()}


def _mapped(arrays: Arrays, change: Callable[[np.ndarray], np.ndarray]) -> Arrays:
    return {name: (dims, change(values)) for name, (dims, values) in arrays.items()}


def _concat_draws(parts: Sequence[dict[str, Arrays]]) -> dict[str, Arrays]:
    """Some draws after the other."""
    groups = {}
    for group, arrays in parts[0].items():
        whole = Arrays()
        for name, (dims, _) in arrays.items():
            values = [part[group][name][1] for part in parts]
            whole[name] = dims, np.concatenate(values, DRAW)
        groups[group] = whole
    return groups


def _take_data(arrays: Arrays, kept: np.ndarray) -> Arrays:
    """The arrays at some data."""
    found = Arrays()
    for name, (dims, values) in arrays.items():
        if DATUM in dims:
            values = np.take(values, kept, dims.index(DATUM))
        found[name] = dims, values
    return found
