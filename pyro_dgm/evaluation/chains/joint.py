r"""Coordinates of everything that is not observed, where all data share a draw: a vector $\zeta$ per chain."""

from __future__ import annotations

from collections.abc import Callable, Set
from copy import copy
from math import prod

import torch
from pyro import poutine
from torch import Tensor

from ...contract import PyroProgram, Site
from ...densities.scoring import log_prob_of
from ...inference.data.tensors import Batch
from ...inference.enumeration.layouts import summed_run
from ...inference.process.states import fork_rng, require_gradients
from ...inference.run.rules import check_sites
from ...inference.run.sessions import Session
from ...inference.run.traces import (
    PairTrace,
    latent_sites,
    log_density,
    plate_value,
    run_pair,
    vectorized,
)
from ...inference.sites.kinds import is_summable
from ...inference.vectorization.rows import OneAtATime, alone
from .charts import Chart, chart_of
from .coordinates import Posterior, require_latents
from .points import Place, Point, Values, Visit, concatenated, given_value
from .summed import mixed_sites, placed, point_of, settle


class JointPosterior:
    r"""$p(\theta, z \mid X) \propto p(X, z, \theta)$ of all data as a density of free coordinates $\zeta \in R^D$.

    It is a `Posterior` of a single datum, the whole set: coordinates are `(K, 1, D)` and densities `(K, 1)`. A program
    that runs on one particle at a time is run once for each chain.

    Args:
        model: a Pyro program that keeps the contract.
        batch: its arguments, all of them.
        whiten: take the base space of a latent whose prior is a flow.

    Raises:
        ValueError: for a discrete latent that is not summed over, or data outside the support.
    """

    def __init__(self, model: PyroProgram, batch: Batch, *, whiten: bool = True):
        require_gradients(model)
        self.model, self.batch, self.whiten = model, batch, whiten
        self.is_single = isinstance(model, OneAtATime)
        trace = poutine.trace(model).get_trace(*batch)
        run = PairTrace(trace, trace)
        check_sites(run)
        self.depth = run.depth
        require_latents(run)
        self.is_summed = any(is_summable(site) for site in run.modelled.values())
        self.mixed: Set[str] = frozenset()  # one distribution for each value of a summed site
        if self.is_summed:
            self.mixed = mixed_sites(model, batch, self.depth)
        self.places: dict[str, Place] = {}
        for name, site in run.modelled.items():
            if not is_summable(site):
                self.places[name] = Place(self.dim, tuple(self.chart(site).shape), site)
        if self.is_summed and not self.is_single:
            with fork_rng(*batch):
                settle(self, self.coordinates(self.draws_of(None, 2), 2))

    @property
    def dim(self) -> int:
        """Number D of coordinates."""
        return max([place.stop for place in self.places.values()], default=0)

    def log_joint(self, zeta: Tensor) -> Tensor:
        r"""$\log p(X, \zeta)$ `(K, 1)`."""
        return self(zeta).log_joint

    def __call__(self, zeta: Tensor) -> Point:
        """The point of coordinates `(K, 1, D)`."""
        points = [self._point(part) for part in zeta.split(1 if self.is_single else len(zeta))]
        values = {}
        for name in self.places:
            parts = [point.values[name] for point in points]
            values[name] = torch.stack(parts) if self.is_single else parts[0]
        return concatenated(points, values)

    def _point(self, zeta: Tensor) -> Point:
        """The point of one run of the model."""
        if self.is_summed:
            return self._summed_point(zeta)
        values: Values = {}
        log_prior, log_det, log_likelihood = [], [], []

        def value_at(site: Site) -> Tensor:
            part, num_batch = self._part(zeta, site)
            z, log_p, of_chart = self.chart(site).at(part, num_batch)
            log_prior.append(_of_set(log_p, len(zeta)))
            log_det.append(_of_set(of_chart, len(zeta)))
            values[site["name"]] = z
            return z

        def score(site: Site) -> None:
            log_likelihood.append(_of_set(log_density(site), len(zeta)))

        with Visit(value_at, score):
            self._run(self.model, len(zeta))
        return Point(values, _sum(log_prior), _sum(log_likelihood), _sum(log_det))

    def _summed_point(self, zeta: Tensor) -> Point:
        """The point of one run of the model over all values of the sites that are summed over."""
        values: Values = {}
        log_dets = []

        def value_at(site: Site) -> Tensor:
            part, num_batch = self._part(zeta, site)
            z, of_chart = placed(site, self.chart, part, num_batch)
            log_dets.append(_of_set(of_chart, len(zeta)))
            values[site["name"]] = z
            return z

        program, depth = alone(self.model), self.depth
        if not self.is_single:
            program, depth = vectorized(self.model, len(zeta), depth), depth + 1
        with Visit(value_at):
            sums = summed_run(program, self.batch, depth)
        return point_of(sums, values, log_dets, lambda log_p: _of_set(log_p, len(zeta)))

    def _part(self, zeta: Tensor, site: Site) -> tuple[Tensor, int]:
        """One site's coordinates, as a run of the model takes them, and how many batch dims they have."""
        place = self.places[site["name"]]
        num_plates = len(place.site["fn"].batch_shape)
        part = zeta[:, 0, place.columns].to(place.site["value"].dtype)
        if self.is_single:
            return part.reshape(place.shape), num_plates
        others = [1] * (self.depth - num_plates)
        return part.reshape(len(zeta), *others, *place.shape), self.depth + 1

    def given(self, batch: Batch) -> JointPosterior:
        """The posterior of as many other data."""
        twin = copy(self)
        twin.batch = batch
        return twin

    def coordinates(self, values: Values, num: int) -> Tensor:
        r"""$\zeta$ `(K, 1, D)` of given values `(K, *plates, *event)`."""
        rows = []
        for k in range(num) if self.is_single else [slice(None)]:
            parts: Values = {}
            with Visit(self._locating({name: value[k] for name, value in values.items()}, parts)):
                self._run(self.model, num)
            rows.append(torch.cat([parts[name] for name in self.places], -1))
        return torch.cat(rows)[:, None]

    def _locating(self, values: Values, parts: Values) -> Callable[[Site], Tensor]:
        def locate(site: Site) -> Tensor:
            name = site["name"]
            size = prod(self.places[name].shape)
            parts[name] = self.chart(site).of(values[name]).reshape(-1, size)
            return values[name]

        return locate

    def draws_of(self, guide: PyroProgram | None, num: int) -> Values:
        """Draws of every latent site `(K, *plates, *event)` from a guide, or from the prior if there is none."""
        runs = [self._draw(guide, num) for _ in range(num if self.is_single else 1)]
        values = {}
        for name in self.places:
            parts = [run[name]["value"] for run in runs]
            values[name] = torch.stack(parts) if self.is_single else parts[0]
        return values

    def _draw(self, guide: PyroProgram | None, num: int) -> dict[str, Site]:
        if guide is None:
            prior = self.model if self.is_single else vectorized(self.model, num, self.depth)
            return latent_sites(poutine.trace(prior).get_trace(*self.batch))
        pair = run_pair(self.model, guide, self.batch, None if self.is_single else num, self.depth)
        check_sites(pair)
        return pair.latent

    def log_guide(self, guide: PyroProgram, values: Values, num: int) -> Tensor:
        r"""$\log q(\theta, z \mid X)$ `(K, 1)` of given values: a density of them, not of ζ."""
        rows = []
        for k in range(num) if self.is_single else [slice(None)]:
            found: list[Tensor] = []
            given = {name: value[k] for name, value in values.items()}
            with Visit(_scoring(given, found, 1 if self.is_single else num), is_guide=True):
                self._run(guide, num)
            rows.append(_sum(found))
        return torch.cat(rows)

    def sites(self, values: Values) -> Values:
        """Values `(K, *plates, *event)` without dims that belong to no plate."""
        found = {}
        for name, value in values.items():
            site = self.places[name].site
            shape = plate_value(site).shape
            found[name] = value.reshape(len(value), *shape)
        return found

    def chart(self, site: Site) -> Chart:
        """The free coordinates of a site, given what was drawn before it."""
        whiten = self.whiten and site["name"] not in self.mixed
        return chart_of(site["name"], site["fn"], whiten=whiten)

    def _run(self, program: PyroProgram, num: int) -> None:
        run = program if self.is_single else vectorized(program, num, self.depth)
        run(*self.batch)


def posterior_of(pair: Session, block: Batch, *, whiten: bool) -> Posterior | JointPosterior:
    """The posterior of each datum of a block, or of everything where all data share a draw."""
    if not pair.structure.has_globals:
        return Posterior(pair.model, block, whiten=whiten)
    full = pair.structure.full_size
    if full is not None and full != len(block[0]):
        raise ValueError(
            f"model: expected all {full} data of its plate, for all of them share {list(pair.structure.globals)}, "
            f"got {len(block[0])}. Fix: hmc(model, x) of the full set x, in place of a minibatch."
        )
    return JointPosterior(pair.model, block, whiten=whiten)


def _scoring(values: Values, found: list[Tensor], num: int) -> Callable[[Site], Tensor]:
    def score(site: Site) -> Tensor:
        value = given_value(site, values)
        found.append(_of_set(log_prob_of(site["fn"], value), num))
        return value

    return score


def _of_set(log_p: Tensor, num: int) -> Tensor:
    """A log density of `num` particles, summed over all plates `(K, 1)`, in float64."""
    return log_p.double().reshape(num, -1).sum(-1, keepdim=True)


def _sum(log_densities: list[Tensor]) -> Tensor:
    return torch.stack(log_densities).sum(0)
