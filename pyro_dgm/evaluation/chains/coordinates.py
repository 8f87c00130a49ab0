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

from ...contract import DATA, PyroProgram, Site
from ...densities.scoring import log_prob_of
from ...inference.data.tensors import Batch
from ...inference.process.states import require_gradients
from ...inference.run.rules import check_sites
from ...inference.run.shares import sum_over_plates
from ...inference.run.traces import (
    PairTrace,
    latent_sites,
    log_density,
    plate_names,
    plate_value,
    run_pair,
    vectorized,
)
from ...inference.sites.kinds import is_deterministic
from .charts import Chart, chart_of

Values = dict[str, Tensor]
ValueOf = Callable[[Site], Tensor]  # the value that a site gets


@dataclass(frozen=True)
class Point:
    r"""A place in the latent space of every datum, and what is known there; densities `(K, N)` in float64.

    Attributes:
        values: latent site → z `(K, *plates, N, *event)`.
        log_prior: $\log p(\zeta)$, the prior as a density of the coordinates.
        log_likelihood: $\log p(x \mid z)$, factors of the model included.
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
        value: takes the site, with its distribution as `fn`, and returns its value.
        observed: takes every site with a density that is not drawn: observed ones and factors.
    """

    def __init__(self, value: ValueOf, observed: Callable[[Site], None] | None = None):
        self.value, self.observed = value, observed

    def _pyro_sample(self, msg: Any) -> None:
        if isinstance(msg["fn"], _Subsample) or msg["infer"].get("_do_not_trace"):
            return
        if not msg["is_observed"]:
            msg["value"] = self.value(msg)
            msg["done"] = True
        elif self.observed is not None and not is_deterministic(msg):
            self.observed(msg)


