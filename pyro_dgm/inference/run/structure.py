"""What one run of a pair shows: its sites by kind, its plates, what is exact; and a preflight that refuses the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

import pyro
from pyro import poutine
from pyro.distributions import Unit
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ...contract import DATA, PyroProgram, Site, noise_name
from ...tabular import Tabular
from ..data.batches import read_arguments
from ..data.tensors import Batch, extreme_batch, has_rows, split_rows
from ..process.states import eval_mode, fork_rng
from .explain import explanation, run_or_explain
from .measures import Measure, measure_of, point_sites
from .pair_checks import PROGRAM_OF, check_pair, describe
from .rules import RULES, Rule, Subject, check_sites
from .supports import innermost, is_elementwise
from .traces import PairTrace, depth_of, is_in_plate, plate_names, sample_sites, sites_of

BLOCK = 10_000  # data that a check of all of them sees at once


class Kind(StrEnum):
    """What a site is to an estimate."""

    LATENT = "latent"  # one log weight per datum
    NOISE = "dequantization noise"  # a latent that belongs to the data
    GLOBAL = "global latent"  # outside the data plate
    OBSERVED = "observed"
    FACTOR = "factor"  # a term of the joint density that scores no data


@dataclass(frozen=True)
class SiteInfo:
    """What is known of one site.

    Attributes:
        name: of the site.
        kind: latent, noise, global or observed.
        plates: names of the plates around it, outermost first.
        event_shape: of its distribution.
        distribution: its name, in the model where the model has the site.
    """

    name: str
    kind: Kind
    plates: tuple[str, ...]
    event_shape: tuple[int, ...]
    distribution: str

    @classmethod
    def of(cls, name: str, site: Site, kind: Kind) -> SiteInfo:
        """What a trace says of a site."""
        event_shape = tuple(site["fn"].event_shape)
        family = type(innermost(site["fn"])).__name__
        return cls(name, kind, tuple(plate_names(site)), event_shape, family)


@dataclass(frozen=True)
class Structure(Tabular):
    """What one run of a pair, or of one program, shows.

    Attributes:
        depth: number of plates, the data plate included.
        sites: the latent sites in the guide's order, then the observed ones.
        table: Pyro's table of the model's site shapes.
        measure: what p(x) is: a mass, a density, a joint density at a point.
        points: latent sites at which the guide is a point mass.
    """

    depth: int
    sites: tuple[SiteInfo, ...]
    table: str
    measure: Measure = Measure.UNSTATED
    points: tuple[str, ...] = ()

    @classmethod
    def of(cls, pair: PairTrace) -> Structure:
        """What one run of a pair shows."""
        noise, observed = [], []
        for name, site in pair.observed.items():
            noise.append(noise_name(name))
            observed.append(SiteInfo.of(name, site, Kind.OBSERVED))
        latent = []
        for name, drawn in pair.latent.items():
            site = pair.modelled.get(name, drawn)
            kind = Kind.NOISE if name in noise else Kind.LATENT
            if not is_in_plate(site, DATA):
                kind = Kind.GLOBAL
            latent.append(SiteInfo.of(name, site, kind))
        points = point_sites(pair.guide_sites, pair.model_sites)
        measure = measure_of(pair.model_sites, points)
        sites = (*latent, *observed)
        return cls(pair.depth, sites, pair.model.format_shapes(), measure, points)

    @cached_property
    def latent(self) -> tuple[str, ...]:
        """Names of all sites that are drawn, in the guide's order."""
        return self._names(Kind.LATENT, Kind.NOISE, Kind.GLOBAL)

    @cached_property
    def codes(self) -> tuple[str, ...]:
        """Names of the latent sites that make up z: all but the noise of discrete sites, which belongs to the data."""
        return self._names(Kind.LATENT, Kind.GLOBAL)

    @cached_property
    def observed(self) -> tuple[str, ...]:
        """Names of the observed sites."""
        return self._names(Kind.OBSERVED)

    def _names(self, *kinds: Kind) -> tuple[str, ...]:
        return tuple([site.name for site in self.sites if site.kind in kinds])

    @property
    def is_exact(self) -> bool:
        """Whether log p(x) needs no guide: nothing is integrated out."""
        return not self.latent

    def columns(self) -> dict[str, list[Any]]:
        """One row per site."""
        return {
            "site": [site.name for site in self.sites],
            "kind": [site.kind.value for site in self.sites],
            "plates": [", ".join(site.plates) for site in self.sites],
            "event_shape": [site.event_shape for site in self.sites],
            "distribution": [site.distribution for site in self.sites],
        }

    def __str__(self) -> str:
        exact = (
            "log p(x) is exact"
            if self.is_exact
            else "log p(x) takes an integral over the latent sites"
        )
        return (
            f"latent {list(self.latent)}, observed {list(self.observed)}, plate depth {self.depth}; {exact}"
            f"\n{self.table}"
        )


