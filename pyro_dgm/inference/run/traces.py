"""The one road from a pair of programs to log densities: guide once, model replayed against it once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import pyro
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine.trace_struct import Trace
from torch import Tensor
from torch.distributions import Independent

from ...contract import DATA, PARTICLES, PyroProgram, Site
from ...densities.scoring import log_prob_of
from ..process.ambient import TURN
from ..sites.kinds import (
    is_auxiliary,
    is_data,
    is_deterministic,
    is_drawn,
    is_factor,
    is_subsample,
    is_summable,
    plate_scale,
)
from ..vectorization.counting import CountedData
from .own_pass import precise, precise_draws


@dataclass(frozen=True, eq=False)
class PairTrace:
    """One run of a pair: the guide's trace, and that of the model replayed against it. It unpacks to the two.

    Attributes:
        guide: trace of the guide.
        model: trace of the model, whose latent sites have the guide's values.
    """

    guide: Trace
    model: Trace

    @cached_property
    def guide_sites(self) -> dict[str, Site]:
        """The guide's sample statements by name."""
        return sites_of(self.guide)

    @cached_property
    def model_sites(self) -> dict[str, Site]:
        """The model's sample statements by name."""
        return sites_of(self.model)

    @cached_property
    def latent(self) -> dict[str, Site]:
        """The guide's draws of the model's sites, in its order."""
        drawn = _of_kind(self.guide_sites, is_drawn)
        return {n: s for n, s in drawn.items() if n not in self.auxiliary}

    @cached_property
    def auxiliary(self) -> dict[str, Site]:
        """The guide's draws that the model's sites are functions of: AutoGuides have them, and score them."""
        sites = self.guide_sites.items()
        return {n: s for n, s in sites if is_auxiliary(s) and n not in self.model_sites}

    @cached_property
    def scored(self) -> dict[str, Site]:
        """All the guide's draws, the auxiliary ones among them: the sites of its density."""
        return _of_kind(self.guide_sites, is_drawn)

    @cached_property
    def modelled(self) -> dict[str, Site]:
        """The model's sites that are drawn: the prior of `latent`."""
        drawn = _of_kind(self.model_sites, is_drawn)
        return {n: s for n, s in drawn.items() if n not in self.summed}

    @cached_property
    def summed(self) -> dict[str, Site]:
        """The model's discrete sites that are summed over: they say so, and no guide draws them."""
        sites = _of_kind(self.model_sites, is_summable)
        return {n: s for n, s in sites.items() if n not in self.guide_sites}

    @cached_property
    def enumerated(self) -> dict[str, Site]:
        """The guide's draws that it can be run over all values of: weights and training losses sum over them."""
        return _of_kind(self.latent, is_summable)

    @cached_property
    def observed(self) -> dict[str, Site]:
        """The model's sites that are conditioned on data."""
        return _of_kind(self.model_sites, is_data)

    @cached_property
    def factors(self) -> dict[str, Site]:
        """The model's factors, which are part of the joint density."""
        return _of_kind(self.model_sites, is_factor)

    @cached_property
    def joint(self) -> dict[str, Site]:
        """The model's sites that have a density: all but the deterministic ones."""
        return {n: s for n, s in self.model_sites.items() if not is_deterministic(s)}

    @cached_property
    def trained(self) -> dict[str, Site]:
        """What the guide scores beside its draws, mostly factors: part of a training loss, and of no estimate.

        The model's own observed sites, which a guide that runs the model shows as well, are none of it.
        """
        sites = {n: s for n, s in self.guide_sites.items() if n not in self.observed}
        return {n: s for n, s in sites.items() if not is_drawn(s) and not is_deterministic(s)}

    @cached_property
    def guide_factors(self) -> dict[str, Site]:
        """The guide's factors, which are part of a training loss alone."""
        return _of_kind(self.trained, is_factor)

    @cached_property
    def deterministic(self) -> dict[str, Site]:
        """The named values of both programs that have no density, the guide's first."""
        of_guide = _of_kind(self.guide_sites, is_deterministic)
        return of_guide | _of_kind(self.model_sites, is_deterministic)

    @cached_property
    def depth(self) -> int:
        """How many dims the plates take, the data plate included."""
        return depth_of(*self.guide_sites.values(), *self.model_sites.values())

    def __iter__(self) -> Iterator[Trace]:
        return iter((self.guide, self.model))


def run_pair(
    model: PyroProgram,
    guide: PyroProgram,
    batch: tuple[Any, ...],
    num: int | None = None,
    depth: int = 1,
) -> PairTrace:
    """Trace the guide once and the model replayed against it once, while other threads wait.

    Args:
        model: a Pyro program.
        guide: a Pyro program with the same arguments.
        batch: their arguments.
        num: number of particles in an outermost plate; `None` for no such plate.
        depth: number of plates of the programs; the particles take the next dim to the left.
    """
    with TURN.taken():
        drawing = precise_draws(vectorized(guide, num, depth))
        guide_trace = poutine.trace(drawing).get_trace(*batch)
        replayed = poutine.replay(vectorized(model, num, depth), trace=guide_trace)
        return PairTrace(guide_trace, poutine.trace(precise(replayed)).get_trace(*batch))


