r"""Coordinates: the latent sites of any model as one vector $\zeta \in R^D$ per chain and datum, with its density."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor

from ...contract import DATA
from ...inference.run.particles import sum_over_plates
from ...inference.run.rules import check_sites
from ...inference.run.traces import (
    PairTrace,
    Site,
    latent_sites,
    log_density,
    plate_depth,
    plate_names,
    plate_value,
    run_pair,
    vectorized,
)
from .charts import chart_of

Values = dict[str, Tensor]


@dataclass(frozen=True)
class Point:
    r"""A place in the latent space of every datum, and what is known there; densities `(K, N)` in float64.

    Attributes:
        values: latent site → z `(K, *plates, N, *event)`.
        log_prior: $\log p(\zeta)$, the prior as a density of the coordinates.
        log_likelihood: $\log p(x \mid z)$.
        log_det: $\log|\det \partial z / \partial \zeta|$, which turns densities of z into those of ζ.
    """

    values: Values
    log_prior: Tensor
    log_likelihood: Tensor
    log_det: Tensor

    @property
    def log_joint(self) -> Tensor:
        r"""$\log p(x, \zeta)$."""
        return self.log_prior + self.log_likelihood


class Visit(Messenger):
    """Gives every latent site of a program the value that a function makes of it, once all plates have acted on it.

    It stands outside all handlers of the program. Masks are left out of latent sites: a masked one has its prior, and
    integrates to one.

    Args:
        value: takes the site, with its law as `fn`, and returns its value.
        observed: takes every observed site, if given.
    """

    def __init__(
        self, value: Callable[[Site], Tensor], observed: Callable[[Site], None] | None = None
    ):
        self.value, self.observed = value, observed

    def _pyro_sample(self, msg: Any) -> None:
        if isinstance(msg["fn"], _Subsample) or msg["infer"].get("_do_not_trace"):
            return
        if not msg["is_observed"]:
            msg["value"], msg["done"] = self.value(msg), True
        elif self.observed is not None:
            self.observed(msg)


@dataclass(frozen=True)
class Place:
    """Where one site lies in the vector of coordinates."""

    start: int
    shape: tuple[int, ...]  # (*plates, *free event), without particles and data
    site: Site

    @property
    def columns(self) -> slice:
        """Its part of the vector."""
        return slice(self.start, self.start + prod(self.shape))

    @property
    def datum_dim(self) -> int:
        """Which dim of the site's values `(K, *plates, N, *event)` counts the data, in those of `Posterior.sites`."""
        return plate_names(self.site).index(DATA)


