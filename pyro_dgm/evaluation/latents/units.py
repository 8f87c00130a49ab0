"""What the latent dims of a trained pair do: which are in use, and what they cost."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...contract import PyroProgram
from ...display.tabular import Tabular
from ...inference.drawing.generation import encoded
from ...inference.run.sessions import Session, require_positive, session
from .unit_information import information_of_units
from .unit_statistics import KLShares, PosteriorMoments

MIN_VARIANCE = 0.01  # of the posterior means of an active unit, in squared units of z


def active_units(
    guide: PyroProgram, *batch: Any, num: int = 50, chunk: int = 20_000, seed: int = 0
) -> dict[str, Tensor]:
    r"""$\mathrm{Var}_x\left(E_{q(z \mid x)}[z]\right)$ of every latent dim; above 0.01 a unit is an *active unit*.

    The published number, in squared units of z. It sees the posterior means alone: a unit whose posterior changes with
    x in width or shape, or has two modes at ±m(x), is 0 here and may hold nats; `collapse` tells them. Labels, as of a
    `Categorical`, have no mean: their sites are left out.

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
        ValueError: for fewer than 2 draws, a site outside the data plate, or a guide that draws labels alone.

    References:
        Burda, Grosse, Salakhutdinov 2016, *Importance weighted autoencoders*, arXiv:1509.00519.
    """
    _require_two_draws("active_units", num)
    moments = PosteriorMoments()
    with session(None, guide, *batch, num=num, chunk=chunk, seed=seed) as opened:
        for block in opened.blocks():
            sites = encoded(opened, block)
            for name in opened.structure.latent:
                moments.add(name, sites[name])
        latent = opened.structure.latent
    if latent and not moments.means:
        raise ValueError(
            f"active_units: expected a latent site that has a mean, got labels alone, {list(latent)}. "
            "Fix: collapse(model, guide, x).information, nats per unit."
        )
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
            shares.add(pair.draw(block), pair.structure.codes)
    return shares.mean()


@dataclass(frozen=True)
class Collapse(Tabular):
    r"""Which latent dims of a fitted pair say nothing of the data. Its table has a row per unit.

    Attributes:
        information: site → $I_q(x; z_d)$ `(*plates, *event)`, nats, what draws of the dim tell of x; a lower bound: its
            values are cut into 64 cells, of which log 64 nats can be told.
        variance: site → $\mathrm{Var}_x(E[z \mid x])$ `(*plates, *event)`, see `active_units`; labels have none.
        kl: site → the dim's share in the KL `(*plates, *event)`, nats per datum, see `unit_kl`; only sites whose
            distributions factorize over dims.
        min_information: below it a unit is idle.
    """

    information: dict[str, Tensor]
    variance: dict[str, Tensor]
    kl: dict[str, Tensor]
    min_information: float

    @property
    def idle(self) -> dict[str, Tensor]:
        """Site → whether each dim is idle `(*plates, *event)`."""
        return {name: nats < self.min_information for name, nats in self.information.items()}

    @property
    def num_active(self) -> int:
        """The active units of Burda et al. 2016, whose posterior means have a variance above 0.01, over all sites."""
        return sum([int((variance > MIN_VARIANCE).sum()) for variance in self.variance.values()])

    def columns(self) -> dict[str, list[Any]]:
        """One row per unit; NaN where a unit has no mean, or no share in the KL."""
        columns: dict[str, list[Any]] = defaultdict(list)
        for site in self.information:
            for name, values in self._columns_of(site).items():
                columns[name] += values
        return columns

    def _columns_of(self, site: str) -> dict[str, list[Any]]:
        information = self.information[site]
        unknown = torch.full_like(information, torch.nan)
        units = _unit_names(information.shape)
        return {
            "site": [site] * len(units),
            "unit": units,
            "information": information.flatten().tolist(),
            "variance": self.variance.get(site, unknown).flatten().tolist(),
            "kl": self.kl.get(site, unknown).flatten().tolist(),
            "idle": self.idle[site].flatten().tolist(),
        }

    def __str__(self) -> str:
        lines = [
            f"idle units (< {self.min_information:g} nats of information on x; by the variance of "
            f"their means > {MIN_VARIANCE:g}, {self.num_active} are active)"
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
    min_information: float = 0.01,
    seed: int = 0,
) -> Collapse:
    r"""Which latent dims are idle: draws of $q(z_d \mid x)$ tell less than 0.01 nats of x, $I_q(x; z_d) < 0.01$.

    A posterior has collapsed where it is the same whatever the data: that of the prior, or a constant at a price in KL.
    The information sees any change of it with x, of its mean, width, modes or, for a discrete unit, probabilities.
    Beside it stand the numbers of `active_units` and `unit_kl`, from the same draws: a KL without information is that
    of a constant, and information without a variance of means that of a shape.

    Args:
        model: any Pyro program that keeps the contract.
        guide: its guide.
        batch: the data, observation first.
        num: draws per datum for variance and KL, at least 2; the information takes up to 200 for each of 1,000
            data, or more for each of fewer.
        min_information: threshold, nats.
        seed: of the draws.

    Raises:
        ValueError: for fewer than 2 draws or data, and as `unit_kl`.

    References:
        Lucas et al. 2019, *Don't blame the ELBO! A linear VAE perspective on posterior collapse*, arXiv:1911.02469;
        Hoffman, Johnson 2016, *ELBO surgery* (the KL is information and the distance of the aggregate).
    """
    _require_two_draws("collapse", num)
    with session(model, guide, *batch, num=num, seed=seed) as pair:
        return collapse_of(pair, min_information)


def collapse_of(pair: Session, min_information: float = 0.01) -> Collapse:
    """`collapse` of an open session."""
    _ = pair.batch  # a stream is read whole, once: the information chooses data at random
    moments, shares = PosteriorMoments(), KLShares()
    for block in pair.blocks():
        particles = pair.draw(block)
        shares.add(particles, pair.structure.codes)
        for name in pair.structure.codes:
            moments.add(name, particles.pair.latent[name])
    variance = moments.variance_of_means()
    information = information_of_units(pair) if pair.structure.codes else {}
    return Collapse(information, variance, shares.mean(), min_information)


def _require_two_draws(verb: str, num: int) -> None:
    require_positive(num=num)
    if num < 2:
        raise ValueError(f"{verb}: expected num >= 2 draws per datum, got {num}. Fix: num=50.")


def _unit_names(shape: torch.Size) -> list[str]:
    """How the units of a site are called: by their numbers, in an event of several dims by tuples of them."""
    if len(shape) > 1:
        return [str(index) for index in np.ndindex(*shape)]
    return [str(index) for index in range(shape.numel())]
