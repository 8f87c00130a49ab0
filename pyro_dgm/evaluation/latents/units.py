"""What the latent dims of a trained pair do: which are in use, what they cost, whether their aggregate is the prior."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...contract import PyroProgram
from ...inference.data.tensors import Batch
from ...inference.drawing.generation import encoded
from ...inference.drawing.simulation import simulate, site_draws
from ...inference.run.sessions import Session, require_positive, session
from ...tabular import Tabular
from ..samples.twosample import TwoSample, mmd
from .unit_statistics import KLShares, PosteriorMoments, data_second


def active_units(
    guide: PyroProgram, *batch: Any, num: int = 50, chunk: int = 20_000, seed: int = 0
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
    _require_two_draws("active_units", num)
    moments = PosteriorMoments()
    with session(None, guide, *batch, num=num, chunk=chunk, seed=seed) as opened:
        for block in opened.blocks():
            sites = encoded(opened, block)
            for name in opened.structure.latent:
                moments.add(name, data_second(name, sites[name]))
    return moments.variance_of_means()


def unit_kl(
    model: PyroProgram,
    guide: PyroProgram,
    *batch: Any,
    num: int = 10,
    chunk: int = 20_000,
    seed: int = 0,
) -> dict[str, Tensor]:
    r"""$\frac1N \sum_i E_{q(z \mid x_i)}[\log q(z_d \mid x_i) - \log p(z_d)]$: the share of every latent dim in the KL.

    For one site it is $E_x KL(q(z_d \mid x) \| p(z_d))$; for sites that depend on each other, the dim's term of the
    chain rule. Nats per datum, unbiased. Sites whose distribution does not factorize over dims, in either program,
    have no such shares and are left out; so is the noise of discrete sites.

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
        ValueError: for counts below 1, bad data, a site outside the data plate, a guide that is a point mass at a site,
            or a KL that is negative beyond its error.
    """
    shares = KLShares()
    with session(model, guide, *batch, num=num, chunk=chunk, seed=seed) as pair:
        for block in pair.blocks():
            shares.add(pair.draw(block).pair, pair.structure.codes)
    return shares.mean()


@dataclass(frozen=True)
class Collapse(Tabular):
    r"""Which latent dims of a fitted pair say nothing of the data. Its table has a row per unit.

    Attributes:
        variance: site → $\mathrm{Var}_x(E[z \mid x])$ `(*plates, *event)`, see `active_units`.
        kl: site → the dim's share in the KL `(*plates, *event)`, nats per datum, see `unit_kl`; only sites whose
            distributions factorize over dims.
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
        idle = {}
        for name, variance in self.variance.items():
            idle[name] = variance < self.min_variance
            if name in self.kl:
                idle[name] |= self.kl[name] < self.min_kl
        return idle

    def columns(self) -> dict[str, list[Any]]:
        """One row per unit; a unit without a share in the KL has NaN there."""
        columns: dict[str, list[Any]] = defaultdict(list)
        for site in self.variance:
            for name, values in self._columns_of(site).items():
                columns[name] += values
        return columns

    def _columns_of(self, site: str) -> dict[str, list[Any]]:
        variance = self.variance[site]
        no_share = torch.full_like(variance, torch.nan)
        kl = self.kl.get(site, no_share)
        units = _unit_names(variance.shape)
        return {
            "site": [site] * len(units),
            "unit": units,
            "variance": variance.flatten().tolist(),
            "kl": kl.flatten().tolist(),
            "idle": self.idle[site].flatten().tolist(),
        }

    def __str__(self) -> str:
        lines = [
            f"idle units (variance of means < {self.min_variance:g}, or KL < {self.min_kl:g} nats)"
        ]
        for site, is_idle in self.idle.items():
            units = np.array(_unit_names(is_idle.shape))
            idle = units[is_idle.flatten().cpu().numpy()]
            line = f"  {site}: {len(idle)} of {len(units)}"
            if len(idle):
                line += ": " + ", ".join(idle[:20])
            if len(idle) > 20:
                line += ", …"
            lines.append(line)
        return "\n".join(lines)


