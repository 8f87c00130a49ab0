r"""Log weights of a block of data, with what their limits and their rounding are judged by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from ...contract import DATA, Site, noise_name
from ...inference.run.limits import unit_of_rounding
from ...inference.run.particles import Particles
from ...inference.run.shares import refuse_shared
from ...inference.run.traces import PairTrace, is_in_plate
from ...inference.sites.measures import (
    Measure,
    hides_data,
    measure_of_distribution,
    point_sites,
)


@dataclass(frozen=True)
class Weights:
    r"""$\log w^{(k)}_i$ of K draws for each of N data.

    Attributes:
        log_w: `(K, N)`, float64.
        kl: $\log q(z^{(k)} \mid x_i) - \log p(z^{(k)})$ `(K, N)`.
        rounding: nats by which log weights of a datum differ for rounding alone `(N,)`: units of the last place of the
            log densities that they are the difference of.
        log_mass: the largest $\log P(x_i \mid z^{(k)})$ of a discrete site `(N,)`; −∞ without one.
        observed: the model's observed sites by name.
    """

    log_w: Tensor
    kl: Tensor
    rounding: Tensor
    log_mass: Tensor
    observed: dict[str, Site]

    @classmethod
    def of(cls, particles: Particles) -> Weights:
        """The weights of some draws.

        Raises:
            ValueError: for a draw that all data share.
        """
        return cls._of(particles, particles.log_weight)

    @classmethod
    def given_globals(cls, particles: Particles) -> Weights:
        r"""$\log p(x_i, z_i \mid \theta) - \log q(z_i \mid x_i, \theta)$, given what all data share.

        Raises:
            ValueError: for an observed site or a factor outside the data plate, and for a guide over the latents of
                all data at once, which has no $q(z_i)$.
        """
        pair = particles.pair
        for entry in particles.shared_p:
            if entry not in pair.latent:
                name = particles.sites_of(entry)[0]
                refuse_shared(name, pair.joint[name])
        if is_joint(pair):
            refuse_joint(pair)
        return cls._of(particles, particles.local_log_weight)

    @classmethod
    def _of(cls, particles: Particles, log_w: Tensor) -> Weights:
        return cls(
            log_w=log_w,
            kl=particles.kl,
            rounding=rounding_of(particles),
            log_mass=_largest_mass(particles),
            observed=particles.pair.observed,
        )

    @classmethod
    def concat(cls, parts: Sequence[Weights]) -> Weights:
        """The weights of more draws for the same data."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            log_w=torch.cat([part.log_w for part in parts]),
            kl=torch.cat([part.kl for part in parts]),
            rounding=torch.stack([part.rounding for part in parts]).amax(0),
            log_mass=torch.stack([part.log_mass for part in parts]).amax(0),
            observed=parts[0].observed,
        )

    @classmethod
    def beside(cls, parts: Sequence[Weights]) -> Weights:
        """The weights of as many draws for more data."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            log_w=torch.cat([part.log_w for part in parts], -1),
            kl=torch.cat([part.kl for part in parts], -1),
            rounding=torch.cat([part.rounding for part in parts]),
            log_mass=torch.cat([part.log_mass for part in parts]),
            observed=_joined([part.observed for part in parts]),
        )


def _joined(parts: Sequence[dict[str, Site]]) -> dict[str, Site]:
    """The observed sites of some data with the values of more: a mask that hides data stays one of them."""
    joined = {}
    for name in parts[0]:
        sites = [part[name] for part in parts]
        hiding = [site for site in sites if hides_data(site)]
        joined[name] = (hiding or sites)[0].copy()
        values = [site["value"].detach() for site in sites]
        joined[name]["value"] = torch.cat([value.reshape(-1) for value in values])
    return joined


def is_joint(pair: PairTrace) -> bool:
    """Whether the guide draws the latents of all data at once, from one auxiliary site, and has no density of each."""
    local = {name: site for name, site in pair.guide_sites.items() if is_in_plate(site, DATA)}
    is_point = bool(point_sites(pair.guide_sites, pair.model_sites))
    return bool(point_sites(local, pair.model_sites)) and not is_point


def refuse_joint(pair: PairTrace) -> None:
    """Refuse a guide over the latents of all data where a density of each is asked for.

    Raises:
        ValueError: always.
    """
    local = [name for name, site in pair.latent.items() if is_in_plate(site, DATA)]
    raise ValueError(
        f"guide: expected a density of each datum's latents {local}, got one of all data at once, by the auxiliary "
        f"site {list(pair.auxiliary)}. Fix: evidence(model, guide, *data), the log weight of all data; or "
        "AutoNormal, which has a density of each."
    )


def rounding_of(particles: Particles) -> Tensor:
    r"""$16\, \epsilon \sum_s (|\log p_s| + D_s)$ `(N,)`, float64, over the sites of both programs.

    A log density of D numbers is a sum of D terms of about a nat, which may cancel.
    """
    total = torch.zeros_like(particles.log_joint[0])
    pair = particles.pair
    sites = pair.guide_sites | pair.model_sites
    for log_densities in (particles.log_p, particles.log_q):
        for entry, log_p in log_densities.items():
            names = particles.sites_of(entry)
            num_dims = sum([prod(sites[name]["fn"].event_shape) for name in names])
            total = total + log_p.double().abs().amax(0) + num_dims
    unit = unit_of_rounding([*particles.log_p.values(), *particles.log_q.values()])
    return unit * total


def rounding_of_set(particles: Particles) -> Tensor:
    r"""The rounding of the log weight of all data, `(1,)`: that of the shared sites, and of independent data."""
    total = rounding_of(particles).square().sum().sqrt()
    shared = (*particles.shared_p.values(), *particles.shared_q.values())
    for log_p in shared:
        total = total + torch.finfo(torch.float64).eps * log_p.abs().amax()
    return total[None]


def _largest_mass(particles: Particles) -> Tensor:
    """The largest log mass of a discrete site `(N,)`; a dequantized one is a mass on average over the noise alone."""
    largest = torch.full_like(particles.log_joint[0], -torch.inf)
    for entry, log_p in particles.log_p.items():
        names = particles.sites_of(entry)
        if all(_is_mass(particles, name) for name in names):
            largest = largest.maximum(log_p.amax(0))
    return largest


def _is_mass(particles: Particles, name: str) -> bool:
    """Whether a site is one of discrete data without noise."""
    site = particles.pair.observed.get(name)
    if site is None or noise_name(name) in particles.pair.latent:
        return False
    return measure_of_distribution(site["fn"]) is Measure.MASS
