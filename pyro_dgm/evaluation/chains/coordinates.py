r"""Coordinates: the latent sites of any model as one vector $\zeta \in R^D$ per chain and datum, with its density."""

from __future__ import annotations

from collections.abc import Callable, Set
from copy import copy

import torch
from pyro import poutine
from torch import Tensor

from ...contract import DATA, PyroProgram, Site
from ...densities.scoring import log_prob_of
from ...inference.data.tensors import Batch
from ...inference.process.states import fork_rng, require_gradients
from ...inference.run.rules import check_sites
from ...inference.run.shares import refuse_shared, sum_over_plates
from ...inference.run.traces import (
    PairTrace,
    is_in_plate,
    latent_sites,
    log_density,
    plate_value,
    run_pair,
    vectorized,
)
from ...inference.sites.kinds import is_summable
from .charts import Chart, chart_of
from .points import Place, Point, ValueOf, Values, Visit, given_value
from .summed import SummedRows, mixed_sites, settle


class Posterior:
    r"""$p(z \mid x_i) \propto p(x_i, z)$ for a batch of data, as a density of free coordinates $\zeta \in R^D$.

    One vectorized run of the model gives the density of all `(K, N)` pairs of chain and datum. The data are
    independent, so that the gradient of the sum holds the gradient of each.

    Discrete sites with `infer={"enumerate": "parallel"}` are no latents of the chains: $p(x_i, z)$ is their exact sum,
    and a latent whose prior hangs on one of them moves in coordinates of its own, whatever `whiten` says.

    Args:
        model: a Pyro program that keeps the contract.
        batch: its arguments.
        whiten: take the base space of a latent whose prior is a flow.

    Shape:
        ζ: `(K, N, D)`, all latent sites of one datum one after the other.

    Raises:
        ValueError: for a model without latent sites, a global one or a discrete one that is not summed over, or data
            outside the support.
    """

    def __init__(self, model: PyroProgram, batch: Batch, *, whiten: bool = True):
        require_gradients(model)  # chains follow the gradient of log p(x, z)
        self.model, self.batch, self.whiten = model, batch, whiten
        trace = poutine.trace(model).get_trace(*batch)
        run = PairTrace(trace, trace)
        check_sites(run)
        require_latents(run)
        self.depth = run.depth
        self.places: dict[str, Place] = {}
        self.mixed: Set[str] = frozenset()  # one distribution for each value of a summed site
        self._sums: SummedRows | None = None
        is_summed = any(is_summable(site) for site in run.modelled.values())
        if is_summed:
            _refuse_shared_sums(run)
            self.mixed = mixed_sites(model, batch, self.depth)
        self._run(self._locate, 1)
        if is_summed:
            self._sums = SummedRows(model, batch, self.depth, self.places, self.chart)
            with fork_rng(*batch):
                settle(self._sums, self.coordinates(self.draws_of(None, 2), 2))

    @property
    def dim(self) -> int:
        """Number D of coordinates of one datum."""
        return max([place.stop for place in self.places.values()], default=0)

    def log_joint(self, zeta: Tensor) -> Tensor:
        r"""$\log p(x, \zeta)$ `(K, N)`."""
        return self(zeta).log_joint

    def __call__(self, zeta: Tensor) -> Point:
        """The point of coordinates `(K, N, D)`."""
        if self._sums is not None:
            return self._sums(zeta)
        evaluation = _Evaluation(self, zeta)
        self._run(evaluation.value_at, len(zeta), evaluation.score)
        return evaluation.point()

    def given(self, batch: Batch) -> Posterior:
        """The posterior of as many other data."""
        twin = copy(self)
        twin.batch = batch
        if self._sums is not None:
            twin._sums = copy(self._sums)
            twin._sums.batch = batch
        return twin

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
        return {name: site["value"] for name, site in latent.items() if name in self.places}

    def log_guide(self, guide: PyroProgram, values: Values, num: int) -> Tensor:
        r"""$\log q(z \mid x)$ `(K, N)` of given values: a density of z, not of ζ."""
        log_q: list[Tensor] = []

        def score(site: Site) -> Tensor:
            value = given_value(site, values)
            log_q.append(_per_datum(site, log_prob_of(site["fn"], value)))
            return value

        with Visit(score, is_guide=True):
            vectorized(guide, num, self.depth)(*self.batch)
        return _total(log_q)

    def sites(self, values: Values) -> Values:
        """Values without the dims of size 1 that belong to no plate of their site."""
        return {name: plate_value(self.places[name].site, value) for name, value in values.items()}

    def chart(self, site: Site) -> Chart:
        """The free coordinates of a site, given what was drawn before it."""
        whiten = self.whiten and site["name"] not in self.mixed
        return chart_of(site["name"], site["fn"], whiten=whiten)

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


def require_latents(run: PairTrace) -> None:
    """Refuse a model without a latent that chains can move."""
    if all(is_summable(site) for site in run.modelled.values()):
        got = f"the observed {list(run.observed)} alone"
        if run.modelled:
            got = f"{list(run.modelled)}, which chains sum over, and {got}"
        raise ValueError(
            f"model: expected a latent site, got {got}. "
            "Fix: dgm.nll(model, EmptyGuide(), x), which is exact for a model without latents."
        )


def _refuse_shared_sums(run: PairTrace) -> None:
    """Refuse a site that is summed over for all data at once, where each datum is asked for its density."""
    for name, site in run.modelled.items():
        if is_summable(site) and not is_in_plate(site, DATA):
            refuse_shared(name, site)


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
