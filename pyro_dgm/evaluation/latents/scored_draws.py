"""Draws of z with the log densities that the terms of ELBO surgery are made of, whole and dim by dim."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...contract import DATA, PARTICLES, Site
from ...densities.factors import independent_numbers
from ...inference.data.tensors import Batch, split_rows
from ...inference.drawing.simulation import site_draws
from ...inference.run.particles import Particles
from ...inference.run.sessions import Session
from ...inference.run.traces import plate_names

DRAWS = 20_000  # (draw, datum) pairs that the model sees at once


@dataclass(frozen=True)
class ScoredDraws:
    r"""K draws of z for each of N data, with the log densities that the terms are made of, in float64.

    Attributes:
        values: latent site → `(K, N, *plates, *event)`.
        log_q: $\log q(z \mid x)$ `(K, N)`.
        log_p: $\log p(z)$ `(K, N)`.
        reconstruction: $\log p(x \mid z)$ `(K, N)`, with the terms of the noise of discrete sites.
        factor: $\log f$ of the model's `pyro.factor`s `(K, N)`; `None` without one.
        q_dims: $\log q(z_d \mid x)$ `(K, N, D)`; `None` if q does not factorize over dims.
        p_dims: $\log p(z_d)$ `(K, N, D)`; `None` if p does not factorize over dims.
        reason: why one of the last two is `None`; else empty.
    """

    values: dict[str, Tensor]
    log_q: Tensor
    log_p: Tensor
    reconstruction: Tensor
    factor: Tensor | None
    q_dims: Tensor | None
    p_dims: Tensor | None
    reason: str

    @classmethod
    def of(cls, particles: Particles, codes: Sequence[str]) -> ScoredDraws:
        """The draws of a block of data, all sites but `codes` counted as part of the data."""
        run, log_weight = particles.pair, particles.log_weight  # refuses what all data share
        log_q = _sum_of_sites(particles.log_q, codes)
        log_p = particles.log_prior(codes)
        factor = _sum_of_sites(particles.log_p, [*run.factors]) if run.factors else None
        reconstruction = log_weight + log_q - log_p
        q_reason = _why_no_dims("q", run.latent, codes)
        p_reason = _why_no_dims("p", run.modelled, codes) or _why_mixed(particles, codes)
        return cls(
            values={name: site_draws(run.latent[name]) for name in codes},
            log_q=log_q,
            log_p=log_p,
            reconstruction=reconstruction if factor is None else reconstruction - factor,
            factor=factor,
            q_dims=None if q_reason else _log_density_of_dims(run.latent[codes[0]]),
            p_dims=None if p_reason else _log_density_of_dims(run.modelled[codes[0]]),
            reason=q_reason or p_reason,
        )

    @classmethod
    def concat(cls, blocks: Sequence[ScoredDraws]) -> ScoredDraws:
        """The draws of several blocks of data."""
        values = {}
        for name in blocks[0].values:
            values[name] = torch.cat([block.values[name] for block in blocks], 1)
        log_densities: dict[str, Any] = {}
        for field in ("log_q", "log_p", "reconstruction", "factor", "q_dims", "p_dims"):
            of_blocks = [getattr(block, field) for block in blocks]
            log_densities[field] = None if of_blocks[0] is None else torch.cat(of_blocks, 1)
        return cls(values=values, **log_densities, reason=blocks[0].reason)

    def flat_values(self) -> dict[str, Tensor]:
        """Latent site → draws `(K N, *plates, *event)`."""
        return {name: z.flatten(0, 1) for name, z in self.values.items()}


def draw_scored(pair: Session, batch: Batch, num: int) -> ScoredDraws:
    """`num` draws of the guide for each datum of a batch, of which the model sees a part at once."""
    blocks = []
    for block in split_rows(batch, max(1, DRAWS // num)):
        particles = pair.draw(block, num)
        blocks.append(ScoredDraws.of(particles, pair.structure.codes))
    return ScoredDraws.concat(blocks)


def _sum_of_sites(log_densities: dict[str, Tensor], names: Sequence[str]) -> Tensor:
    return torch.stack([log_densities[name].double() for name in names]).sum(0)


def _why_no_dims(role: str, sites: dict[str, Site], codes: Sequence[str]) -> str:
    """Why the dims of z have no distributions of their own in closed form; empty if they have."""
    if len(codes) > 1:
        return f"none: dims are of one latent site, got {list(codes)}"
    name = codes[0]
    site = sites[name]
    plates = [plate for plate in plate_names(site) if plate != PARTICLES]
    if plates != [DATA]:
        return f"none: site '{name}' is inside further plates, {plates}"
    if independent_numbers(site["fn"]) is None:
        family = type(site["fn"]).__name__
        return f"none: {role} of site '{name}' does not factorize over dims, {family}"
    return ""


def _why_mixed(particles: Particles, codes: Sequence[str]) -> str:
    """Why a prior has no distributions of dims: it is a sum; empty if it is none."""
    if particles.mixed.isdisjoint(codes):
        return ""
    return f"none: p of site '{codes[0]}' is a sum over the values of {list(particles.pair.summed)}"


def _log_density_of_dims(site: Site) -> Tensor:
    """Log density of each dim `(K, N, D)`."""
    factors = independent_numbers(site["fn"])
    assert factors is not None
    log_p = site_draws(site, factors.log_prob(site["value"]))
    num_draws, num_data = log_p.shape[:2]
    return log_p.reshape(num_draws, num_data, -1).double()