def preflight(
    model: PyroProgram,
    guide: PyroProgram,
    *batch: Any,
    size: int | None = None,
    rules: Sequence[Rule] = RULES,
) -> Structure:
    """Run the pair once with validation on and check it against the contract; weights and seeds stay as they are.

    Args:
        model: any Pyro program.
        guide: its guide, with the same arguments.
        batch: the arguments, observation first.
        size: number of data that the objective divides by; `None` for the size of the batch.
        rules: what is checked; default: the whole contract.

    Raises:
        ValueError: with the site, what was expected, what came and the fix, for: empty, NaN or infinite data; a program
            that fails; a site outside the data plate; different latent sites; a wrong event or batch shape; observed
            values outside the support; a Delta observation; a plate size that the objective does not know; networks
            that do not broadcast over particles; draws of the guide outside the model's support.
    """
    check_pair(model, guide)
    batch = read_arguments(model, batch)
    with fork_rng(*batch), eval_mode(model, guide), pyro.validation_enabled(True):
        pair = run_or_explain(model, guide, batch)
        try:
            for rule in rules:
                rule(Subject(pair, model, guide, batch, size))
        except ValueError as error:
            raise ValueError(
                f"{error}\n\nSites of the model:\n{pair.model.format_shapes()}"
            ) from error
        return Structure.of(pair)


def structure_of(model: PyroProgram, guide: PyroProgram, batch: Batch) -> Structure:
    """The structure of a pair, found by a run on its most extreme data, which must all have a density.

    All data are looked at where a support is one of whole events, such as the simplex. It draws from the random state.
    """
    pair = run_or_explain(model, guide, extreme_batch(batch), given=batch)
    check_sites(pair)
    for site in pair.observed.values():
        if not is_elementwise(site):
            for block in split_rows(batch, BLOCK):
                check_sites(run_or_explain(model, guide, block))
            break
    return Structure.of(pair)


def structure_of_guide(guide: PyroProgram, batch: Batch) -> Structure:
    """The structure of a guide alone."""
    trace = _run_alone(guide, extreme_batch(batch), None, given=batch)
    _refuse_network(guide, trace)
    return _structure_of_one(trace)


def _refuse_network(guide: PyroProgram, trace: Trace) -> None:
    """Refuse what returns a tensor and names no site: a guide of a model without latents returns nothing."""
    if not dict(sample_sites(trace)) and isinstance(trace.nodes["_RETURN"]["value"], Tensor):
        raise TypeError(
            f"guide: expected a program that draws its latents by pyro.sample, got {describe(guide)}, "
            f"which draws none and returns a tensor. Fix: {PROGRAM_OF['guide']}."
        )


def structure_of_model(model: PyroProgram, batch: Batch) -> Structure:
    """The structure of a model alone, on data or, with `None` in their place, on its own draws."""
    some = extreme_batch(batch) if has_rows(batch[0]) else batch
    return _structure_of_one(_run_alone(model, some, model, given=batch))


def _run_alone(
    program: PyroProgram, batch: Batch, model: PyroProgram | None, given: Batch
) -> Trace:
    def run(arguments: Batch) -> Trace:
        return poutine.trace(program).get_trace(*arguments)

    try:
        return run(batch)
    except Exception as error:  # whatever a user's program raises
        raise explanation(error, run, batch, model=model, given=given) from error


def _structure_of_one(trace: Trace) -> Structure:
    sites = []
    for name, site in sample_sites(trace):
        kind = Kind.LATENT
        if site["is_observed"]:
            kind = Kind.FACTOR if isinstance(innermost(site["fn"]), Unit) else Kind.OBSERVED
        sites.append(SiteInfo.of(name, site, kind))
    found = sites_of(trace)
    table = trace.format_shapes()
    return Structure(depth_of(*found.values()), tuple(sites), table, measure_of(found))