class Posterior:
    r"""$p(z \mid x_i) \propto p(x_i, z)$ for a batch of data, as a density of free coordinates $\zeta \in R^D$.

    One vectorized run of the model gives the density of all `(K, N)` pairs of chain and datum. The data are
    independent, so that the gradient of the sum holds the gradient of each.

    Args:
        model: a Pyro program that keeps the contract.
        batch: its arguments.
        whiten: take the base space of a latent whose prior is a flow.

    Shape:
        ζ: `(K, N, D)`, all latent sites of one datum one after the other.

    Raises:
        ValueError: for a model without latent sites, a discrete or global one, or data outside the support.
    """

    def __init__(self, model: Callable, batch: tuple, *, whiten: bool = True):
        self.model, self.batch, self.whiten = model, batch, whiten
        trace = poutine.trace(model).get_trace(*batch)
        check_sites(PairTrace(trace, trace))
        self.depth = plate_depth(trace)
        self.places: dict[str, Place] = {}
        self._run(self._placed, 1)
        if not self.places:
            raise ValueError(
                f"model: expected a latent site, got the observed {list(trace.observation_nodes)} alone. "
                "Fix: dgm.nll(model, EmptyGuide(), x), which is exact for a model without latents."
            )

    def log_joint(self, zeta: Tensor) -> Tensor:
        r"""$\log p(x, \zeta)$ `(K, N)`."""
        return self(zeta).log_joint

    def __call__(self, zeta: Tensor) -> Point:
        """The point of coordinates `(K, N, D)`."""
        values: Values = {}
        densities: dict[str, list[Tensor]] = {"log_prior": [], "log_likelihood": [], "log_det": []}

        def place(site: Site) -> Tensor:
            name, chart = site["name"], chart_of(site["name"], site["fn"], whiten=self.whiten)
            z, log_p, log_det = chart.at(self._part(zeta, self.places[name]), self.depth + 1)
            densities["log_prior"].append(sum_over_plates(name, site, log_p).double())
            densities["log_det"].append(sum_over_plates(name, site, log_det).double())
            values[name] = z
            return z

        def score(site: Site) -> None:
            densities["log_likelihood"].append(
                sum_over_plates(site["name"], site, log_density(site)).double()
            )

        self._run(place, len(zeta), score)
        return Point(
            values, **{name: torch.stack(parts).sum(0) for name, parts in densities.items()}
        )

    def coordinates(self, values: Values, num: int) -> Tensor:
        r"""$\zeta$ `(K, N, D)` of given values `(K, *plates, N, *event)`."""
        parts: Values = {}

        def locate(site: Site) -> Tensor:
            name = site["name"]
            zeta = chart_of(name, site["fn"], whiten=self.whiten).of(values[name])
            parts[name] = zeta.movedim(self.depth, 1).reshape(num, zeta.shape[self.depth], -1)
            return values[name]

        self._run(locate, num)
        return torch.cat([parts[name] for name in self.places], -1)

    def draws_of(self, program: Callable | None, num: int) -> Values:
        """Draws of every latent site `(K, *plates, N, *event)` from a guide, or from the prior if there is none."""
        if program is not None:
            pair = run_pair(self.model, program, self.batch, num, self.depth)
            check_sites(pair)
            return {name: site["value"] for name, site in pair.latent.items()}
        trace = poutine.trace(vectorized(self.model, num, self.depth)).get_trace(*self.batch)
        return {name: site["value"] for name, site in latent_sites(trace).items()}

    def log_guide(self, guide: Callable, values: Values, num: int) -> Tensor:
        r"""$\log q(z \mid x)$ `(K, N)` of given values: a density of z, not of ζ."""
        found: list[Tensor] = []

        def score(site: Site) -> Tensor:
            value = values[site["name"]]
            found.append(sum_over_plates(site["name"], site, site["fn"].log_prob(value)).double())
            return value

        with Visit(score):
            vectorized(guide, num, self.depth)(*self.batch)
        return torch.stack(found).sum(0)

    def sites(self, values: Values) -> Values:
        """Values without the dims of size 1 that belong to no plate of their site."""
        return {name: plate_value(self.places[name].site, value) for name, value in values.items()}

    def _run(self, value: Callable, num: int, observed: Callable | None = None) -> None:
        with Visit(value, observed):
            vectorized(self.model, num, self.depth)(*self.batch)

    def _placed(self, site: Site) -> Tensor:
        """Draw a site and give it its columns."""
        name, distribution, start = (
            site["name"],
            site["fn"],
            sum(prod(p.shape) for p in self.places.values()),
        )
        shape = chart_of(name, distribution, whiten=self.whiten).shape
        z = distribution.sample()
        sum_over_plates(name, site, z.new_zeros(distribution.batch_shape))  # refuses a global site
        located = site.copy()
        located["value"] = z
        free_shape = (*shape[1 : self.depth], *shape[self.depth + 1 :])
        self.places[name] = Place(start, free_shape, located)
        return z

    def _part(self, zeta: Tensor, place: Place) -> Tensor:
        """One site's coordinates `(K, *plates, N, *free event)`."""
        part = zeta[..., place.columns].to(place.site["value"].dtype)
        return part.reshape(*zeta.shape[:2], *place.shape).movedim(1, self.depth)
