"""What one run of a pair shows: its sites by kind, its plates, what is exact; and a preflight that refuses the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pyro

from ...contract import DATA, PyroProgram, Site
from ...display.tabular import Tabular
from ..adoption.plates import prepare
from ..adoption.programs import as_module
from ..data.extremes import extreme_batch
from ..data.reading import read_arguments
from ..data.tensors import Batch, split_rows
from ..process.states import eval_mode, fork_rng
from ..sites.described import SiteInfo, infos_of, latent_infos
from ..sites.kinds import Kind
from ..sites.measures import Measure, measure_of, point_sites
from ..sites.supports import is_elementwise
from ..vectorization.counting import num_rows, plate_of
from ..vectorization.modes import Meaning, ParticleMode, meaning_of, takes_all_data
from .explain import run_or_explain
from .pair_checks import check_pair
from .rules import RULES, Rule, Subject, check_sites
from .traces import (
    PairTrace,
    shared_sites,
)

DRAWN = (Kind.LATENT, Kind.ENUMERATED, Kind.GLOBAL, Kind.NOISE, Kind.AUXILIARY, Kind.SUMMED)
BLOCK = 10_000  # data that a check of all of them sees at once


@dataclass(frozen=True)
class Structure(Tabular):
    """What one run of a pair, or of one program, shows.

    Attributes:
        depth: number of plates, the data plate included.
        sites: the latent sites in the guide's order, then the observed ones, factors, and deterministic values.
        table: Pyro's table of the model's site shapes.
        particles: how several draws of a datum are run, so that the networks mean what they mean on one.
        mixes_data: whether the network mixes the data of a batch, so that no number of one datum exists.
        fixed_size: whether the data plate is of a fixed size, so that all data are taken at once.
        measure: what p(x) is: a mass, a density, a joint density at a point.
        points: latent sites at which the guide is a point mass.
        shared: sites outside the data plate, which all data share: their log density is one of the whole set.
        full_size: number of data in the full set, where the data plate takes a minibatch of it.
        plate: the programs' own name for their data plate, where it is another than `"data"`.
    """

    depth: int
    sites: tuple[SiteInfo, ...]
    table: str
    particles: ParticleMode = ParticleMode.PLATE
    mixes_data: bool = False
    fixed_size: bool = False
    measure: Measure = Measure.UNSTATED
    points: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    full_size: int | None = None
    plate: str | None = None

    @classmethod
    def of(cls, pair: PairTrace) -> Structure:
        """What one run of a pair shows."""
        sites = (
            *latent_infos(pair),
            *infos_of(pair.observed, Kind.OBSERVED),
            *infos_of(pair.auxiliary, Kind.AUXILIARY),
            *infos_of(pair.summed, Kind.SUMMED),
            *infos_of(pair.factors, Kind.FACTOR),
            *infos_of(pair.guide_factors, Kind.GUIDE_FACTOR),
            *infos_of(pair.deterministic, Kind.DETERMINISTIC),
        )
        points = point_sites(pair.guide_sites, pair.model_sites)
        return cls(
            pair.depth,
            sites,
            pair.model.format_shapes(),
            measure=measure_of(pair.model_sites, points),
            points=points,
            shared=shared_sites(pair),
            full_size=full_size(pair.guide_sites) or full_size(pair.model_sites),
        )

    def meaning(self, found: Meaning) -> Structure:
        """The structure with what its networks make of particles and data."""
        return replace(self, particles=found.particles, mixes_data=found.mixes_data)

    @cached_property
    def latent(self) -> tuple[str, ...]:
        """Names of all sites that are drawn, in the guide's order."""
        return self._names(Kind.LATENT, Kind.ENUMERATED, Kind.NOISE, Kind.GLOBAL)

    @cached_property
    def codes(self) -> tuple[str, ...]:
        """Names of the latent sites that make up z: all but the noise of discrete sites, which belongs to the data."""
        return self._names(Kind.LATENT, Kind.ENUMERATED, Kind.GLOBAL)

    @cached_property
    def summed(self) -> tuple[str, ...]:
        """Names of the sites that training and weights sum over: those of the model alone, then the guide's."""
        return self._names(Kind.SUMMED, Kind.ENUMERATED)

    @cached_property
    def globals(self) -> tuple[str, ...]:
        """Names of the draws that all data share, auxiliary ones among them."""
        drawn = {site.name for site in self.sites if site.kind in DRAWN}
        return tuple([name for name in self.shared if name in drawn])

    @cached_property
    def observed(self) -> tuple[str, ...]:
        """Names of the observed sites."""
        return self._names(Kind.OBSERVED)

    @cached_property
    def factors(self) -> tuple[str, ...]:
        """Names of the model's factors, which are part of the joint density."""
        return self._names(Kind.FACTOR)

    @cached_property
    def deterministic(self) -> tuple[str, ...]:
        """Names of the values without a density."""
        return self._names(Kind.DETERMINISTIC)

    def _names(self, *kinds: Kind) -> tuple[str, ...]:
        return tuple([site.name for site in self.sites if site.kind in kinds])

    def takes_part(self, num: int | None) -> bool:
        """Whether the data plate itself takes a minibatch of the `num` data that the programs are given."""
        return self.full_size is not None and self.full_size == num

    @property
    def has_globals(self) -> bool:
        """Whether all data share a draw: then a log weight is one of the whole set, see `evidence`."""
        return bool(self.globals)

    @property
    def is_exact(self) -> bool:
        """Whether log p(x) needs no draw of the guide: nothing is integrated out, or all of it is summed over."""
        return set(self.latent) <= set(self.summed)

    def require_known_size(self, owner: str, fix: str) -> None:
        """Refuse minibatches where all data share a draw, and no plate says how many data there are.

        The cost of that draw is one of the full set, and would be counted once a batch.

        Raises:
            ValueError: if it is so.
        """
        if not self.has_globals or self.full_size is not None:
            return
        raise ValueError(
            f"{owner}: expected a data plate that knows the size of the full set, for all data share "
            f"{list(self.globals)}, got minibatches of a plate that does not: the cost of these sites would be "
            "counted once a batch. Fix: data_plate(x, size=N), or pyro.plate('data', size=N, "
            f"subsample_size=len(x)), in both programs; or {fix}."
        )

    def require_own_latents(self) -> None:
        """Refuse a draw that all data share, where something is asked of each datum's own.

        Raises:
            ValueError: if there is one.
        """
        if self.globals:
            name = self.globals[0]
            raise ValueError(
                f"site '{name}': expected a site inside the plate '{DATA}', got a global one, which is no datum's own. "
                f"Fix: pyro.sample('{name}', …) under `with data_plate(x):`; check(model, guide, x) looks at globals."
            )

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
        mixed = "; the network mixes the data of a batch: per-datum numbers do not exist"
        further = ""
        for kind in (
            Kind.GLOBAL,
            Kind.AUXILIARY,
            Kind.ENUMERATED,
            Kind.SUMMED,
            Kind.FACTOR,
            Kind.GUIDE_FACTOR,
            Kind.DETERMINISTIC,
        ):
            if self._names(kind):
                further += f"{kind.value} {list(self._names(kind))}, "
        return (
            f"latent {list(self.latent)}, observed {list(self.observed)}, {further}plate depth {self.depth}, "
            f"particles {self.particles.value}; {exact}{mixed if self.mixes_data else ''}\n{self.table}"
        )


