r"""All pairs $\log q(z_i \mid x_j)$ of a guide, in tiles: what the aggregated posterior is made of."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import log, pi
from time import perf_counter
from typing import Any

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from torch import Tensor

from ...inference.run.data import take_rows
from ...inference.run.supports import independent_dims
from ...inference.run.traces import Site, latent_sites, log_density, sample_sites, vectorized

ROWS = 256  # data whose laws are asked of the guide at once
PATIENCE = 600.0  # seconds


@dataclass(frozen=True)
class Aggregate:
    r"""The sum over the other data, $\log \sum_{j \neq i} q(z_i \mid x_j)$.

    Attributes:
        joint: of the whole of z `(S,)`, float64; −∞ without other data.
        dims: of each dim `(S, D)` if asked for, else `(S, 0)`.
        num: how many other data each sum holds `(S,)`.
    """

    joint: Tensor
    dims: Tensor
    num: Tensor

    def log_density(self, own: Tensor, num_data: int) -> Tensor:
        r"""$\log \frac1N \left(q(z_i \mid x_i) + \frac{N-1}{m_i} \sum_{j \neq i} q(z_i \mid x_j)\right)$.

        Args:
            own: $\log q(z_i \mid x_i)$ `(S,)`, or of each dim `(S, D)`.
            num_data: number N of data.
        """
        rest, num = (self.joint, self.num) if own.dim() == 1 else (self.dims, self.num[:, None])
        if num_data == 1:
            return own
        return torch.logaddexp(own, rest + log(num_data - 1) - num.log()) - log(num_data)


@dataclass(frozen=True)
class Points:
    r"""Draws $z_i$ of the guide at data $x_{r_i}$.

    Attributes:
        values: latent site → `(S, *plates, *event)`.
        rows: the datum $r_i$ of each draw `(S,)`.
    """

    values: dict[str, Tensor]
    rows: Tensor

    def __getitem__(self, tile: slice) -> Points:
        return Points({name: value[tile] for name, value in self.values.items()}, self.rows[tile])

    def __len__(self) -> int:
        return len(self.rows)


def aggregated(
    guide: Callable,
    batch: tuple,
    points: Points,
    others: Tensor,
    depth: int,
    chunk: int,
    *,
    dims: bool,
) -> Aggregate:
    r"""Sums of $q(z_i \mid x_j)$ over the data $j \neq i$ of `others`, at most `chunk` pairs in memory at once.

    Args:
        guide: a Pyro guide.
        batch: the data.
        points: draws of the guide.
        others: indices j `(M,)` of the data to sum over.
        depth: number of plates of the guide.
        chunk: how many pairs are in memory at once.
        dims: whether to sum over each dim alone as well; the guide's only latent site must be a product over its dims.
    """
    rows = min(ROWS, chunk)
    watch = Watch(len(points) * len(others))
    sums: Any = None
    for index in others.split(rows):
        score = pairwise(guide, take_rows(batch, index), list(points.values), depth)
        parts = [
            _sums(score, points[tile], index, watch, dims=dims)
            for tile in _tiles(len(points), max(1, chunk // rows))
        ]
        here = [torch.cat(part) for part in zip(*parts, strict=True)]
        sums = (
            here
            if sums is None
            else [torch.logaddexp(a, b) for a, b in zip(sums, here, strict=True)]
        )
    num = len(others) - torch.isin(points.rows, others).double()
    return Aggregate(sums[0], sums[1], num)


def _tiles(num: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, num, size))


def _sums(
    score: Any, points: Points, index: Tensor, watch: Watch, *, dims: bool
) -> tuple[Tensor, Tensor]:
    """Log sums over the data of one tile, joint and of each dim, without a draw's own datum."""
    own = (points.rows[:, None] == index).nonzero(as_tuple=True)
    joint = _log_sum(score(points), own)
    each = [_log_sum(log_q, own) for log_q in score.dims(points)] if dims else []
    watch.passed(len(points) * len(index))
    return joint, torch.stack(each, -1) if each else joint.new_zeros(len(joint), 0)


def _log_sum(log_q: Tensor, own: tuple[Tensor, ...]) -> Tensor:
    log_q = log_q.double().contiguous()  # a constant density may be a view of one number
    log_q[own] = -torch.inf
    return log_q.logsumexp(1)


def pairwise(guide: Callable, block: tuple, sites: list[str], depth: int) -> Any:
    r"""A function from `Points` to $\log q(z_i \mid x_j)$ `(S, B)` for the B data of a block.

    This is where the road is chosen. One latent site: its law does not depend on other draws, and is asked of the
    guide once for the block; matrix products score it if it is a diagonal normal. Several: the guide runs for each
    pair with the draws given. Other latents (noise) are drawn anew for every datum of the block and stay with it.
    """
    trace = poutine.trace(guide).get_trace(*block)
    latent = latent_sites(trace)
    if len(sites) > 1:
        return Replayed(guide, block, latent, depth)
    name, site = sites[0], latent[sites[0]]
    base = independent_dims(site["fn"])
    if type(base) is dist.Normal and len(site["fn"].batch_shape) == 1:
        return DiagonalNormal(name, site, base)
    return OneSite(name, site)


