"""Particles: K guide draws per datum with the log density of every site. The waist of the hourglass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ...contract import DATA, PyroProgram, Site
from ..adoption.plates import prepare
from ..adoption.programs import as_module
from ..data.reading import read_arguments
from ..data.tensors import Batch
from ..enumeration.layouts import Summation, summed, summed_of_runs
from ..enumeration.runs import Sums
from ..process.states import fork_rng
from ..vectorization.modes import meaning_of, refuse_mixing, takes_all_data
from ..vectorization.rows import OneAtATime, alone
from .edges import warn_of_rounding
from .explain import run_or_explain
from .pair_checks import check_pair, require_positive
from .rules import check_sites
from .shares import refuse_shared
from .traces import PairTrace, is_in_plate, log_density, plate_value, run_pair


@dataclass(frozen=True)
class Particles:
    r"""$z^{(k)}_i \sim q(z \mid x_i)$ with $\log p$ and $\log q$ of every site, unscaled, in nats.

    Attributes:
        values: latent site → draws `(K, …, N, *event)`, the dims between those of the site's further plates; none of
            a guide whose own sites are summed over.
        log_p: model site inside the data plate (latent, observed, and factors) → log density `(K, N)`.
        log_q: drawn site of the guide → log density `(K, N)`, auxiliary ones among them; its factors are no part of it.
        pair: the run itself, for readers that need distributions or plates.
        shared_p: model site that all data share, outside the data plate → log density `(K,)`.
        shared_q: drawn site of the guide that all data share → log density `(K,)`.
        groups: entry of `log_p` → the sites that it stands for, of all that depend on a site that is summed out.
    """

    values: dict[str, Tensor]
    log_p: dict[str, Tensor]
    log_q: dict[str, Tensor]
    pair: PairTrace
    shared_p: dict[str, Tensor] = field(default_factory=dict)
    shared_q: dict[str, Tensor] = field(default_factory=dict)
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, pair: PairTrace) -> Particles:
        """The particles of a run inside their plate."""
        values = {name: plate_value(site) for name, site in pair.latent.items()}
        log_p, shared_p = by_place(pair.joint)
        log_q, shared_q = by_place(pair.scored)
        return cls(values, log_p, log_q, pair, shared_p, shared_q)

    @classmethod
    def of_runs(cls, pairs: Sequence[PairTrace]) -> Particles:
        """The particles of several runs without a plate of particles, one each; `pair` is the first of them."""
        of_each = []
        for pair in pairs:
            values = {name: plate_value(site)[None] for name, site in pair.latent.items()}
            joint, scored = by_place(pair.joint, num=1), by_place(pair.scored, num=1)
            of_each.append((values, joint[0], scored[0], joint[1], scored[1]))
        values, log_p, log_q, shared_p, shared_q = [
            {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
            for parts in zip(*of_each, strict=True)
        ]
        return cls(values, log_p, log_q, pairs[0], shared_p, shared_q)

    def with_sums(self, sums: Sums) -> Particles:
        """The same draws, with the model's enumerated sites summed out of its densities."""
        return replace(self, log_p=sums.log_p, shared_p=sums.shared_p, groups=sums.groups)

    def sites_of(self, entry: str) -> tuple[str, ...]:
        """The sites of an entry of `log_p`: one, or those that depend on the same summed sites."""
        return self.groups.get(entry, (entry,))

    @property
    def mixed(self) -> frozenset[str]:
        """The sites whose distribution is one for each value of a site that is summed out."""
        return frozenset(name for names in self.groups.values() for name in names)

    def log_prior(self, names: Sequence[str]) -> Tensor:
        r"""$\log p(z)$ of some latent sites `(K, N)`, in float64, with the summed sites summed out."""
        found = {}
        for entry, log_p in self.log_p.items():
            if set(self.sites_of(entry)) <= set(names):
                found[entry] = log_p
        return _total(found, self._zeros)

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
        return {name: self.log_p[name] for name in self.pair.factors if name in self.log_p}

    @cached_property
    def log_joint(self) -> Tensor:
        r"""$\log p(x_i, z^{(k)}_i)$ `(K, N)`, in float64: given what all data share, where they share any."""
        return _total(self.log_p, self._zeros)

    @cached_property
    def log_guide(self) -> Tensor:
        r"""$\log q(z^{(k)}_i \mid x_i)$ `(K, N)`, in float64; 0 for a guide without sites of a datum."""
        return _total(self.log_q, self._zeros)

    @property
    def log_weight(self) -> Tensor:
        r"""$\log w^{(k)}_i = \log p(x_i, z^{(k)}_i) - \log q(z^{(k)}_i \mid x_i)$ `(K, N)`, in float64.

        Raises:
            ValueError: if the data share a site, outside the data plate, which has no log weight per datum.
        """
        for entry in (*self.shared_q, *self.shared_p):
            name = self.sites_of(entry)[0]
            refuse_shared(name, (self.pair.scored | self.pair.joint)[name])
        return self.log_joint - self.log_guide

    @property
    def local_log_weight(self) -> Tensor:
        r"""$\log p(x_i, z_i \mid \theta) - \log q(z_i \mid x_i, \theta)$ `(K, N)` given the shared θ, in float64."""
        return self.log_joint - self.log_guide

    @property
    def log_weight_of_set(self) -> Tensor:
        r"""$\log p(\theta) - \log q(\theta)$ and the sum of `local_log_weight` over the data `(K,)`, in float64."""
        shared = _total(self.shared_p, self._no_share) - _total(self.shared_q, self._no_share)
        return self.local_log_weight.sum(-1) + shared

    @property
    def kl(self) -> Tensor:
        r"""$\log q(z^{(k)}_i \mid x_i) - \log p(z^{(k)}_i)$ over the latent sites `(K, N)`, in float64."""
        return self.log_guide - self.log_prior(list(self.pair.scored))

    def _no_share(self) -> Tensor:
        """Zeros `(K,)`, float64."""
        return self._zeros()[:, 0]

    def _zeros(self) -> Tensor:
        """Zeros `(K, N)`, float64; `(K, 1)` where no site lies in the data plate."""
        for found in (self.log_p, self.log_q):
            for log_p in found.values():
                return torch.zeros_like(log_p, dtype=torch.float64)
        shared = next(iter((self.shared_p | self.shared_q).values()))
        return torch.zeros_like(shared, dtype=torch.float64)[:, None]


