"""What the latents of a trained pair do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ...contract import DATA
from ...inference.run.data import split_rows, take_rows
from ...inference.run.estimates import checked_run, estimating, placed
from ...inference.run.generation import encoded
from ...inference.run.particles import draw
from ...inference.run.session import check_pair, require_positive, session
from ...inference.run.simulation import draws_of, names_of_latents, simulated
from ...inference.run.supports import independent_numbers
from ...inference.run.traces import Site, latent_sites, plate_depth, plate_names, plate_value
from ..samples.twosample import TwoSample, mmd


def active_units(
    guide: Callable, *batch: Any, num: int = 50, chunk: int = 20_000, seed: int = 0
) -> dict[str, Tensor]:
    r"""$\mathrm{Var}_x\left(E_{q(z \mid x)}[z]\right)$ of every latent dim; a unit is active above 0.01.

    The mean of K draws stands for $E[z]$; the share of their own variance, $E_x \mathrm{Var}(z \mid x) / K$, is taken
    off, so that the estimate is unbiased (and may fall below 0 for an idle unit).

    Args:
        guide: a Pyro guide.
        batch: the data, observation first.
        num: draws K per datum, at least 2.
        chunk: how many (draw, datum) pairs are in memory at once.
        seed: of the draws.

    Returns:
        latent site → variances `(*plates, *event)`; `(variances > 0.01).sum()` counts the active units.

    Raises:
        ValueError: for fewer than 2 draws, or a site outside the data plate.

    References:
        Burda, Grosse, Salakhutdinov 2016, *Importance weighted autoencoders*, arXiv:1509.00519.
    """
    if num < 2:
        raise ValueError(
            f"active_units: expected num >= 2 draws per datum, got {num}. Fix: num=50."
        )
    with session(None, guide, *batch, num=num, chunk=chunk, seed=seed) as opened:
        blocks = [encoded(opened, block) for block in opened.blocks()]
    return {
        name: _between(torch.cat([_by_datum(name, block[name]) for block in blocks], 1))
        for name in blocks[0]
    }


def unit_kl(
    model: Callable, guide: Callable, *batch: Any, num: int = 10, chunk: int = 20_000, seed: int = 0
) -> dict[str, Tensor]:
    r"""$\frac1N \sum_i E_{q(z \mid x_i)}[\log q(z_d \mid x_i) - \log p(z_d)]$: the share of every latent dim in the KL.

    For one site it is $E_x KL(q(z_d \mid x) \| p(z_d))$; for sites that depend on each other, the dim's term of the
    chain rule. Nats per datum, unbiased. Sites of either program whose law does not factorize over dims have no such
    shares and are left out; so is the noise of discrete sites.

    Args:
        model: any Pyro program that keeps the contract.
        guide: its guide.
        batch: the data, observation first.
        num: draws K per datum.
        chunk: how many (draw, datum) pairs are in memory at once.
        seed: of the draws.

    Returns:
        latent site → nats `(*plates, *event)`.

    Raises:
        ValueError: for counts below 1, bad data, or a site outside the data plate.
    """
    check_pair(model, guide)
    require_positive(num=num, chunk=chunk)
    batch = placed(model, batch)
    with estimating(model, guide, seed=seed):
        sites, depth = _checked(model, guide, batch)
        blocks = []
        for block in split_rows(batch, max(1, chunk // num)):
            particles = draw(model, guide, *block, num=num, depth=depth)
            blocks.append(_kl_of_units(particles.guide_trace, particles.model_trace, sites))
    return {name: torch.cat([block[name] for block in blocks]).mean(0) for name in blocks[0]}


@dataclass(frozen=True)
class Collapse:
    r"""Which latent dims of a fitted pair say nothing of the data.

    Attributes:
        variance: site → $\mathrm{Var}_x(E[z \mid x])$ `(*plates, *event)`, see `active_units`.
        kl: site → the dim's share in the KL `(*plates, *event)`, nats per datum, see `unit_kl`; only sites whose laws
            factorize over dims.
        min_variance: below it a unit is idle.
        min_kl: below it too.
    """

    variance: dict[str, Tensor]
    kl: dict[str, Tensor]
    min_variance: float
    min_kl: float

    @property
    def idle(self) -> dict[str, Tensor]:
        """Site → whether each dim is idle `(*plates, *event)`."""
        quiet = {name: variance < self.min_variance for name, variance in self.variance.items()}
        return {
            name: quiet[name] | (self.kl[name] < self.min_kl) if name in self.kl else quiet[name]
            for name in quiet
        }

    def __str__(self) -> str:
        rows = [
            f"idle units (variance of means < {self.min_variance:g}, or KL < {self.min_kl:g} nats)"
        ]
        for name, idle in self.idle.items():
            which = [
                tuple(i) if len(i) > 1 else i[0]
                for i in idle.reshape(idle.shape or (1,)).nonzero().tolist()
            ]
            shown = (
                f": {', '.join(map(str, which[:20]))}{', …' if len(which) > 20 else ''}"
                if which
                else ""
            )
            rows.append(f"  {name}: {len(which)} of {idle.numel()}{shown}")
        return "\n".join(rows)


def collapse(
    model: Callable,
    guide: Callable,
    *batch: Any,
    num: int = 50,
    min_variance: float = 0.01,
    min_kl: float = 0.01,
    seed: int = 0,
) -> Collapse:
    r"""Which latent dims are idle: $\mathrm{Var}_x(E[z_d \mid x]) < 0.01$, or a share in the KL below 0.01 nats.

    A posterior has collapsed where it equals the prior whatever the data; a unit may also copy a constant at a price
    in KL, which the variance shows.

    Args:
        model: any Pyro program that keeps the contract.
        guide: its guide.
        batch: the data, observation first.
        num: draws per datum, at least 2.
        min_variance: threshold of the variance of the posterior means, in squared units of z.
        min_kl: threshold of the share in the KL, nats per datum.
        seed: of the draws.

    References:
        Lucas et al. 2019, *Don't blame the ELBO! A linear VAE perspective on posterior collapse*, arXiv:1911.02469.
    """
    kl = unit_kl(model, guide, *batch, num=num, seed=seed)
    batch = placed(model, batch)
    with estimating(model, guide, seed=seed):
        sites, _ = _checked(model, guide, batch)
    variance = active_units(guide, *batch, num=num, seed=seed)
    return Collapse({name: variance[name] for name in sites}, kl, min_variance, min_kl)


def aggregate_test(
    model: Callable,
    guide: Callable,
    *batch: Any,
    num: int = 1000,
    num_permutations: int = 999,
    seed: int = 0,
) -> TwoSample:
    r"""Is $q_{agg}(z) = \frac1N \sum_i q(z \mid x_i)$ the prior? `mmd` between draws of either, of all latent sites.

    One draw for each of at most `num` data chosen at random, against as many of the prior, at the same contexts if
    there are any. The p-value is about the law that the data come from. It says whether there is a difference;
    `surgery` says how many nats it costs.

    Args:
        model: a Pyro program that generates when its first argument is `None`.
        guide: its guide.
        batch: the data, observation first.
        num: draws of either kind at most.
        num_permutations: see `mmd`.
        seed: of the draws and relabellings.

    Raises:
        ValueError: for counts below 1, a guide without latent sites, fewer than two data, or a site outside the data
            plate.
    """
    aggregate, of_prior = aggregate_draws(model, guide, *batch, num=num, seed=seed)
    return mmd(real=aggregate, fake=of_prior, num_permutations=num_permutations, seed=seed)


def aggregate_draws(
    model: Callable, guide: Callable, *batch: Any, num: int = 1000, seed: int = 0
) -> tuple[Tensor, Tensor]:
    r"""Draws of $q_{agg}(z)$ and of the prior, all latent sites as one vector; each `(num, D)`, float64.

    One draw for each of at most `num` data chosen at random; as many of the prior, at the same contexts if there are
    any.

    Args:
        model: a Pyro program that generates when its first argument is `None`.
        guide: its guide.
        batch: the data, observation first.
        num: draws of either kind at most.
        seed: of the choice and the draws.

    Raises:
        ValueError: for counts below 1, a guide without latent sites, or a site outside the data plate.
    """
    check_pair(model, guide)
    require_positive(num=num)
    batch = placed(model, batch)
    with estimating(model, guide, seed=seed):
        sites, depth = _checked(model, guide, batch)
        if not sites:
            raise ValueError(
                "aggregate_test: expected a guide with latent sites, got none to compare with a prior."
            )
        rows = take_rows(batch, torch.randperm(len(batch[0]))[:num].to(batch[0].device))
        guide_trace = draw(model, guide, *rows, num=1, depth=depth).guide_trace
        drawn = {name: draws_of(latent_sites(guide_trace)[name])[0] for name in sites}
        _, prior = simulated(model, len(rows[0]), rows[1:], sites, depth)
    aggregate, of_prior = (
        torch.cat([z[name].flatten(1).double() for name in sites], 1) for z in (drawn, prior)
    )
    return aggregate, of_prior


def _checked(model: Callable, guide: Callable, batch: tuple) -> tuple[list[str], int]:
    """Names of the latent sites and the number of plates of a pair that is one."""
    traces = checked_run(model, guide, batch)
    return names_of_latents(*traces), plate_depth(*traces)


def _kl_of_units(guide_trace: Trace, model_trace: Trace, sites: list[str]) -> dict[str, Tensor]:
    """Site → mean over the draws `(N, *plates, *event)`, of sites that factorize in both programs."""
    found = {}
    for name in sites:
        drawn, modelled = latent_sites(guide_trace)[name], latent_sites(model_trace)[name]
        distributions = [independent_numbers(site["fn"]) for site in (drawn, modelled)]
        if None not in distributions:
            log_q, log_p = (distribution.log_prob(drawn["value"]) for distribution in distributions)
            found[name] = (
                _by_datum(name, drawn, (log_q - log_p).expand(drawn["value"].shape))
                .double()
                .mean(0)
            )
    return found


def _by_datum(name: str, site: Site, value: Tensor | None = None) -> Tensor:
    """Draws, or numbers of their shape, with the data behind the particles `(K, N, …)`, whatever further plates."""
    value, names = plate_value(site, value), plate_names(site)
    if DATA not in names:
        raise ValueError(
            f"site '{name}': expected a site inside the plate '{DATA}', got a global one, which is the same for every "
            f"datum. Fix: move pyro.sample('{name}', …) under `with data_plate(x):`."
        )
    return value.movedim(names.index(DATA), 1)


def _between(z: Tensor) -> Tensor:
    """Variance of the means over the data, of draws `(K, N, *event)`."""
    return z.mean(0).var(0) - z.var(0).mean(0) / len(z)
