"""Do data of a density lie on levels? Then its likelihood has no upper bound, and is no probability of the data.

And does a mask hide a part of them? Then its likelihood is one of the rest.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pyro import poutine
from torch import Tensor

from ...contract import PyroProgram, Site
from ..data.tensors import Batch, take_rows
from ..process.states import fork_rng
from ..sites.kinds import is_deterministic
from ..sites.measures import Measure, hides_data, measure_of, measure_of_distribution
from .traces import observed_sites, sites_of

SAMPLE = 2**16  # numbers that are looked at for a grid
PER_BLOCK = 2**12  # of them from each block of data
MAX_LEVELS = 2**16  # of a grid: data of sixteen bits
DISTINCT = (
    0.9  # share of continuous numbers that are met once, at least; a grid of points has all of them
)
LOOKED_AT = 1000  # data of a set in memory
TOLERANCE = 0.02  # of a step of the grid, beyond which a number does not lie on it


class LevelSearch:
    """Whether all continuous data are integers, or lie on one grid, and whether a mask hides some; block by block."""

    def __init__(self) -> None:
        self.are_integers = True
        self.sample: list[Tensor] = []
        self.num = 0
        self.is_masked = False

    def add(self, observed: Mapping[str, Site]) -> None:
        """Note the data of a block, as the model's observed sites have them."""
        for site in observed.values():
            if is_deterministic(site):
                continue
            self.is_masked = self.is_masked or hides_data(site)
            if measure_of_distribution(site["fn"]) is Measure.DENSITY:
                self.add_values(site["value"])

    def add_values(self, value: Tensor) -> None:
        """Note the data of one continuous site."""
        if not value.numel():
            return
        if value.is_floating_point():
            self.are_integers = self.are_integers and bool((value == value.round()).all())
        if self.num < SAMPLE:
            flat = value.detach().flatten()
            spread = torch.linspace(
                0, len(flat) - 1, min(PER_BLOCK, len(flat)), dtype=torch.float64
            )
            self.sample.append(flat[spread.round().long().to(flat.device)].double().cpu())
            self.num += len(spread)

    def take_in(self, other: LevelSearch) -> None:
        """Note the data of another search."""
        self.are_integers = self.are_integers and other.are_integers
        self.is_masked = self.is_masked or other.is_masked
        self.sample += other.sample
        self.num += other.num

    @property
    def found(self) -> bool:
        """Whether the data lie on levels; a single number that all of them repeat tells nothing."""
        if not self.sample:
            return False
        values = torch.cat(self.sample).unique()
        if len(values) < 2:
            return False
        return self.are_integers or (len(values) <= DISTINCT * self.num and _is_grid(values))

    def refine(self, measure: Measure) -> Measure:
        """The measure, with the data looked at: a density may be one on levels, and all may be masked."""
        if self.is_masked:
            return measure.masked
        return Measure.ON_LEVELS if measure is Measure.DENSITY and self.found else measure


def measure_of_data(model: PyroProgram, batch: Batch) -> Measure:
    """What p(x) of a model is at some data, of which a part is looked at: a density may be one of data on levels."""
    search = LevelSearch()
    rows = take_rows(batch, slice(LOOKED_AT))
    with fork_rng(*rows):
        trace = poutine.trace(model).get_trace(*rows)
    search.add(observed_sites(trace))
    return search.refine(measure_of(sites_of(trace)))


def _is_grid(values: Tensor) -> bool:
    """Whether ascending numbers lie at equal distances, with gaps; those that differ by rounding alone are one."""
    offset = values - values[0]
    extent = offset[-1]
    gaps = offset.diff()
    step = gaps[gaps > extent / (2 * MAX_LEVELS)].min()
    num_steps = (extent / step).round()
    if num_steps > MAX_LEVELS:
        return False
    places = offset / (extent / num_steps)
    return bool(((places - places.round()).abs() < TOLERANCE).all())
