r"""Importance draws of $p(z \mid x_b)$ from a guide that knows whole data alone: a mixture over ways to fill them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import log

import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ...contract import DATA, PARTICLES
from ...inference.run.data import repeat_rows
from ...inference.run.generation import mean_of
from ...inference.run.particles import per_datum
from ...inference.run.rules import check_sites
from ...inference.run.traces import (
    Site,
    latent_sites,
    observed_sites,
    plate_names,
    plate_value,
    run_pair,
    sample_sites,
    vectorized,
)
from ..chains.coordinates import Values
from .marginal import Marginal, Unmasked


@dataclass(frozen=True)
class Weighed:
    r"""Draws $z^{(k)}_i$ with weights $w^{(k)}_i = p(x_b, z) / m(z)$, whose mean is $p(x_b)$.

    Attributes:
        values: latent site → draws `(K, *plates, N, *event)`.
        log_weight: $\log w$ `(K, N)`, float64.
        kl: $\log m(z) - \log p(z)$ `(K, N)`, float64.
        site: the site that observes x, with the law $p(x \mid z^{(k)}_i)$.
    """

    values: Values
    log_weight: Tensor
    kl: Tensor
    site: Site


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

    def weighed(self, block: tuple) -> Weighed:
        """K weighed draws for each datum of a block of arguments."""
        filled = self._filled(block)
        values = self._drawn(block, filled)
        trace = self._at(self.model, values, block, self.size)
        log_p = {name: per_datum(name, site) for name, site in sample_sites(trace)}
        log_joint, log_prior = _total(log_p.values()), _total(log_p[name] for name in values)
        log_q = [_total(self._log_guide(values, whole)) for whole in filled]
        log_m = torch.stack(torch.broadcast_tensors(log_prior, *log_q)).logsumexp(0) - log(
            self.fills + 1
        )
        return Weighed(
            values,
            log_joint - log_m,
            (log_m - log_prior).expand_as(log_joint),
            site_of(trace, block[0]),
        )

    def imputed(self, weighed: Weighed, block: tuple, num: int) -> tuple[Tensor, Tensor]:
        """`num` draws of x `(num, N, *event)` from latents resampled by weight, and its mean `(N, *event)`."""
        x, observed, weight = block[0], block[-1], weighed.log_weight.softmax(0)
        index = weight.T.multinomial(num, replacement=True).T
        values = {name: self._picked(z, index) for name, z in weighed.values.items()}
        drawn = redrawn(self._at(self.model, values, block, num), x)
        each = plate_value(weighed.site, mean_of(weighed.site["name"], weighed.site["fn"]))
        mean = (weight.reshape(*weight.shape, *[1] * (each.dim() - 2)) * each).sum(0)  # in float64
        return torch.where(observed, x, drawn), torch.where(observed, x, mean)

    def _picked(self, z: Tensor, index: Tensor) -> Tensor:
        """The draws `(num, *plates, N, *event)` of given numbers `(num, N)`."""
        rows = torch.arange(index.shape[1], device=index.device)
        return z.movedim(self.depth, 1)[index, rows].movedim(1, self.depth)

    def _at(self, program: Callable, values: Values, block: tuple, num: int) -> Trace:
        """A run of `num` particles of a program at given latents."""
        return poutine.trace(
            vectorized(poutine.condition(program, data=values), num, self.depth)
        ).get_trace(*block)

    def _log_guide(self, values: Values, block: tuple) -> list[Tensor]:
        trace = self._at(self.guide, values, block, self.size)
        return [per_datum(name, site) for name, site in sample_sites(trace)]

    def _filled(self, block: tuple) -> list[tuple]:
        """The block J times, the missing dims of each filled by a walk of its own."""
        x, *rest = (repeat_rows(argument, self.fills) for argument in block)
        trace = poutine.trace(self.model).get_trace(x, *rest)
        for _ in range(self.sweeps):
            x = torch.where(rest[-1], x, redrawn(trace, x))
            pair = run_pair(self.model, self.guide, (x, *rest))
            check_sites(pair)
            trace = pair.model
        x = torch.where(rest[-1], x, redrawn(trace, x))
        return [(whole, *block[1:]) for whole in x.chunk(self.fills)]

    def _drawn(self, block: tuple, filled: list[tuple]) -> Values:
        """Draws of all components, one component after the other along the first dim."""
        runs = [(self.model, block), *((self.guide, whole) for whole in filled)]
        traces = [
            poutine.trace(vectorized(program, self.num, self.depth)).get_trace(*b)
            for program, b in runs
        ]
        drawn = [
            {name: site["value"] for name, site in latent_sites(trace).items()} for trace in traces
        ]
        return {name: torch.cat([values[name] for values in drawn]) for name in drawn[0]}


def site_of(trace: Trace, x: Tensor) -> Site:
    """The site that observes x.

    Raises:
        ValueError: if there is none.
    """
    for site in observed_sites(trace).values():
        if site["value"] is x and set(plate_names(site)) <= {PARTICLES, DATA}:
            return site
    raise ValueError(
        f"model: expected a site that observes the first argument as it is, inside the plate '{DATA}' alone, got sites "
        f"{[*observed_sites(trace)]} of other values. Fix: pyro.sample('x', …, obs=x), x transformed beforehand."
    )


def redrawn(trace: Trace, x: Tensor) -> Tensor:
    r"""A draw of $p(x \mid z)$ at the latents of a run, in the dtype of x.

    Raises:
        ValueError: if x holds integers and its law has a density.
    """
    site = site_of(trace, x)
    if not (x.is_floating_point() or site["fn"].support.is_discrete):
        raise ValueError(
            f"site '{site['name']}': expected floating point data of a law with a density, got {x.dtype}. "
            "Fix: x.float()."
        )
    return plate_value(site, site["fn"].sample()).to(x.dtype)


def _total(log_densities: Iterable[Tensor]) -> Tensor:
    """Their sum in float64; 0 of none."""
    return sum((v.double() for v in log_densities), torch.zeros((), dtype=torch.float64))
