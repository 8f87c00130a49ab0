"""Particles: K guide draws per datum with the log density of every site. The waist of the hourglass."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ...contract import DATA, PyroProgram, Site
from ..data.batches import read_arguments
from ..process.states import fork_rng
from ..vectorization.modes import meaning_of, refuse_mixing, takes_all_data
from .edges import warn_of_rounding
from .explain import run_or_explain
from .kinds import is_factor
from .pair_checks import check_pair, require_positive
from .rules import check_sites
from .traces import PairTrace, is_in_plate, log_density, plate_value, run_pair


@dataclass(frozen=True)
class Particles:
    r"""$z^{(k)}_i \sim q(z \mid x_i)$ with $\log p$ and $\log q$ of every site, unscaled, in nats.

    Attributes:
        values: latent site → draws `(K, …, N, *event)`, the dims between those of the site's further plates.
        log_p: model site (latent, observed, and factors) → log density `(K, N)`.
        log_q: latent site → log density of the guide `(K, N)`; its factors are no part of it.
        pair: the run itself, for readers that need distributions or plates.
    """

    values: dict[str, Tensor]
    log_p: dict[str, Tensor]
    log_q: dict[str, Tensor]
    pair: PairTrace

    @property
    def guide_trace(self) -> Trace:
        """The trace of the guide."""
        return self.pair.guide

    @property
    def model_trace(self) -> Trace:
        """The trace of the model."""
        return self.pair.model

    @property
    def observations(self) -> dict[str, TorchDistribution]:
        r"""Observed site → its distribution $p(x \mid z^{(k)}_i)$, batch_shape `(K, …, N)`."""
        return {name: site["fn"] for name, site in self.pair.observed.items()}

    @property
    def factors(self) -> dict[str, Tensor]:
        """Factor of the model → its log `(K, N)`, a part of the joint density that scores no data."""
        return {name: self.log_p[name] for name in self.pair.factors}

    @cached_property
    def log_joint(self) -> Tensor:
        r"""$\log p(x_i, z^{(k)}_i)$ `(K, N)`, in float64."""
        return _total(self.log_p)

    @cached_property
    def log_guide(self) -> Tensor:
        r"""$\log q(z^{(k)}_i \mid x_i)$ `(K, N)`, in float64; 0 for a guide without sites."""
        return _total(self.log_q) if self.log_q else torch.zeros_like(self.log_joint)

    @property
    def log_weight(self) -> Tensor:
        r"""$\log w^{(k)}_i = \log p(x_i, z^{(k)}_i) - \log q(z^{(k)}_i \mid x_i)$ `(K, N)`, in float64."""
        return self.log_joint - self.log_guide

    @property
    def kl(self) -> Tensor:
        r"""$\log q(z^{(k)}_i \mid x_i) - \log p(z^{(k)}_i)$ over the latent sites `(K, N)`, in float64."""
        prior = {name: self.log_p[name] for name in self.values}
        if not prior:
            return torch.zeros_like(self.log_joint)
        return self.log_guide - _total(prior)


def draw(
    model: PyroProgram, guide: PyroProgram, *batch: Any, num: int, depth: int | None = None
) -> Particles:
    r"""K draws of the guide for every datum, scored by both programs in one vectorized run.

    Args:
        model: any Pyro program that keeps the contract.
        guide: its guide, with the same arguments.
        batch: the arguments, observation first.
        num: number K of particles.
        depth: number of plates in the programs; found by a run (on a fork of the random state) if not given, with
            what the networks make of particles. Where it is given, the programs take a plate of particles as they are.

    Raises:
        TypeError: without a depth, for what is no pair of programs or no data.
        ValueError: if a site lies outside the data plate: a global site has no log weight per datum; for a plate of
            another size than the data; without a depth, for what breaks the contract, and for a network that mixes
            the data of a batch.
    """
    if depth is None:
        check_pair(model, guide)
        require_positive(num=num)
        batch = read_arguments(model, batch)
        with fork_rng(*batch):
            pair = run_or_explain(model, guide, batch)
        check_sites(pair)
        depth = pair.depth
        whole = takes_all_data(model, guide, batch)
        found = meaning_of(model, guide, batch, whole=whole)
        refuse_mixing(found)
        model, guide = found.particles.adopt(model), found.particles.adopt(guide)
    pair = run_pair(model, guide, batch, num, depth)
    values, log_p, log_q = {}, {}, {}
    for name, site in pair.latent.items():
        values[name] = plate_value(site)
        log_q[name] = per_datum(name, site)
    for name, site in pair.joint.items():
        log_p[name] = per_datum(name, site)
    if not torch.is_grad_enabled():  # a training step reads nothing on the host
        warn_of_rounding(pair)
    return Particles(values, log_p, log_q, pair)


def per_datum(name: str, site: Site) -> Tensor:
    """Log density of a site `(K, N)`, summed over the dims of its further plates; refuses a global site."""
    return sum_over_plates(name, site, log_density(site))


def sum_over_plates(name: str, site: Site, log_p: Tensor) -> Tensor:
    """A site's log density `(K, …, N)`, summed over its further plates: `(K, N)`.

    Raises:
        ValueError: if the site lies outside the data plate.
    """
    if is_factor(site) and not is_in_plate(site, DATA):
        raise ValueError(
            f"site '{name}': expected a pyro.factor inside the plate '{DATA}', got one outside, which has no share "
            f"for each datum. Fix: `with data_plate(x):` around pyro.factor('{name}', …), of shape (len(x),)."
        )
    if not is_in_plate(site, DATA):
        raise ValueError(
            f"site '{name}': expected a site inside the plate '{DATA}', got a global one, which has no log weight per "
            f"datum. Fix: move pyro.sample('{name}', …) under `with data_plate(x):`, or score it apart."
        )
    return log_p.reshape(log_p.shape[0], -1, log_p.shape[-1]).sum(1)


def _total(log_densities: dict[str, Tensor]) -> Tensor:
    first, *others = log_densities.values()
    total = first.double()
    for log_p in others:
        total = total + log_p
    return total
