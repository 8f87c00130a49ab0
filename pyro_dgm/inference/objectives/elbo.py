"""The evidence lower bound, with β and free bits: the objective of a VAE."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from contextlib import suppress
from math import prod
from typing import Any, cast

import torch
from pyro.distributions.kl import kl_divergence
from pyro.distributions.util import scale_and_mask
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from ..data.reading import read_arguments
from ..data.tensors import Batch
from ..process.ambient import TURN
from ..process.numbers import check_count
from ..process.states import eval_mode, fork_rng
from ..run.limits import SLACK, check_closed_form, check_divergence
from ..run.rules import Subject
from ..run.structure import Structure
from ..run.traces import (
    PairTrace,
    Site,
    each_dim,
    log_density,
    run_pair,
)
from ..sites.measures import Measure, bound_name, point_sites
from .by_site import check_known, free_bits_by_site, schedules_by_site
from .costs import Cost
from .factors import guide_costs
from .free_bits import FreeBits
from .objective import Objective, check_observed, check_reparameterized, given
from .schedules import Schedule, check_values
from .sums import Sums


class ELBO(Objective):
    r"""$-\mathrm{ELBO} = E_q[\log q(z \mid x) - \log p(x, z)] \ge -\log p(x)$, nats per datum.

    An upper bound of the NLL. The guide runs once, the model is replayed against it once, and nothing is read
    on the host: the loss equals `pyro.infer.Trace_ELBO` (divided by the number of data) under one seed, and
    traces into one graph. With another gradient it is
    `IWELBO(model, guide, 1, estimator=StickingTheLanding())`.

    A pair with a site `infer={"enumerate": "parallel"}` (`config_enumerate`), in either program, has the loss of
    `pyro.infer.TraceEnum_ELBO` with as many plates as the programs have: the site is summed over. That loss is one
    figure, so that β, free bits and `analytic_kl` are refused, and it is eager only.

    Args:
        model: the model, a module.
        guide: its guide, with reparameterized sites.
        num_particles: draws per datum, averaged.
        beta: site → weight of its cost in the loss, a number or a `Schedule`; `{"z": LinearWarmup(1000)}`
            anneals the KL. The term `nelbo` is always without it.
        size: number of data in the full set if the programs declare one.
        free_bits: latent site → nats λ below which its cost is free: the loss takes $\max(\lambda, c)$ of its
            mean c over the batch, whose gradient is zero below λ. A number is a floor for the site as a
            whole, whatever its distributions; a tensor of the site's event shape is one for each latent dim,
            $\sum_j \max(\lambda_j, c_j)$, where the distributions have independent dims. β comes after it;
            the term `nelbo` is without it. A sampled cost is noisy beside λ: `analytic_kl` takes that noise
            away.
        analytic_kl: take $KL(q \| p)$ of a latent site in closed form where Pyro knows it.

    Terms:
        loss: what is minimized; nelbo: −ELBO without β, without factors of the guide, and without any
        `poutine.scale` of the programs, which the loss has as `Trace_ELBO` has it (N/B of a plate stays in
        both); `rec[x]`: $-\log p(x \mid z)$ of an observed site; `kl[z]`: $\log q(z) - \log p(z)$ of a latent
        site, or its closed form; `log_q[a]`: of an auxiliary site, by which an AutoGuide has its density;
        `factor[f]`: $-\log f$ of a `pyro.factor` in the model, part of nelbo; `guide_factor[f]`: $+\log f$ of one
        in the guide, part of the loss alone. Of a guide
        that is a point mass at a latent site, as `AutoDelta`, the sum is `njoint`, $-\log p(x, z^*)$, in place of
        `nelbo`: it bounds nothing; and `prior[z]`, $-\log p(z^*)$, stands in place of `kl[z]` of such a site. Of a
        pair with summed sites there are `loss` and, where the programs have neither a factor in the guide nor a
        `poutine.scale`, `nelbo`, which is the same.

    Raises:
        TypeError: for what is no pair of programs, see `Objective`; for β or free bits that are not given by
            site.
        ValueError: for a guide site without reparameterized draws; for a model without an observed site; for
            a negative β; for β or free bits of an unknown site; for free bits of each dim where the dims are
            dependent, or not as many; for a closed-form KL when guide and model draw their sites in different
            orders, or that is negative; for β, free bits or a closed-form KL of a pair with summed sites; after an
            epoch, for a KL below 0 beyond the noise of the draws.

    References:
        Kingma, Welling 2014, arXiv:1312.6114; Higgins et al. 2017 for β; Kingma et al. 2016, arXiv:1606.04934
        (section C.8) for free bits.
    """

    def __init__(
        self,
        model: nn.Module,
        guide: nn.Module | None = None,
        num_particles: int = 1,
        beta: Mapping[str, float | Schedule] | None = None,
        size: int | None = None,
        *,
        free_bits: Mapping[str, float | Tensor] | None = None,
        analytic_kl: bool = False,
    ):
        super().__init__(model, guide, size)
        check_count("ELBO", "num_particles", num_particles, fix="num_particles=1")
        self.num_particles = num_particles
        self.analytic_kl = analytic_kl
        self.beta = schedules_by_site(beta)
        self.free_bits = free_bits_by_site(free_bits)
        self._has_divergence = False  # found by preflight
        # By which arguments are given: labels may be there, or be summed over
        self._sums: dict[tuple[bool, ...], Sums] = {}

    def extra_repr(self) -> str:
        """The settings; β and free bits print themselves."""
        return (
            f"num_particles={self.num_particles}, size={self.size}, analytic_kl={self.analytic_kl}"
        )

    def check_schedules(self) -> None:  # noqa: D102
        check_values(self.beta)

    def check_means(self, means: Mapping[str, float], num: int) -> None:  # noqa: D102
        # Of all latent sites together: guide and model may factorize in different orders.
        if self._has_divergence:
            kl = sum(value for name, value in means.items() if name.startswith("kl["))
            check_divergence("ELBO", torch.tensor([kl], dtype=torch.float64), num, SLACK)

    def preflight(self, *batch: Any) -> Structure:  # noqa: D102
        self._sums.pop(given(batch), None)
        structure = super().preflight(*batch)
        self._has_divergence = not structure.points and structure.measure is not Measure.IMPROPER
        if self.analytic_kl:
            self._check_closed_forms(read_arguments(self.model, batch))
        latent = list(structure.latent)
        check_known("beta", "sites", self.beta, [*latent, *structure.observed])
        check_known("free_bits", "latent sites", self.free_bits, latent)
        self._check_sums(self._sums_of(batch))
        return structure

    def _look_at(self, subject: Subject) -> None:
        self._sums[given(subject.batch)] = Sums.of_pair(subject.pair)

    @TURN.taken()
    def terms(self, *batch: Any) -> dict[str, Tensor]:  # noqa: D102
        self._learn(
            batch
        )  # first of all: it runs the networks, whose buffers the gradient needs as they are
        sums = self._sums_of(batch)
        if sums.sites:
            total = sums.loss(self.model, self.guide, batch, self.num_particles)
            return sums.named(total / self._num_data(batch))
        pair = self._run(batch)
        check_observed(pair.observed | pair.factors)
        if self.analytic_kl:
            _check_order(pair.latent, pair.modelled)
        points = point_sites(pair.guide_sites, pair.model_sites)
        costs = self._costs(pair, points)
        weight = 1 / (self.num_particles * self._num_data(batch))
        return self._name_terms(costs, guide_costs(pair), weight, bound_name(points))

    def _sums_of(self, batch: tuple[Any, ...]) -> Sums:
        """What the loss sums over, found by preflight or by the first run that is given these arguments."""
        key = given(batch)
        if key not in self._sums:
            if get_proxy_mode() is not None:  # while it becomes a graph, nothing else is run
                return Sums()
            found = Sums.of(*self._named(), batch)
            if found is None:  # the loss fails with the run's own error, and the next is asked anew
                return Sums()
            self._check_sums(found)
            self._sums[key] = found
        return self._sums[key]

    def _check_sums(self, sums: Sums) -> None:
        sums.check(self.beta, self.free_bits, analytic_kl=self.analytic_kl)

    def _run(self, batch: tuple[Any, ...]) -> PairTrace:
        """Run the pair; refuse more plates than the objective knows, into which the particles would fall."""
        num = self.num_particles if self.num_particles > 1 else None
        model, guide = (self.model, self.guide) if num is None else self._programs(batch)
        try:
            pair = run_pair(model, guide, batch, num, self._depth)
        except ValueError as error:
            if "collide" not in str(error):  # Pyro found two plates at one dim
                raise
            raise ValueError(
                "ELBO: the plate of particles collides with one of the programs, "
                "which have more plates than one. Fix: objective.preflight(*batch) first."
            ) from error
        if num is not None and pair.depth > self._depth + 1:
            raise ValueError(
                "ELBO: expected a plate of particles outside those of the programs, "
                "which have more plates than one. Fix: objective.preflight(*batch) first."
            )
        return pair

    def _costs(self, pair: PairTrace, points: Container[str]) -> list[Cost]:
        """The cost of every site, summed over the batch; `points` are those of a guide that is a point mass."""
        costs = []
        for name, site in pair.observed.items():
            costs.append(Cost.of(f"rec[{name}]", name, site, -log_density(site)))
        for name, site in pair.factors.items():
            costs.append(Cost.of(f"factor[{name}]", name, site, -log_density(site)))
        for name, site in pair.latent.items():
            term = f"prior[{name}]" if name in points else f"kl[{name}]"
            costs.append(self._kl(term, name, site, pair.modelled[name]))
        for name, site in pair.auxiliary.items():
            costs.append(Cost.of(f"log_q[{name}]", name, site, log_density(site)))
        return costs

    def _check_closed_forms(self, batch: Batch) -> None:
        """Refuse a closed form that gives a negative KL, as one of a distribution that is not normalized may."""
        with fork_rng(*batch), eval_mode(self.model, self.guide), torch.no_grad():
            pair = run_pair(self.model, self.guide, batch)
            for name, drawn in pair.latent.items():
                with suppress(NotImplementedError):
                    kl = kl_divergence(drawn["fn"], pair.modelled[name]["fn"])
                    check_closed_form(name, kl, prod(drawn["fn"].event_shape))

    def _kl(self, term: str, name: str, drawn: Site, modelled: Site) -> Cost:
        """The cost of a latent site, summed over the batch; one for each dim with free bits of its own."""
        check_reparameterized(name, drawn)
        event_dim = 0
        if name in self.free_bits:
            event_dim = cast(FreeBits, self.free_bits[name]).check(name, drawn)
        if event_dim > 0:
            drawn = each_dim(name, drawn)
            modelled = each_dim(name, modelled)
        if self.analytic_kl:
            try:
                kl = kl_divergence(drawn["fn"], modelled["fn"])
            except NotImplementedError:  # Pyro knows no closed form for this pair of families
                pass
            else:
                kl = scale_and_mask(kl, mask=drawn["mask"])
                return Cost.of(term, name, drawn, kl, event_dim)
        log_q = Cost.of(term, name, drawn, log_density(drawn), event_dim)
        log_p = Cost.of(term, name, modelled, log_density(modelled), event_dim)
        return log_q.minus(log_p)

    def _name_terms(
        self, costs: list[Cost], of_guide: dict[str, Tensor], weight: float, name_of_bound: str
    ) -> dict[str, Tensor]:
        """The terms from sums over batch and particles; the weight makes nats per datum of them."""
        nelbo = _sum([cost.plain.sum() for cost in costs]) * weight
        loss = nelbo
        is_weighted = self.beta or self.free_bits or any(cost.is_scaled for cost in costs)
        if is_weighted:
            loss = self._weighted_loss(costs, weight)
        if of_guide:
            loss = loss + _sum(of_guide.values()) * weight
        terms = {"loss": loss, name_of_bound: nelbo}
        for cost in costs:
            terms[cost.term] = cost.plain.sum() * weight
        for name, cost_of_guide in of_guide.items():
            terms[f"guide_factor[{name}]"] = cost_of_guide * weight
        return terms

    def _weighted_loss(self, costs: list[Cost], weight: float) -> Tensor:
        r"""$\sum_s \beta_s \max(\lambda_s, c_s)$ over the sites s."""
        weighted = []
        for cost in costs:
            term = cost.scaled * weight
            if cost.site in self.free_bits:
                term = self.free_bits[cost.site](term)
            if cost.site in self.beta:
                term = term * self.beta[cost.site]()
            weighted.append(term.sum())
        return _sum(weighted)


def _check_order(drawn: dict[str, Site], modelled: dict[str, Site]) -> None:
    """Refuse a closed-form KL of sites that the programs draw in different orders."""
    if list(drawn) != list(modelled):
        raise ValueError(
            "ELBO(analytic_kl=True): expected the guide to draw its sites in the model's order "
            f"{list(modelled)}, got {list(drawn)}: "
            "a closed-form KL may then depend on later draws. "
            "Fix: analytic_kl=False."
        )


def _sum(costs: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(costs)).sum()