def full_size(sites: dict[str, Site]) -> int | None:
    """Number of data in the full set, where the data plate takes a minibatch of it."""
    for site in sites.values():
        plate = plate_of(site)
        if plate is not None and plate.full_size not in (None, plate.size):
            return plate.full_size
    return None


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
            values outside the support; a Delta observation; a plate size that the objective does not know; draws of the
            guide outside the model's support.
    """
    model, guide = as_module(model), as_module(guide)
    check_pair(model, guide)
    batch = read_arguments(model, batch)
    with fork_rng(*batch), eval_mode(model, guide), pyro.validation_enabled(True):
        naming = prepare(model, guide, batch)
        model, guide = naming.adopt(model), naming.adopt(guide)
        pair = run_or_explain(model, guide, batch)
        try:
            for rule in rules:
                rule(Subject(pair, model, guide, batch, size))
        except ValueError as error:
            raise ValueError(
                f"{error}\n\nSites of the model:\n{pair.model.format_shapes()}"
            ) from error
        found = Structure.of(pair)
        whole = found.takes_part(num_rows(batch)) or takes_all_data(model, guide, batch)
        meaning = meaning_of(model, guide, batch, whole=whole)
        return replace(found, fixed_size=whole, plate=naming.plate).meaning(meaning)


def structure_of(model: PyroProgram, guide: PyroProgram, batch: Batch) -> Structure:
    """The structure of a pair, found by a run on its most extreme data, which must all have a density.

    All data are looked at where a support is one of whole events, such as the simplex. It draws from the random state.
    """
    if takes_all_data(model, guide, batch):
        pair = run_or_explain(model, guide, batch, given=batch)
        check_sites(pair)
        return replace(Structure.of(pair), fixed_size=True)
    try:
        pair = run_or_explain(model, guide, extreme_batch(batch), given=batch)
        check_sites(pair)
    except ValueError:
        of_all = _structure_of_all(model, guide, batch)
        if of_all is None:
            raise
        return of_all
    for site in pair.observed.values():
        if not is_elementwise(site):
            for block in split_rows(batch, BLOCK):
                check_sites(run_or_explain(model, guide, block))
            break
    return Structure.of(pair)


def _structure_of_all(model: PyroProgram, guide: PyroProgram, batch: Batch) -> Structure | None:
    """The structure of a pair with globals that are as many, or as large, as there are data; `None` if it is no such.

    A series has a latent for each time, a change point as many values as times: a few data are another program.
    """
    try:
        pair = run_or_explain(model, guide, batch)
        check_sites(pair)
    except ValueError:
        return None
    found = Structure.of(pair)
    return replace(found, fixed_size=True) if found.has_globals else None