def collapse(
    model: PyroProgram,
    guide: PyroProgram,
    *batch: Any,
    num: int = 50,
    min_variance: float = 0.01,
    min_kl: float = 0.01,
    seed: int = 0,
) -> Collapse:
    r"""Which latent dims are idle: $\mathrm{Var}_x(E[z_d \mid x]) < 0.01$, or a share in the KL below 0.01 nats.

    A posterior has collapsed where it equals the prior whatever the data; a unit may also copy a constant at a price
    in KL, which the variance shows. The numbers are those of `active_units` and `unit_kl` from the same draws.

    Args:
        model: any Pyro program that keeps the contract.
        guide: its guide.
        batch: the data, observation first.
        num: draws per datum, at least 2.
        min_variance: threshold of the variance of the posterior means, in squared units of z.
        min_kl: threshold of the share in the KL, nats per datum.
        seed: of the draws.

    Raises:
        ValueError: for fewer than 2 draws, and as `unit_kl`.

    References:
        Lucas et al. 2019, *Don't blame the ELBO! A linear VAE perspective on posterior collapse*, arXiv:1911.02469.
    """
    _require_two_draws("collapse", num)
    moments, shares = PosteriorMoments(), KLShares()
    with session(model, guide, *batch, num=num, seed=seed) as pair:
        for block in pair.blocks():
            run = pair.draw(block).pair
            shares.add(run, pair.structure.codes)
            for name in pair.structure.codes:
                moments.add(name, data_second(name, run.latent[name]))
    return Collapse(moments.variance_of_means(), shares.mean(), min_variance, min_kl)


def aggregate_test(
    model: PyroProgram,
    guide: PyroProgram,
    *batch: Any,
    num: int = 1000,
    num_permutations: int = 999,
    seed: int = 0,
) -> TwoSample:
    r"""Is $q_{agg}(z) = \frac1N \sum_i q(z \mid x_i)$ the prior? `mmd` between draws of either, of all latent sites.

    One draw for each of at most `num` data chosen at random, against as many of the prior, at the same contexts if
    there are any. The p-value is about the distribution that the data come from. It says whether there is a
    difference; `surgery` says how many nats it costs.

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
    aggregate, prior = aggregate_draws(model, guide, *batch, num=num, seed=seed)
    return mmd(real=aggregate, fake=prior, num_permutations=num_permutations, seed=seed)


def aggregate_draws(
    model: PyroProgram, guide: PyroProgram, *batch: Any, num: int = 1000, seed: int = 0
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
    require_positive(num=num)
    with session(model, guide, *batch, seed=seed) as pair:
        return aggregate_draws_of(pair, num)


def aggregate_draws_of(pair: Session, num: int) -> tuple[Tensor, Tensor]:
    """`aggregate_draws` of an open session."""
    if not pair.structure.codes:
        raise ValueError(
            "aggregate_test: expected a guide with latent sites, got none to compare with a prior. "
            "Fix: nll(model, guide, x), which scores such a model."
        )
    index = torch.randperm(len(pair))[:num]
    block = pair.rows(index.to(pair.device))
    encodings = _encodings(pair, block)
    prior_draws = _prior_draws(pair, block)
    return _as_vectors(encodings), _as_vectors(prior_draws)


def _encodings(pair: Session, block: Batch) -> dict[str, Tensor]:
    """Latent site → one draw of the guide for each datum of a block `(N, *plates, *event)`."""
    sites = pair.draw(block, num=1).pair.latent
    return {name: site_draws(sites[name])[0] for name in pair.structure.codes}


def _prior_draws(pair: Session, block: Batch) -> dict[str, Tensor]:
    """Latent site → one draw of the prior at the context of each datum `(N, *plates, *event)`."""
    structure = pair.structure
    x, *context = block
    codes = list(structure.codes)
    _, draws = simulate(pair.model, len(x), tuple(context), codes, structure.depth)
    return draws


def _as_vectors(draws: dict[str, Tensor]) -> Tensor:
    """Draws `(N, *event)` of several sites as vectors `(N, D)`, in float64."""
    return torch.cat([z.flatten(1).double() for z in draws.values()], 1)


def _require_two_draws(verb: str, num: int) -> None:
    require_positive(num=num)
    if num < 2:
        raise ValueError(f"{verb}: expected num >= 2 draws per datum, got {num}. Fix: num=50.")


def _unit_names(shape: torch.Size) -> list[str]:
    """How the units of a site are called: by their numbers, in an event of several dims by tuples of them."""
    if len(shape) > 1:
        return [str(index) for index in np.ndindex(*shape)]
    return [str(index) for index in range(shape.numel())]