def vectorized(program: PyroProgram, num: int | None, depth: int) -> PyroProgram:
    """The program inside a plate of `num` particles, one dim to the left of its own plates.

    As many data come out of it as go in, or it is refused.
    """
    if num is None:
        return program

    def inside(*batch: Any) -> Any:
        with pyro.plate(PARTICLES, num, dim=-(depth + 1)), CountedData(batch):
            return program(*batch)

    return inside


def sites_of(trace: Trace) -> dict[str, Site]:
    """The sample statements of a trace by name, without the index sites of plates."""
    sites = {}
    for name, site in trace.nodes.items():
        if site["type"] == "sample" and not is_subsample(site):
            sites[name] = cast(Site, site)
    return sites


def latent_sites(trace: Trace) -> dict[str, Site]:
    """The sites of a trace that are drawn."""
    return _of_kind(sites_of(trace), is_drawn)


def observed_sites(trace: Trace) -> dict[str, Site]:
    """The sites of a trace that are conditioned on data; factors and deterministic values are none."""
    return _of_kind(sites_of(trace), is_data)


def scored_sites(trace: Trace) -> dict[str, Site]:
    """The sites of a trace that have a density: all but the deterministic ones."""
    return {n: site for n, site in sites_of(trace).items() if not is_deterministic(site)}


def _of_kind(sites: dict[str, Site], is_kind: Callable[[Site], bool]) -> dict[str, Site]:
    return {name: site for name, site in sites.items() if is_kind(site)}


def log_density(site: Site) -> Tensor:
    """Log density of a site's value, masked, never scaled: estimates do not see N/B or a temperature.

    In float32 or better, for values of any dtype; see `log_prob_of`.
    """
    log_p = log_prob_of(site["fn"], site["value"], *site["args"], **site["kwargs"])
    return scale_and_mask(log_p, mask=site["mask"])


def plate_depth(*traces: Trace) -> int:
    """How many dims the plates of the traces take, the data plate included."""
    sites: list[Site] = []
    for trace in traces:
        sites += sites_of(trace).values()
    return depth_of(*sites)


def depth_of(*sites: Site) -> int:
    """How many dims the plates around the sites take, the data plate included."""
    depth = 1
    for site in sites:
        for frame in site["cond_indep_stack"]:
            if frame.vectorized:
                depth = max(depth, -frame.dim)
    return depth


def is_in_plate(site: Site, name: str) -> bool:
    """Whether a site lies in the plate of a name."""
    for frame in site["cond_indep_stack"]:
        if frame.name == name and frame.vectorized:
            return True
    return False


def shared_sites(pair: PairTrace) -> tuple[str, ...]:
    """Names of the sites with a density that lie outside the data plate: all data share them."""
    names = []
    for name, site in (pair.scored | pair.joint).items():
        if not is_in_plate(site, DATA):
            names.append(name)
    return tuple(names)


def plate_names(site: Site) -> list[str]:
    """Names of the plates around a site, outermost dim first."""
    by_dim = {}
    for frame in site["cond_indep_stack"]:
        if frame.vectorized:
            by_dim[frame.dim] = frame.name
    return [by_dim[dim] for dim in sorted(by_dim)]


def plate_value(site: Site, value: Tensor | None = None) -> Tensor:
    """A site's value `(*plates, *event)`: dims of size 1 that belong to no plate of the site are dropped."""
    value = site["value"] if value is None else value
    num_batch = value.dim() - len(site["fn"].event_shape)
    without_plate = set(range(num_batch))
    for frame in site["cond_indep_stack"]:
        if frame.vectorized:
            without_plate.discard(num_batch + frame.dim)
    return value.squeeze(tuple(without_plate))


def scaled_sum(site: Site, log_p: Tensor, keep: int = 0) -> Tensor:
    """Sum of a log density times the site's scale, such as N/B of a plate; the last dims may be kept."""
    scale = site["scale"]
    if not (isinstance(scale, float) and scale == 1.0):
        log_p = scale_and_mask(log_p, scale=scale)
    return log_p.sum_to_size(log_p.shape[log_p.dim() - keep :])


def plate_scaled_sum(site: Site, log_p: Tensor, keep: int = 0) -> Tensor:
    """`scaled_sum` with N/B of the plates alone: what the program itself scales its density by is left out."""
    scale = plate_scale(site)
    if scale != 1.0:
        log_p = log_p * scale
    return log_p.sum_to_size(log_p.shape[log_p.dim() - keep :])


def each_dim(name: str, site: Site) -> Site:
    r"""A site with $p(z) = \prod_j p(z_j)$ as one of numbers $z_j$: its log densities are `(*plates, *event)`."""
    distribution = site["fn"]
    if not isinstance(distribution, Independent) or distribution.base_dist.event_shape:
        raise ValueError(
            f"site '{name}': expected distributions whose dims are independent, "
            "Conditional(dist.Normal, net) in the guide and StandardNormal(D) in the model, got "
            f"{distribution}, which has no density of one dim. "
            f"Fix: a number of free bits for the whole site, free_bits={{'{name}': 2.0}}."
        )
    index = (..., *[None] * len(distribution.event_shape))
    site = site.copy()
    site["fn"] = distribution.base_dist
    if isinstance(site["scale"], Tensor):
        site["scale"] = site["scale"][index]
    if isinstance(site["mask"], Tensor):
        site["mask"] = site["mask"][index]
    return site
