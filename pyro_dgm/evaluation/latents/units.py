"""What the latent dims of a trained pair do: which are in use, what they cost, whether their aggregate is the prior."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...contract import DATA, PyroProgram, Site
from ...inference.run.generation import encoded
from ...inference.run.session import Session, require_positive, session
from ...inference.run.simulation import draws_of, simulated
from ...inference.run.supports import independent_numbers
from ...inference.run.tabular import Tabular
from ...inference.run.traces import PairTrace, plate_names, plate_value
from ..samples.twosample import TwoSample, mmd


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
        ValueError: for counts below 1, bad data, or a site outside the data plate.
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
                idle[name] = idle[name] | (self.kl[name] < self.min_kl)
        return idle

    def columns(self) -> dict[str, list[Any]]:
        """One row per unit; a unit without a share in the KL has NaN there."""
        columns: dict[str, list[Any]] = {
            name: [] for name in ("site", "unit", "variance", "kl", "idle")
        }
        for name, idle in self.idle.items():
            variance = self.variance[name]
            kl = self.kl.get(name, torch.full_like(variance, torch.nan))
            columns["site"] += [name] * idle.numel()
            columns["unit"] += [_unit_name(index) for index in np.ndindex(*idle.shape)]
            columns["variance"] += variance.flatten().tolist()
            columns["kl"] += kl.flatten().tolist()
            columns["idle"] += idle.flatten().tolist()
        return columns

    def __str__(self) -> str:
        lines = [
            f"idle units (variance of means < {self.min_variance:g}, or KL < {self.min_kl:g} nats)"
        ]
        for name, idle in self.idle.items():
            units = [_unit_name(index) for index in np.ndindex(*idle.shape) if idle[index]]
            line = f"  {name}: {len(units)} of {idle.numel()}"
            if units:
                line += f": {', '.join(units[:20])}"
            if len(units) > 20:
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
        ValueError: for fewer than 2 draws, bad data, or a site outside the data plate.

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
    codes = list(pair.structure.codes)
    if not codes:
        raise ValueError(
            "aggregate_test: expected a guide with latent sites, got none to compare with a prior. "
            "Fix: nll(model, guide, x), which scores such a model."
        )
    index = torch.randperm(len(pair))[:num].to(pair.device)
    x, *context = pair.rows(index)
    drawn = pair.draw((x, *context), num=1).pair.latent
    aggregate = {name: draws_of(drawn[name])[0] for name in codes}
    _, prior = simulated(pair.model, len(x), tuple(context), codes, pair.structure.depth)
    return _as_vectors(aggregate), _as_vectors(prior)


class PosteriorMoments:
    r"""$E[z \mid x_i]$ and $\mathrm{Var}(z \mid x_i)$ of every latent site from K draws, block of data by block."""

    def __init__(self) -> None:
        self.num_draws = 0
        self.means: dict[str, list[Tensor]] = defaultdict(list)
        self.variances: dict[str, list[Tensor]] = defaultdict(list)

    def add(self, name: str, z: Tensor) -> None:
        """Note the draws `(K, rows, *event)` of a site for a block of data."""
        self.num_draws = len(z)
        self.means[name].append(z.mean(0))
        self.variances[name].append(z.var(0))

    def variance_of_means(self) -> dict[str, Tensor]:
        r"""Site → $\mathrm{Var}_x(E[z \mid x])$ `(*event)`, without the variance of the K draws in the means."""
        found = {}
        for name, means in self.means.items():
            noise = torch.cat(self.variances[name]).mean(0) / self.num_draws
            found[name] = torch.cat(means).var(0) - noise
        return found


class KLShares:
    r"""$\log q(z_d \mid x_i) - \log p(z_d)$ of every latent dim, the mean of K draws, block of data by block."""

    def __init__(self) -> None:
        self.blocks: dict[str, list[Tensor]] = defaultdict(list)

    def add(self, pair: PairTrace, names: tuple[str, ...]) -> None:
        """Note a run of K draws for a block of data; sites that are no product over their dims have no shares."""
        for name in names:
            site = pair.latent[name]
            q = independent_numbers(site["fn"])
            p = independent_numbers(pair.modelled[name]["fn"])
            if q is None or p is None:
                continue
            z = site["value"]
            log_ratio = (q.log_prob(z) - p.log_prob(z)).expand(z.shape)
            self.blocks[name].append(data_second(name, site, log_ratio).double().mean(0))

    def mean(self) -> dict[str, Tensor]:
        """Site → the mean over the data `(*plates, *event)`."""
        return {name: torch.cat(blocks).mean(0) for name, blocks in self.blocks.items()}


def data_second(name: str, site: Site, value: Tensor | None = None) -> Tensor:
    """Draws of a site, or numbers of their shape, `(K, N, *plates, *event)`: the data right behind the draws.

    Raises:
        ValueError: if the site lies outside the data plate.
    """
    value = plate_value(site, value)
    plates = plate_names(site)
    if DATA not in plates:
        raise ValueError(
            f"site '{name}': expected a site inside the plate '{DATA}', got a global one, which is "
            f"the same for every datum. Fix: move pyro.sample('{name}', …) under "
            "`with data_plate(x):`."
        )
    return value.movedim(plates.index(DATA), 1)


def _as_vectors(draws: dict[str, Tensor]) -> Tensor:
    """Draws `(N, *event)` of several sites as vectors `(N, D)`, in float64."""
    return torch.cat([z.flatten(1).double() for z in draws.values()], 1)


def _require_two_draws(verb: str, num: int) -> None:
    if num < 2:
        raise ValueError(f"{verb}: expected num >= 2 draws per datum, got {num}. Fix: num=50.")


def _unit_name(index: tuple[int, ...]) -> str:
    """How a unit is called: by its number, or by several in an event of several dims."""
    if len(index) > 1:
        return str(index)
    return str(index[0]) if index else "0"
