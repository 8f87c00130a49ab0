"""Simulation-based calibration of an amortized guide: no refits, for it answers any data at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from math import exp, pi, sqrt
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from ...inference.run.data import take_rows
from ...inference.run.estimates import estimating, placed_context
from ...inference.run.explain import run_or_explain
from ...inference.run.generation import generated_value
from ...inference.run.particles import draw
from ...inference.run.rules import check_sites
from ...inference.run.sessions import check_pair, require_positive
from ...inference.run.simulation import (
    draws_of,
    log_joint,
    names_of_latents,
    run_of_prior,
    simulated,
)
from ...inference.run.traces import Site, latent_sites, plate_depth, vectorized

LEVELS = (0.5, 0.8, 0.95)  # of the intervals that are printed


@dataclass(frozen=True)
class SBC:
    r"""Ranks of $z^*$ among L draws of $q(z \mid x)$, with $z^* \sim p(z)$ and $x \sim p(x \mid z^*)$.

    Each statistic's rank is uniform on 0, …, L if the guide is the exact posterior; ties are broken at random.

    Attributes:
        names: of the S statistics: every latent dim as `z[0]`, then `log p(x, z)` and `|z|`.
        ranks: how many of the L draws lie below $z^*$ `(N, S)`.
        uniform: $(\mathrm{rank} + v) / (L + 1)$ with $v \sim U(0, 1)$ `(N, S)`, uniform on (0, 1) for an exact guide.
        num_draws: number L of draws.
    """

    names: tuple[str, ...]
    ranks: Tensor
    uniform: Tensor
    num_draws: int

    @property
    def p_values(self) -> Tensor:
        """Kolmogorov's test of each statistic's uniformity, by itself `(S,)`."""
        return torch.tensor([kolmogorov(u) for u in self.uniform.T], dtype=torch.float64)

    @property
    def adjusted(self) -> Tensor:
        """p-values after Holm's correction `(S,)`.

        To reject what lies below α errs once or more with a probability of at most α, however the statistics depend
        on each other.
        """
        p, order = self.p_values.sort()
        num = len(p)
        stepped = (p * torch.arange(num, 0, -1)).cummax(0).values.clamp(max=1)
        return torch.empty_like(p).scatter(0, order, stepped)

    def passed(self, level: float = 0.01) -> bool:
        """Whether no statistic is refused at a level; an exact guide fails with at most that probability."""
        return bool((self.adjusted >= level).all())

    def coverage(self, level: float) -> Tensor:
        r"""How often the central interval of that probability holds $z^*$ `(S,)`; below it: too narrow or shifted.

        The standard error is $\sqrt{\mathrm{level}\,(1 - \mathrm{level}) / N}$.
        """
        return ((2 * self.uniform - 1).abs() <= level).double().mean(0)

    def __str__(self) -> str:
        p, adjusted, cover = (
            self.p_values,
            self.adjusted,
            [self.coverage(level) for level in LEVELS],
        )
        worst = p.argsort()[:10].tolist()
        head = "".join(f"{f'{level:.0%} interval':>14}" for level in LEVELS)
        rows = [
            f"  {self.names[i]:<14}{p[i]:>10.2g}{adjusted[i]:>10.2g}"
            + "".join(f"{c[i]:>14.1%}" for c in cover)
            for i in worst
        ]
        title = (
            f"SBC, {len(self.ranks)} data × {self.num_draws} draws, {len(self.names)} statistics, "
            f"smallest p after Holm's correction {adjusted.min():.2g}"
        )
        return "\n".join([title, f"  {'statistic':<14}{'p':>10}{'Holm':>10}{head}", *rows])


def sbc(
    model: Callable,
    guide: Callable,
    *context: Any,
    num_data: int = 10_000,
    num_draws: int = 99,
    chunk: int = 20_000,
    seed: int = 0,
) -> SBC:
    r"""Is $q(z \mid x)$ the posterior of the model's own data? $z^* \sim p(z)$, $x \sim p(x \mid z^*)$, ranks of $z^*$.

    Over the joint law, $z^*$ and exact posterior draws are exchangeable, so that ranks are uniform. The test sees the
    guide on data that the model makes, not on the user's: a wrong model with an exact guide passes. 10,000 data find
    a mean that is off by a tenth of a posterior standard deviation. Ranks of $\log p(x, z)$ and $\|z\|$ see
    dependences between dims that the dims alone do not.

    Args:
        model: a Pyro program that generates when its first argument is `None`.
        guide: its guide.
        context: the programs' further arguments, without x, for data are simulated; their rows are taken over again for
            `num_data` data.
        num_data: number N of simulated data.
        num_draws: number L of draws of the guide for each.
        chunk: how many (draw, datum) pairs are in memory at once.
        seed: of data, draws and ties; the random state outside stays as it is.

    Raises:
        ValueError: for counts below 1, a model that does not generate from these arguments alone, a guide without
            latent sites, or a site outside the data plate.

    References:
        Talts et al. 2018, *Validating Bayesian inference algorithms with simulation-based calibration*,
        arXiv:1804.06788; Modrák et al. 2023, arXiv:2211.02383 (ranks of the joint density);
        Holm 1979, *A simple sequentially rejective multiple test procedure*.
    """
    check_pair(model, guide)
    require_positive(num_data=num_data, num_draws=num_draws, chunk=chunk)
    context = placed_context(model, context)
    with estimating(model, guide, seed=seed):
        sites = _sites(model, guide, context)
        blocks = torch.arange(num_data).split(max(1, chunk // num_draws))
        parts = [
            _ranks(*_statistics(model, guide, _again(context, rows), len(rows), sites, num_draws))
            for rows in blocks
        ]
        ranks = torch.cat(parts).cpu()
        uniform = (ranks + torch.rand(ranks.shape, dtype=torch.float64)) / (num_draws + 1)
    return SBC((*sites.dims, "log p(x, z)", "|z|"), ranks, uniform, num_draws)


def kolmogorov(u: Tensor) -> float:
    r"""p-value of $\max_t |F_n(t) - t|$ for n numbers in (0, 1), by its limiting law with Stephens' correction.

    References:
        Stephens 1970, *Use of the Kolmogorov–Smirnov statistics without extensive tables*, JRSS B 32.

    Example:
        >>> round(kolmogorov((torch.arange(1000) + 0.5) / 1000), 6)
        1.0
    """
    num = len(u)
    steps, u = torch.arange(num + 1).to(u) / num, u.sort().values
    largest = torch.maximum((steps[1:] - u).max(), (u - steps[:-1]).max()).item()
    t = (sqrt(num) + 0.12 + 0.11 / sqrt(num)) * largest
    if t < 1:
        return 1 - sqrt(2 * pi) / t * sum(
            exp(-((2 * k - 1) ** 2) * pi**2 / (8 * t**2)) for k in range(1, 6)
        )
    return 2 * sum((-1) ** (k - 1) * exp(-2 * k**2 * t**2) for k in range(1, 6))


@dataclass(frozen=True)
class _Sites:
    """Names of all latent sites, of those that make up z, of the dims of z; and the number of plates."""

    latent: list[str]
    z: list[str]
    dims: list[str]
    depth: int


def _sites(model: Callable, guide: Callable, context: tuple) -> _Sites:
    """What one datum that the model makes shows of a pair."""
    context = _again(context, torch.arange(1))
    depth = plate_depth(run_of_prior(model, context, guide))
    made = poutine.trace(vectorized(model, 1, depth)).get_trace(None, *context)
    traces = run_or_explain(model, guide, (generated_value(made).flatten(0, 1), *context))
    check_sites(traces)
    z, latent = names_of_latents(*traces), traces.latent
    if not z:
        raise ValueError(
            f"sbc: expected a guide with latent sites, got {[*latent]}. Fix: nll(model, guide, x) scores such a model."
        )
    return _Sites(
        [*latent], z, [dim for name in z for dim in _dims(name, latent[name])], plate_depth(*traces)
    )


def _dims(name: str, site: Site) -> list[str]:
    """Names of the dims of one site, plates first."""
    plates = [size for size in site["fn"].batch_shape[:-1] if size > 1]
    index = product(*map(range, (*plates, *site["fn"].event_shape)))
    return [f"{name}[{', '.join(map(str, i))}]" if i else name for i in index]


def _again(context: tuple, rows: Tensor) -> tuple:
    """The contexts of some data; where data are more than contexts, the contexts start over."""
    num = max([len(c) for c in context if isinstance(c, Tensor) and c.dim() > 0], default=1)
    return take_rows(context, rows % num)


def _statistics(
    model: Callable, guide: Callable, context: tuple, num: int, sites: _Sites, num_draws: int
) -> tuple[Tensor, Tensor, float]:
    """Statistics of the draws `(L, N, S)` and of the truth `(N, S)`, float64, and the precision of the programs."""
    x, truth = simulated(model, num, context, sites.latent, sites.depth)
    particles = draw(model, guide, x, *context, num=num_draws, depth=sites.depth)
    drawn = latent_sites(particles.guide_trace)
    z, z_true = (
        _joined([draws_of(drawn[n]) for n in sites.z], 2),
        _joined([truth[n] for n in sites.z], 1),
    )
    log_p, log_p_true = particles.log_joint, log_joint(model, (x, *context), truth, sites.depth)
    precision = max(torch.finfo(v.dtype).eps for v in particles.log_p.values())
    return _with(z, log_p), _with(z_true, log_p_true), precision


def _joined(values: list[Tensor], start: int) -> Tensor:
    """All sites as one vector, behind the dims of draws and data."""
    return torch.cat([v.reshape(*v.shape[:start], -1).double() for v in values], -1)


def _with(z: Tensor, log_p: Tensor) -> Tensor:
    return torch.cat([z, log_p[..., None], z.norm(dim=-1, keepdim=True)], -1)


def _ranks(draws: Tensor, truth: Tensor, precision: float) -> Tensor:
    """How many draws `(L, N, S)` lie below the truth `(N, S)`; a tie is below with a place drawn at random."""
    margin = 32 * precision * truth.abs()  # equal up to rounding is equal: discrete latents tie
    below = (draws < truth - margin).sum(0)
    tied = (draws <= truth + margin).sum(0) - below
    return below + (torch.rand_like(truth) * (tied + 1)).long()
