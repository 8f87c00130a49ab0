r"""Importance draws of $p(z \mid x_b)$ from a guide that knows whole data alone: a mixture over ways to fill them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import log

import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ...contract import DATA, PARTICLES, PyroProgram, Site
from ...inference.data.tensors import Batch, repeat_rows
from ...inference.drawing.observation import mean_of
from ...inference.run.rules import check_sites
from ...inference.run.shares import per_datum
from ...inference.run.traces import (
    latent_sites,
    observed_sites,
    plate_names,
    plate_value,
    run_pair,
    scored_sites,
    vectorized,
)
from ..chains.points import Values
from .marginal import Marginal, Unmasked


@dataclass(frozen=True)
class WeightedDraws:
    r"""Draws $z^{(k)}_i$ with weights $w^{(k)}_i = p(x_b, z) / m(z)$, whose mean is $p(x_b)$.

    Attributes:
        values: latent site → draws `(K, *plates, N, *event)`.
        log_weight: $\log w$ `(K, N)`, float64.
        kl: $\log m(z) - \log p(z)$ `(K, N)`, float64.
        site: the site that observes x, with the distribution $p(x \mid z^{(k)}_i)$.
    """

    values: Values
    log_weight: Tensor
    kl: Tensor
    site: Site

    @property
    def weight(self) -> Tensor:
        """The weights `(K, N)`, normalized over the draws."""
        return self.log_weight.softmax(0)


@dataclass(frozen=True)
class FillingMixture:
    r"""$m(z) = \frac{1}{J + 1} (p(z) + \sum_j q(z \mid x_b, x_a^{(j)}))$ for each datum, filled J times.

    One fill $x_a$ would not do: $q(z \mid x)$ is sharper than $p(z \mid x_b)$, which spreads over all that $x_a$ may
    be. A fill is the end of a pseudo-Gibbs walk, $z \sim q(z \mid x_b, x_a)$ and $x_a \sim p(x_a \mid z)$ in turns,
    from a draw of $p(x_a)$. Each component draws alike and each draw is weighed against the whole mixture (the balance
    heuristic), so that the weights are unbiased wherever the walks end; the prior in it bounds them by
    $(J + 1)\, p(x_b \mid z)$.

    Args:
        model: of the observed dims.
        guide: with the same arguments.
        num: draws of each component.
        fills: number J.
        sweeps: turns of each walk.
        depth: number of plates of the programs.

    References:
        Rezende, Mohamed, Wierstra 2014, arXiv:1401.4082 (the walk, appendix F); Veach, Guibas 1995, *Optimally
        combining sampling techniques for Monte Carlo rendering*; Hesterberg 1995, *Weighted average importance sampling
        and defensive mixture distributions*.
    """

    model: Marginal
    guide: Unmasked
    num: int
    fills: int
    sweeps: int
    depth: int

    @property
    def size(self) -> int:
        """Number K of draws for each datum."""
        return self.num * (self.fills + 1)

    def draw(self, block: Batch) -> WeightedDraws:
        """K weighted draws of z for each datum of a block of arguments."""
        filled = self._fill(block)
        values = self._draw_components(block, filled)
        trace = self._run_at(self.model, values, block, self.size)
        log_p = _log_densities(trace)
        log_joint = _sum(log_p.values())
        log_prior = _sum([log_p[name] for name in values])
        log_mixture = self._log_mixture(values, log_prior, filled)
        kl = (log_mixture - log_prior).expand_as(log_joint)
        site = observation_site(trace, block[0])
        return WeightedDraws(values, log_joint - log_mixture, kl, site)

    def impute(self, draws: WeightedDraws, block: Batch, num: int) -> Tensor:
        r"""$x_a \sim p(x_a \mid x_b)$ `(num, N, *event)` from latents resampled by weight; the dims b as they are."""
        x, observed = block[0], block[-1]
        index = draws.weight.T.multinomial(num, replacement=True).T
        values = {name: self._take_draws(z, index) for name, z in draws.values.items()}
        trace = self._run_at(self.model, values, block, num)
        return _redraw_missing(trace, x, observed)

    def impute_mean(self, draws: WeightedDraws, block: Batch) -> Tensor:
        r"""$E[x_a \mid x_b]$ `(N, *event)`, the weighted mean of $E[x_a \mid z]$; the dims b as they are.

        Raises:
            NotImplementedError: if the observation has no mean.
        """
        x, observed = block[0], block[-1]
        site = draws.site
        mean_given_z = plate_value(site, mean_of(site["name"], site["fn"]))
        weight = draws.weight
        while weight.dim() < mean_given_z.dim():
            weight = weight[..., None]
        mean = (weight * mean_given_z).sum(0)  # in float64, as the weights
        return torch.where(observed, x, mean)

    def _fill(self, block: Batch) -> list[Batch]:
        """The block J times, the missing dims of each filled by a walk of its own."""
        x, *rest = [repeat_rows(argument, self.fills) for argument in block]
        observed = rest[-1]
        trace = poutine.trace(self.model).get_trace(x, *rest)
        for _ in range(self.sweeps):
            x = _redraw_missing(trace, x, observed)
            pair = run_pair(self.model, self.guide, (x, *rest))
            check_sites(pair)
            trace = pair.model
        x = _redraw_missing(trace, x, observed)
        return [(x_of_fill, *block[1:]) for x_of_fill in x.chunk(self.fills)]

    def _draw_components(self, block: Batch, filled: Sequence[Batch]) -> Values:
        """Draws of all components, one component after the other along the first dim."""
        components = [self._draw_latents(self.model, block)]
        for filled_block in filled:
            components.append(self._draw_latents(self.guide, filled_block))
        values = {}
        for name in components[0]:
            values[name] = torch.cat([component[name] for component in components])
        return values

    def _draw_latents(self, program: PyroProgram, block: Batch) -> Values:
        particles = vectorized(program, self.num, self.depth)
        sites = latent_sites(poutine.trace(particles).get_trace(*block))
        return {name: site["value"] for name, site in sites.items()}

    def _log_mixture(self, values: Values, log_prior: Tensor, filled: Sequence[Batch]) -> Tensor:
        r"""$\log m(z)$ `(K, N)` of the draws of all components."""
        components = [log_prior]
        for block in filled:
            trace = self._run_at(self.guide, values, block, self.size)
            log_q = _log_densities(trace)
            components.append(_sum([log_q[name] for name in values]))
        stacked = torch.stack(torch.broadcast_tensors(*components))
        return stacked.logsumexp(0) - log(self.fills + 1)

    def _run_at(self, program: PyroProgram, values: Values, block: Batch, num: int) -> Trace:
        """A run of `num` particles of a program at given latents."""
        conditioned = poutine.condition(program, data=values)
        particles = vectorized(conditioned, num, self.depth)
        return poutine.trace(particles).get_trace(*block)

    def _take_draws(self, z: Tensor, index: Tensor) -> Tensor:
        """The draws `(num, *plates, N, *event)` of given numbers `(num, N)`."""
        rows = torch.arange(index.shape[1], device=index.device)
        data_second = z.movedim(self.depth, 1)
        return data_second[index, rows].movedim(1, self.depth)


def observation_site(trace: Trace, x: Tensor) -> Site:
    """The site that observes x.

    Raises:
        ValueError: if there is none.
    """
    sites = observed_sites(trace)
    for site in sites.values():
        if site["value"] is x and set(plate_names(site)) <= {PARTICLES, DATA}:
            return site
    raise ValueError(
        "model: expected a site that observes the first argument as it is, inside the plate "
        f"'{DATA}' alone, got sites {list(sites)} of other values. "
        "Fix: pyro.sample('x', …, obs=x), x transformed beforehand."
    )


def draw_observation(trace: Trace, x: Tensor) -> Tensor:
    r"""A draw of $p(x \mid z)$ at the latents of a run, in the dtype of x.

    Raises:
        ValueError: if x holds integers and its distribution has a density.
    """
    site = observation_site(trace, x)
    if not (x.is_floating_point() or site["fn"].support.is_discrete):
        raise ValueError(
            f"site '{site['name']}': expected floating point data of a distribution with a "
            f"density, got {x.dtype}. Fix: x.float()."
        )
    return plate_value(site, site["fn"].sample()).to(x.dtype)


def _redraw_missing(trace: Trace, x: Tensor, observed: Tensor) -> Tensor:
    return torch.where(observed, x, draw_observation(trace, x))


def _log_densities(trace: Trace) -> dict[str, Tensor]:
    """Site → log density `(K, N)`."""
    return {name: per_datum(name, site) for name, site in scored_sites(trace).items()}


def _sum(log_densities: Iterable[Tensor]) -> Tensor:
    """Their sum in float64; 0 of none."""
    total = torch.zeros((), dtype=torch.float64)
    for log_density in log_densities:
        total = total + log_density.double()
    return total
