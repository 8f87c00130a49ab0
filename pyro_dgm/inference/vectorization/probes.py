"""The same latents scored draw by draw, by plate, by rows and each datum alone: what a program's networks mean."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import cast

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ...contract import DATA, PyroProgram, Site
from ..data.tensors import Batch, has_rows, take_rows
from ..run.traces import depth_of, is_in_plate, latent_sites, log_density, sites_of, vectorized
from ..sites.kinds import is_deterministic
from ..sites.supports import innermost
from .counting import num_rows
from .rounding import Scores, agree, coarsest_rounding, nudge

NUM_PARTICLES = 2
NUM_ROWS = 3  # of the data that are looked at: other than the particles, so that dims can't be taken for each other
AMPLIFICATION = (
    32  # how much more than one rounding of z and x the rounding inside a network may do
)

Draw = dict[str, Tensor]  # latent site → value `(*plates, N, *event)`


def few_rows(batch: Batch) -> Batch:
    """The first few data, over again where there are fewer; what has no rows stays whole."""
    num = num_rows(batch)
    if num is None:
        return batch
    first = next(value for value in batch if has_rows(value))
    return take_rows(batch, torch.arange(NUM_ROWS, device=first.device) % num)


@dataclass(frozen=True)
class Probe:
    """A few data with `NUM_PARTICLES` draws each, scored draw by draw: what particles must mean.

    Attributes:
        programs: role → program.
        batch: the data.
        draws: of each run, latent site → value `(*plates, N, *event)`.
        num_event: latent site → number of its event dims.
        depth: number of plates.
        num_sites: number of sites of both programs.
        rounding: the coarsest relative error of a number.
        inside: the scores of sites inside the data plate.
    """

    programs: dict[str, PyroProgram]
    batch: Batch
    draws: list[Draw]
    num_event: dict[str, int]
    depth: int
    num_sites: int
    rounding: float
    inside: frozenset[tuple[str, str]]

    @classmethod
    def of(cls, model: PyroProgram | None, guide: PyroProgram | None, batch: Batch) -> Probe:
        """Draw; raises what the programs raise."""
        programs = {"guide": guide, "model": model}
        present = {role: program for role, program in programs.items() if program is not None}
        first = _traces(present, batch)
        sites: list[Site] = []
        inside = set()
        for role, trace in first.items():
            sites += sites_of(trace).values()
            inside |= {(role, n) for n, s in sites_of(trace).items() if is_in_plate(s, DATA)}
        num_event = {}
        for trace in first.values():
            for name, site in latent_sites(trace).items():
                num_event[name] = len(site["fn"].event_shape)
        runs = [first, *_further_runs(present, batch, first, set(num_event))]
        draws = [{name: _drawn(run, name) for name in num_event} for run in runs]
        rounding = coarsest_rounding(list(draws[0].values()), *present.values())
        return cls(
            present,
            batch,
            draws,
            num_event,
            depth=depth_of(*sites),
            num_sites=len(sites),
            rounding=rounding,
            inside=frozenset(inside),
        )

    @cached_property
    def truth(self) -> Scores:
        """The scores of the draws, each by a run of its own; raises what the programs raise."""
        return _one_by_one(self.programs, self.batch, self.draws, self.depth)

    @property
    def is_complete(self) -> bool:
        """Whether every site has a score."""
        return len(self.truth) == self.num_sites

    def scores(self, programs: dict[str, PyroProgram]) -> Scores:
        """The scores of the draws in one run of all particles.

        Args:
            programs: role → program that takes a plate of particles.
        """
        given = {}
        for name, num_event in self.num_event.items():
            given[name] = _stack([draw[name] for draw in self.draws], self.depth, num_event)
        found = {}
        for role, program in programs.items():
            conditioned = poutine.condition(program, data=given)
            run = vectorized(conditioned, NUM_PARTICLES, self.depth)
            found[role] = poutine.trace(run).get_trace(*self.batch)
        return _scores(found)

    def agrees(self, found: Scores, *, patient: bool = False) -> bool:
        """Whether scores are the true ones; if `patient`, with an eye to the networks' own rounding and noise."""
        return agree(found, self.truth, self.rounding, self.unrest if patient else None)

    def mixes_data(self) -> bool:
        """Whether the first or the last datum has another log density when it stands alone.

        Where a datum can't be run alone, as under statistics of a batch, the two of them are run without the others.
        """
        num = num_rows(self.batch)
        if num is None:
            return False
        pair = torch.tensor([0, num - 1])
        could_run = True
        for rows in (pair[:1], pair[1:], pair):
            if len(rows) == 2 and could_run:
                return False
            try:
                alone = self._without_others(rows, num)
            except Exception:  # whatever a user's program raises
                could_run = False
                continue
            if self._differs(alone, rows):
                return True
        return False

    def _differs(self, alone: Scores, rows: Tensor) -> bool:
        expected = {}
        for key in self.inside & self.truth.keys():
            score = self.truth[key]
            of_rows = score[:1, ..., rows.to(score.device)] if score.shape[-1] > 1 else score[:1]
            if key in alone and alone[key].shape == of_rows.shape:
                expected[key] = of_rows
        found = {key: alone[key] for key in expected}
        if agree(found, expected, self.rounding):
            return False
        return not agree(found, expected, self.rounding, self.unrest)

    def rows_are_data(self) -> bool:
        """Whether a row of the arguments is a datum: another first row changes the first log densities alone.

        Programs may know the data apart, by a row of parameters for each.
        """
        num = num_rows(self.batch)
        if num is None or not self.truth:
            return False
        order = torch.arange(num)
        order[0] = num - 1
        found = _one_by_one(
            self.programs, take_rows(self.batch, order), [self.draws[0]], self.depth
        )
        others, expected = {}, {}
        for key in self.inside & self.truth.keys():
            if found[key].shape[-1] != num or self.truth[key].shape[-1] != num:
                return False
            others[key], expected[key] = found[key][..., 1:], self.truth[key][:1, ..., 1:]
        return agree(others, expected, self.rounding)

    def _without_others(self, rows: Tensor, num: int) -> Scores:
        """The scores of some data by themselves, at the first of their draws."""
        draw = {}
        for name, value in self.draws[0].items():
            dim = self._data_dim(name, num)
            index = rows.to(value.device)
            draw[name] = value if dim is None else value.index_select(dim, index)
        return _one_by_one(self.programs, take_rows(self.batch, rows), [draw], self.depth)

    def _data_dim(self, name: str, num: int) -> int | None:
        """The data dim of a latent site's values; `None` for a site outside the data plate, however many it has."""
        if not any((role, name) in self.inside for role in self.programs):
            return None
        value = self.draws[0][name]
        dim = value.dim() - self.num_event[name] - 1
        return dim if dim >= 0 and value.shape[dim] == num else None

    @property
    def unrest(self) -> Scores:
        """How much the scores move under other noise of the networks, or under one rounding of z and x."""
        again = _one_by_one(self.programs, self.batch, self.draws, self.depth)
        step = 1 + 8 * self.rounding
        nudged = []
        for draw in self.draws:
            nudged.append({name: nudge(value, step) for name, value in draw.items()})
        batch = tuple(nudge(value, step) for value in self.batch)
        try:
            rounded = _one_by_one(self.programs, batch, nudged, self.depth)
        except Exception:  # a nudge may leave a support
            rounded = again
        moved = {}
        for key, score in self.truth.items():
            noise = (again[key] - score).abs().nan_to_num(posinf=torch.inf)
            noisy = noise > self.rounding**0.5 * (1 + score.abs())
            limit = AMPLIFICATION * (rounded.get(key, score) - score).abs().nan_to_num(0.0, 0.0)
            moved[key] = torch.where(noisy.any(), torch.inf, limit.amax())
        return moved