class OneSite:
    """Any law of one latent site, by its own `log_prob`."""

    def __init__(self, name: str, site: Site):
        self.name, self.site, self.distribution = name, site, site["fn"]

    def __call__(self, points: Points) -> Tensor:
        """The whole of z `(S, B)`."""
        return sum_over_plates(_masked(self.distribution.log_prob(self._value(points)), self.site))

    def dims(self, points: Points) -> Iterator[Tensor]:
        """Each dim `(S, B)`; the law must be a product over its dims."""
        base, num_event = independent_dims(self.distribution), len(self.distribution.event_shape)
        each: Any = base.log_prob(self._value(points)).flatten(-num_event)
        return (_masked(log_q, self.site) for log_q in each.unbind(-1))

    def _value(self, points: Points) -> Tensor:
        return expand_data_dim(
            points.values[self.name],
            self.distribution.batch_shape[-1],
            len(self.distribution.event_shape),
        )


class DiagonalNormal:
    r"""$-\frac12 \sum_d (z_d - \mu_{jd})^2 / \sigma_{jd}^2 - \sum_d \log \sigma_{jd} - \frac D2 \log 2\pi$, in float64.

    The square is multiplied out, so that matrix products do the work; the cancellation costs
    $10^{-16} (z_d - \bar\mu_d)^2 / \sigma_{jd}^2$. Each dim alone is scored without it.
    """

    def __init__(self, name: str, site: Site, base: dist.Normal):
        self.name, self.site = name, site
        loc, scale = base.loc.flatten(1).double(), base.scale.flatten(1).double()
        self.centre = loc.mean(0)  # a common shift changes nothing and keeps the squares small
        self.loc, self.scale = loc - self.centre, scale
        self.log_norm = scale.log() + log(2 * pi) / 2

    def __call__(self, points: Points) -> Tensor:
        """The whole of z `(S, B)`."""
        z, precision = self._centred(points), self.scale.square().reciprocal()
        linear, constant = (
            self.loc * precision,
            (self.loc.square() * precision / 2 + self.log_norm).sum(-1),
        )
        # One product of twice the width in place of two.
        log_q = torch.cat([z, z.square()], -1) @ torch.cat([linear, -precision / 2], -1).mT
        return _masked(log_q.sub_(constant), self.site)

    def dims(self, points: Points) -> Iterator[Tensor]:
        """Each dim `(S, B)`."""
        for z, loc, scale, log_norm in zip(
            self._centred(points).mT, self.loc.mT, self.scale.mT, self.log_norm.mT, strict=True
        ):
            log_q = (z[:, None] - loc).div_(scale).square_().mul_(-0.5).sub_(log_norm)
            yield _masked(log_q, self.site)

    def _centred(self, points: Points) -> Tensor:
        return points.values[self.name].flatten(1).double() - self.centre


class Replayed:
    """A guide of several sites, run on each pair with the draws given: sites may depend on each other."""

    def __init__(self, guide: Callable, block: tuple, latent: dict[str, Site], depth: int):
        self.guide, self.block, self.depth = guide, block, depth
        self.drawn = {name: site["value"] for name, site in latent.items()}
        self.num_event = {name: len(site["fn"].event_shape) for name, site in latent.items()}

    def __call__(self, points: Points) -> Tensor:
        """The whole of z `(S, B)`."""
        given = {
            n: expand_data_dim(value, len(self.block[0]), self.num_event[n])
            for n, value in points.values.items()
        }
        conditioned = poutine.condition(self.guide, data={**self.drawn, **given})
        trace = poutine.trace(vectorized(conditioned, len(points), self.depth)).get_trace(
            *self.block
        )
        sites = dict(sample_sites(trace))
        return torch.stack(
            [sum_over_plates(log_density(sites[name])).double() for name in points.values]
        ).sum(0)


def expand_data_dim(value: Tensor, num: int, num_event: int) -> Tensor:
    """Draws `(S, *plates, *event)` repeated, as a view, beside `num` data: `(S, *plates, num, *event)`."""
    where = value.dim() - num_event
    return value.unsqueeze(where).expand(*value.shape[:where], num, *value.shape[where:])


def sum_over_plates(log_q: Tensor) -> Tensor:
    """The sum over further plates of log densities `(S, *plates, B)`."""
    return log_q.reshape(len(log_q), -1, log_q.shape[-1]).sum(1)


def _masked(log_q: Tensor, site: Site) -> Tensor:
    return scale_and_mask(log_q, mask=site["mask"])


class Watch:
    """Says once, from the pairs scored so far, that the whole will take longer than `PATIENCE`.

    The first pairs, which take longer (memory is new, kernels are loaded), do not count.
    """

    def __init__(self, total: int):
        self.total, self.left, self.timed, self.silent = total, total, 0, False
        self.start: float | None = None

    def passed(self, num: int) -> None:
        """Note that `num` pairs more are done."""
        self.left -= num
        if self.start is None:
            self.start = perf_counter()
            return
        self.timed += num
        each = (perf_counter() - self.start) / self.timed
        if not self.silent and each * self.total > PATIENCE and self.left:
            self.silent = True
            warnings.warn(
                f"surgery: {self.total:,} pairs (z_i, x_j) at {1e6 * each:.2g} µs each with this guide, about "
                f"{each * self.total / 60:.0f} minutes; an autoregressive flow takes one network call per dim to score "
                "a given point. Fix: a smaller num, or others=1000 for a bound in expectation.",
                stacklevel=2,
            )
