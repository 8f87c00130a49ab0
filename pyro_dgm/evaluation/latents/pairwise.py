r"""$\log q(z_i \mid x_j)$ of draws of a guide at some data, given other data: every draw against every datum."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from math import log, pi

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from torch import Tensor

from ...contract import PyroProgram, Site
from ...densities.factors import independent_numbers
from ...inference.data.tensors import Batch
from ...inference.run.traces import latent_sites, log_density, sites_of, vectorized


@dataclass(frozen=True)
class Points:
    r"""Draws $z_i$ of the guide at data $x_{r_i}$.

    Attributes:
        values: latent site → `(S, *plates, *event)`.
        rows: the datum $r_i$ of each draw `(S,)`.
    """

    values: dict[str, Tensor]
    rows: Tensor

    @property
    def sites(self) -> list[str]:
        """Names of the latent sites."""
        return list(self.values)

    def split(self, size: int) -> Iterator[Points]:
        """The draws in tiles of at most `size`."""
        for start in range(0, len(self), size):
            yield self[start : start + size]

    def __getitem__(self, tile: slice) -> Points:
        values = {name: value[tile] for name, value in self.values.items()}
        return Points(values, self.rows[tile])

    def __len__(self) -> int:
        return len(self.rows)


class PairwiseDensity(ABC):
    r"""$\log q(z_i \mid x_j)$ for S draws and the B data of a block; abstract."""

    @abstractmethod
    def __call__(self, points: Points) -> Tensor:
        """Of the whole of z `(S, B)`."""

    def dims(self, points: Points) -> Iterator[Tensor]:
        r"""$\log q(z_{id} \mid x_j)$ of each dim d `(S, B)`; the distribution must be a product over its dims."""
        raise NotImplementedError(
            f"{type(self).__name__}: expected a guide with one latent site, whose dims have "
            "densities of their own. Fix: dims=False, or override dims(self, points)."
        )


def pairwise_density(
    guide: PyroProgram, block: Batch, sites: list[str], depth: int
) -> PairwiseDensity:
    r"""A function from `Points` to $\log q(z_i \mid x_j)$ `(S, B)` for the B data of a block.

    The distribution of a single latent site does not depend on other draws, and is asked of the guide once for the
    block; matrix products score it if it is a diagonal normal. With several sites, the guide runs for each pair with
    the draws given. Other latents (noise) are drawn anew for every datum of the block and stay with it.

    Args:
        guide: a Pyro guide.
        block: B data.
        sites: names of the latent sites that make up z.
        depth: number of plates of the guide.
    """
    trace = poutine.trace(guide).get_trace(*block)
    latent = latent_sites(trace)
    if len(sites) > 1:
        return SeveralSites(guide, block, latent, depth)
    name = sites[0]
    site = latent[name]
    distribution = site["fn"]
    base = independent_numbers(distribution)
    has_further_plates = len(distribution.batch_shape) > 1
    if type(base) is dist.Normal and not has_further_plates:
        return DiagonalNormal(name, site, base)
    return OneSite(name, site)


class OneSite(PairwiseDensity):
    """Any distribution of one latent site, by its own `log_prob`.

    Args:
        name: of the site.
        site: the site in a run of the guide on the block.
    """

    def __init__(self, name: str, site: Site):
        self.name = name
        self.site = site
        self.distribution = site["fn"]

    def __call__(self, points: Points) -> Tensor:  # noqa: D102
        log_q = self.distribution.log_prob(self._value(points))
        return sum_over_plates(_masked(log_q, self.site))

    def dims(self, points: Points) -> Iterator[Tensor]:  # noqa: D102
        factors = independent_numbers(self.distribution)
        if factors is None:
            raise ValueError(
                f"site '{self.name}': expected a distribution whose dims are independent, got "
                f"{self.distribution}. Fix: dims=False."
            )
        log_q = factors.log_prob(self._value(points))
        num_batch = log_q.dim() - len(self.distribution.event_shape)
        for of_dim in log_q.reshape(*log_q.shape[:num_batch], -1).unbind(-1):
            yield _masked(of_dim, self.site)

    def _value(self, points: Points) -> Tensor:
        """The draws next to every datum `(S, *plates, B, *event)`."""
        num_data = self.distribution.batch_shape[-1]
        num_event = len(self.distribution.event_shape)
        return expand_data_dim(points.values[self.name], num_data, num_event)


class DiagonalNormal(PairwiseDensity):
    r"""$-\frac12 \sum_d (z_d - \mu_{jd})^2 / \sigma_{jd}^2 - \sum_d \log \sigma_{jd} - \frac D2 \log 2\pi$, in float64.

    The square is multiplied out, so that matrix products do the work; the cancellation costs
    $10^{-16} (z_d - \bar\mu_d)^2 / \sigma_{jd}^2$. Each dim alone is scored without it.

    Args:
        name: of the site.
        site: the site in a run of the guide on the block.
        base: its univariate normals `(B, *event)`.
    """

    def __init__(self, name: str, site: Site, base: dist.Normal):
        self.name = name
        self.site = site
        loc = base.loc.reshape(len(base.loc), -1).double()
        self.centre = loc.mean(0)  # a common shift changes nothing and keeps the squares small
        self.loc = loc - self.centre
        self.scale = base.scale.reshape(len(base.scale), -1).double()
        self.log_norm = self.scale.log() + log(2 * pi) / 2

    def __call__(self, points: Points) -> Tensor:  # noqa: D102
        z = self._centred(points)
        precision = self.scale.square().reciprocal()
        linear = self.loc * precision
        quadratic = -precision / 2
        of_loc = self.loc.square() * precision / 2
        constant = (of_loc + self.log_norm).sum(-1)
        # One product of twice the width in place of two.
        features = torch.cat([z, z.square()], -1)
        weights = torch.cat([linear, quadratic], -1)
        log_q = features @ weights.mT
        return _masked(log_q.sub_(constant), self.site)

    def dims(self, points: Points) -> Iterator[Tensor]:  # noqa: D102
        z = self._centred(points)
        for d in range(z.shape[1]):
            # In place: a tile of (draw, datum) pairs is the largest tensor there is.
            distance = z[:, d, None] - self.loc[:, d]
            log_q = distance.div_(self.scale[:, d]).square_().mul_(-0.5)
            log_q.sub_(self.log_norm[:, d])
            yield _masked(log_q, self.site)

    def _centred(self, points: Points) -> Tensor:
        return points.values[self.name].reshape(len(points), -1).double() - self.centre


class SeveralSites(PairwiseDensity):
    """A guide of several sites, run on each pair with the draws given: sites may depend on each other.

    Args:
        guide: a Pyro guide.
        block: B data.
        latent: the sites of a run of the guide on the block.
        depth: number of plates of the guide.
    """

    def __init__(self, guide: PyroProgram, block: Batch, latent: dict[str, Site], depth: int):
        self.guide = guide
        self.block = block
        self.depth = depth
        self.draws: dict[str, Tensor] = {}
        self.num_event: dict[str, int] = {}
        for name, site in latent.items():
            self.draws[name] = site["value"]
            self.num_event[name] = len(site["fn"].event_shape)

    def __call__(self, points: Points) -> Tensor:  # noqa: D102
        num_data = len(self.block[0])
        given = dict(self.draws)
        for name, value in points.values.items():
            given[name] = expand_data_dim(value, num_data, self.num_event[name])
        conditioned = poutine.condition(self.guide, data=given)
        particles = vectorized(conditioned, len(points), self.depth)
        trace = poutine.trace(particles).get_trace(*self.block)
        sites = sites_of(trace)
        log_q = []
        for name in points.values:
            of_site = log_density(sites[name])
            log_q.append(sum_over_plates(of_site).double())
        return torch.stack(log_q).sum(0)


def expand_data_dim(value: Tensor, num_data: int, num_event: int) -> Tensor:
    """Draws `(S, *plates, *event)` repeated, as a view, for every datum: `(S, *plates, num_data, *event)`."""
    data_dim = value.dim() - num_event
    plates = value.shape[:data_dim]
    event = value.shape[data_dim:]
    return value.unsqueeze(data_dim).expand(*plates, num_data, *event)


def sum_over_plates(log_q: Tensor) -> Tensor:
    """The sum over further plates of log densities `(S, *plates, B)`."""
    return log_q.reshape(len(log_q), -1, log_q.shape[-1]).sum(1)


def _masked(log_q: Tensor, site: Site) -> Tensor:
    return scale_and_mask(log_q, mask=site["mask"])