def _one_by_one(
    programs: dict[str, PyroProgram], batch: Batch, draws: list[Draw], depth: int
) -> Scores:
    """The scores of draws, each by a run of its own."""
    runs = []
    for draw in draws:
        traces = {}
        for role, program in programs.items():
            conditioned = poutine.condition(program, data=draw)
            traces[role] = poutine.trace(conditioned).get_trace(*batch)
        runs.append(_scores(traces))
    return _stacked(runs, depth)


def _traces(programs: dict[str, PyroProgram], batch: Batch) -> dict[str, Trace]:
    """The guide's trace, and that of the model at its draws."""
    traces: dict[str, Trace] = {}
    for role, program in programs.items():
        replayed = poutine.replay(program, trace=traces["guide"]) if "guide" in traces else program
        traces[role] = poutine.trace(replayed).get_trace(*batch)
    return traces


def _further_runs(
    programs: dict[str, PyroProgram], batch: Batch, first: dict[str, Trace], names: set[str]
) -> list[dict[str, Trace]]:
    """As many runs as there are further particles; of the guide alone where it draws all of these sites."""
    needed = programs
    if "guide" in first and names <= latent_sites(first["guide"]).keys():
        needed = {"guide": programs["guide"]}
    return [_traces(needed, batch) for _ in range(NUM_PARTICLES - 1)]


def _drawn(traces: dict[str, Trace], name: str) -> Tensor:
    for trace in traces.values():
        if name in trace.nodes:
            return cast(Tensor, trace.nodes[name]["value"])
    raise KeyError(name)


def _scores(traces: dict[str, Trace]) -> Scores:
    """The log density of every site; of a point mass, where it is; none where a value has no density that is known."""
    scores = {}
    for role, trace in traces.items():
        for name, site in sites_of(trace).items():
            if is_deterministic(site):
                continue
            try:
                scores[role, name] = _score(site).detach()
            except Exception:  # a flow of one way can't score what it has not drawn
                continue
    return scores


def _score(site: Site) -> Tensor:
    if not isinstance(innermost(site["fn"]), dist.Delta):
        return log_density(site)
    point = site["fn"].mean
    num_event = len(site["fn"].event_shape)
    flat = point.reshape(*point.shape[: point.dim() - num_event], -1)
    weights = torch.linspace(0.5, 1.5, flat.shape[-1]).to(flat)
    return (flat * weights).sum(-1)


def _stack(draws: list[Tensor], depth: int, num_event: int) -> Tensor:
    """Values `(*plates, N, *event)` of several runs as `(K, *plates, N, *event)`, with a dim for every plate."""
    missing = max(0, depth - (draws[0].dim() - num_event))
    return torch.stack([value.reshape(*[1] * missing, *value.shape) for value in draws])


def _stacked(runs: list[Scores], depth: int) -> Scores:
    return {key: _stack([run[key] for run in runs], depth, 0) for key in runs[0]}