@dataclass(frozen=True)
class Place:
    """Where one site lies in the vector of coordinates.

    Attributes:
        start: its first column.
        shape: `(*plates, *free event)`, without particles and data.
        site: the site, as one run of the model has it.
    """

    start: int
    shape: tuple[int, ...]
    site: Site

    @property
    def stop(self) -> int:
        """The first column behind it."""
        return self.start + prod(self.shape)

    @property
    def columns(self) -> slice:
        """Its part of the vector."""
        return slice(self.start, self.stop)

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

    def __init__(self, model: PyroProgram, batch: Batch, *, whiten: bool = True):
        require_gradients(model)  # chains follow the gradient of log p(x, z)
        self.model, self.batch, self.whiten = model, batch, whiten
        trace = poutine.trace(model).get_trace(*batch)
        run = PairTrace(trace, trace)
        check_sites(run)
        if not run.modelled:
            raise ValueError(
                f"model: expected a latent site, got the observed {list(run.observed)} alone. "
                "Fix: dgm.nll(model, EmptyGuide(), x), which is exact for a model without latents."
            )
        self.depth = run.depth
        self.places: dict[str, Place] = {}
        self._run(self._locate, 1)

    @property
    def dim(self) -> int:
        """Number D of coordinates of one datum."""
        return max([place.stop for place in self.places.values()], default=0)

    def log_joint(self, zeta: Tensor) -> Tensor:
        r"""$\log p(x, \zeta)$ `(K, N)`."""
        return self(zeta).log_joint

    def __call__(self, zeta: Tensor) -> Point:
        """The point of coordinates `(K, N, D)`."""
        evaluation = _Evaluation(self, zeta)
        self._run(evaluation.value_at, len(zeta), evaluation.score)
        return evaluation.point()

    def coordinates(self, values: Values, num: int) -> Tensor:
        r"""$\zeta$ `(K, N, D)` of given values `(K, *plates, N, *event)`."""
        parts: Values = {}

        def locate(site: Site) -> Tensor:
            name = site["name"]
            zeta = self.chart(site).of(values[name])
            num_data = zeta.shape[self.depth]
            parts[name] = zeta.movedim(self.depth, 1).reshape(num, num_data, -1)
            return values[name]

        self._run(locate, num)
        return torch.cat([parts[name] for name in self.places], -1)

    def draws_of(self, guide: PyroProgram | None, num: int) -> Values:
        """Draws of every latent site `(K, *plates, N, *event)` from a guide, or from the prior if there is none."""
        if guide is not None:
            pair = run_pair(self.model, guide, self.batch, num, self.depth)
            check_sites(pair)
            latent = pair.latent
        else:
            prior = vectorized(self.model, num, self.depth)
            latent = latent_sites(poutine.trace(prior).get_trace(*self.batch))
        return {name: site["value"] for name, site in latent.items()}

    def log_guide(self, guide: PyroProgram, values: Values, num: int) -> Tensor:
        r"""$\log q(z \mid x)$ `(K, N)` of given values: a density of z, not of ζ."""
        log_q: list[Tensor] = []

        def score(site: Site) -> Tensor:
            value = values[site["name"]]
            log_q.append(_per_datum(site, log_prob_of(site["fn"], value)))
            return value

        with Visit(score):
            vectorized(guide, num, self.depth)(*self.batch)
        return _total(log_q)

    def sites(self, values: Values) -> Values:
        """Values without the dims of size 1 that belong to no plate of their site."""
        return {name: plate_value(self.places[name].site, value) for name, value in values.items()}

    def chart(self, site: Site) -> Chart:
        """The free coordinates of a site, given what was drawn before it."""
        return chart_of(site["name"], site["fn"], whiten=self.whiten)

    def part(self, zeta: Tensor, name: str) -> Tensor:
        """One site's coordinates `(K, *plates, N, *free event)` among those of all `(K, N, D)`."""
        place = self.places[name]
        part = zeta[..., place.columns].to(place.site["value"].dtype)
        return part.reshape(*zeta.shape[:2], *place.shape).movedim(1, self.depth)

    def _run(
        self, value: ValueOf, num: int, observed: Callable[[Site], None] | None = None
    ) -> None:
        with Visit(value, observed):
            vectorized(self.model, num, self.depth)(*self.batch)

    def _locate(self, site: Site) -> Tensor:
        """Draw a site and give it the columns behind those of the sites before it."""
        name, distribution = site["name"], site["fn"]
        shape = self.chart(site).shape
        z = distribution.sample()
        sum_over_plates(name, site, z.new_zeros(distribution.batch_shape))  # refuses a global site
        with_value = site.copy()
        with_value["value"] = z
        without_data = (*shape[1 : self.depth], *shape[self.depth + 1 :])
        self.places[name] = Place(self.dim, without_data, with_value)
        return z


class _Evaluation:
    """What the sites of one run of the model add to the point of coordinates `(K, N, D)`."""

    def __init__(self, posterior: Posterior, zeta: Tensor):
        self.posterior, self.zeta = posterior, zeta
        self.values: Values = {}
        self.log_prior: list[Tensor] = []
        self.log_likelihood: list[Tensor] = []
        self.log_det: list[Tensor] = []

    def value_at(self, site: Site) -> Tensor:
        """The value of a latent site at its coordinates."""
        part = self.posterior.part(self.zeta, site["name"])
        chart = self.posterior.chart(site)
        z, log_p, log_det = chart.at(part, self.posterior.depth + 1)
        self.values[site["name"]] = z
        self.log_prior.append(_per_datum(site, log_p))
        self.log_det.append(_per_datum(site, log_det))
        return z

    def score(self, site: Site) -> None:
        """Take in an observed site or a factor."""
        self.log_likelihood.append(_per_datum(site, log_density(site)))

    def point(self) -> Point:
        """The point, after the run."""
        log_prior, log_det = _total(self.log_prior), _total(self.log_det)
        return Point(self.values, log_prior, _total(self.log_likelihood), log_det)


def _per_datum(site: Site, log_p: Tensor) -> Tensor:
    """A site's log density, summed over its further plates `(K, N)`, in float64."""
    return sum_over_plates(site["name"], site, log_p).double()


def _total(log_densities: list[Tensor]) -> Tensor:
    return torch.stack(log_densities).sum(0)