def draw(
    model: PyroProgram,
    guide: PyroProgram,
    *batch: Any,
    num: int,
    depth: int | None = None,
    sum_guide: bool = False,
) -> Particles:
    r"""K draws of the guide for every datum, scored by both programs in one vectorized run.

    Args:
        model: any Pyro program that keeps the contract.
        guide: its guide, with the same arguments.
        batch: the arguments, observation first.
        num: number K of particles.
        depth: number of plates in the programs; found by a run (on a fork of the random state) if not given, with
            what the networks make of particles. Where it is given, the programs take a plate of particles as they are.
        sum_guide: sum over all values of the sites that the guide enumerates, in place of a draw of them: the weight is
            $\sum_c p(x, z_c, c) / q(z_c \mid x, c)$. Those that the model alone has are summed over anyway.

    Raises:
        TypeError: without a depth, for what is no pair of programs or no data.
        ValueError: if a site lies outside the data plate: a global site has no log weight per datum; for a plate of
            another size than the data; without a depth, for what breaks the contract, and for a network that mixes
            the data of a batch.
    """
    if depth is None:
        require_positive(num=num)
        model, guide, batch, depth = _checked_pair(model, guide, batch)
    particles = draw_silently(model, guide, batch, num, depth, sum_guide=sum_guide)
    # A training step reads nothing on the host
    if not torch.is_grad_enabled() and not isinstance(model, OneAtATime):
        warn_of_rounding(particles.pair)
    return particles


def draw_silently(
    model: PyroProgram, guide: PyroProgram, batch: Batch, num: int, depth: int, *, sum_guide: bool
) -> Particles:
    """`draw` at a depth that is known, without a look at the draws themselves: nothing of it is read on the host."""
    if isinstance(model, OneAtATime) and isinstance(guide, OneAtATime):
        return _draw_one_by_one(model, guide, batch, num, depth, sum_guide=sum_guide)
    pair = run_pair(model, guide, batch, num, depth)
    if sum_guide and pair.enumerated:
        return _summed_guide(model, guide, batch, num, depth, pair)
    particles = Particles.of(pair)
    if pair.summed:
        task = Summation(alone(model), alone(guide), batch, num, depth, pair)
        particles = particles.with_sums(summed(task))
    return particles


def _checked_pair(
    model: PyroProgram, guide: PyroProgram, batch: tuple[Any, ...]
) -> tuple[PyroProgram, PyroProgram, Batch, int]:
    """A pair that takes a plate of particles, its data as tensors, and its number of plates."""
    model, guide = as_module(model), as_module(guide)
    check_pair(model, guide)
    batch = read_arguments(model, batch)
    naming = prepare(model, guide, batch)
    model, guide = naming.adopt(model), naming.adopt(guide)
    with fork_rng(*batch):
        pair = run_or_explain(model, guide, batch)
    check_sites(pair)
    whole = takes_all_data(model, guide, batch)
    meaning = meaning_of(model, guide, batch, whole=whole)
    refuse_mixing(meaning)
    return meaning.particles.adopt(model), meaning.particles.adopt(guide), batch, pair.depth


def _draw_one_by_one(
    model: OneAtATime, guide: OneAtATime, batch: Batch, num: int, depth: int, *, sum_guide: bool
) -> Particles:
    """K particles with a run each."""
    pairs = [run_pair(model.program, guide.program, batch) for _ in range(num)]
    first = pairs[0]
    if sum_guide and first.enumerated:
        return _summed_guide(model, guide, batch, num, depth, first)
    particles = Particles.of_runs(pairs)
    if first.summed:
        particles = particles.with_sums(summed_of_runs(model.program, batch, depth, pairs))
    return particles


def _summed_guide(
    model: PyroProgram, guide: PyroProgram, batch: Batch, num: int, depth: int, pair: PairTrace
) -> Particles:
    """K particles of a guide whose enumerated sites are summed over as well."""
    task = Summation(alone(model), alone(guide), batch, num, depth, pair, of_guide=True)
    sums = summed(task)
    return Particles(
        {}, sums.log_p, sums.log_q, pair, sums.shared_p, sums.shared_q, groups=sums.groups
    )


def by_place(
    sites: Mapping[str, Site], num: int | None = None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Log densities inside the data plate, `(K, N)`, and outside, `(K,)`; without a plate of particles K is `num`."""
    inside, outside = {}, {}
    for name, site in sites.items():
        log_p = log_density(site)
        rows = num or log_p.shape[0]
        if is_in_plate(site, DATA):
            inside[name] = log_p.reshape(rows, -1, log_p.shape[-1]).sum(1)
        else:
            outside[name] = log_p.double().reshape(rows, -1).sum(1)
    return inside, outside


def _total(log_densities: dict[str, Tensor], zeros: Callable[[], Tensor]) -> Tensor:
    """The sum, in float64; what `zeros` gives where there is nothing to sum."""
    if not log_densities:
        return zeros()
    first, *others = log_densities.values()
    total = first.double()
    for log_p in others:
        total = total + log_p
    return total
