"""How K particles of a run with enumerated sites are laid out: along the rows, in a plate, or one run each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ...contract import PyroProgram, Site
from ..data.tensors import Batch, repeat_rows
from ..run.traces import PairTrace, shared_sites, vectorized
from ..vectorization.counting import num_rows
from .runs import Sums, enumerated_run, kept_draws, sum_out

CLOSE = 1e-4  # relative difference of log densities that the order of float32 sums explains
# What programs and distributions raise on values of a shape that they are not written for
MISFIT = (RuntimeError, ValueError, IndexError, TypeError, AssertionError)


@dataclass(frozen=True)
class Summation:
    """What is asked of K particles: their log densities, with the enumerated sites summed out.

    Attributes:
        model: a program by itself, without what takes a plate of particles for it.
        guide: its guide, by itself.
        batch: their arguments.
        num: number K of particles.
        depth: number of plates.
        pair: a run of the K particles in which all sites are drawn.
        of_guide: whether the guide's enumerated sites are summed as well, over new draws of its others; if not, the
            draws are those of `pair`.
    """

    model: PyroProgram
    guide: PyroProgram
    batch: Batch
    num: int
    depth: int
    pair: PairTrace
    of_guide: bool = False

    def drawn(self, guide: PyroProgram, value_of: Callable[[Site], Tensor]) -> PyroProgram | Trace:
        """The guide, where its sites are summed; else the run of it, with its values in another layout.

        Args:
            guide: as the layout runs it.
            value_of: takes a site of the guide, and returns its value in the layout.
        """
        if self.of_guide:
            return guide
        values = {name: value_of(site) for name, site in self.pair.scored.items()}
        return kept_draws(values, self.pair.guide)


def summed(task: Summation) -> Sums:
    """The log densities of K particles with the enumerated sites summed out.

    The data are repeated along their plate where no site is shared: networks then see what they see in training. Else
    the particles have a plate to its left, and the first of them is run alone as well, for comparison. Where neither
    runs, each particle has a run of its own.

    Raises:
        ValueError: for programs that do not take a dim of values to the left of their plates.
    """
    layouts = [_by_plate]
    if num_rows(task.batch) is not None and not shared_sites(task.pair):
        layouts.insert(0, _by_rows)
    refused = []
    for layout in layouts:
        try:
            return layout(task)
        except torch.OutOfMemoryError:  # which a smaller chunk mends
            raise
        except MISFIT as error:
            refused.append(f"Before, {layout.__name__[1:].replace('_', ' ')}: {error}")
    try:
        return _one_by_one(task)
    except ValueError as error:
        for note in refused:
            error.add_note(note)
        raise


def summed_of_runs(model: PyroProgram, batch: Batch, depth: int, pairs: list[PairTrace]) -> Sums:
    """The log densities of particles with a run each, see `summed`."""
    return _joined([_of_one(model, pair.guide, batch, depth, of_guide=False) for pair in pairs])


def log_joint_given(
    model: PyroProgram, values: Mapping[str, Tensor], batch: Batch, depth: int
) -> Tensor:
    r"""$\log \sum_c p(x_i, z_i, c)$ `(N,)`, in float64, at given latents.

    Args:
        model: a Pyro program, by itself.
        values: latent site → value `(*plates, N, *event)`.
        batch: its arguments.
        depth: number of plates.

    Raises:
        ValueError: for a density that all data share.
    """
    conditioned = poutine.condition(model, data=dict(values))
    found = summed_run(conditioned, batch, depth)
    if found.shared_p:
        raise ValueError(
            f"model: expected a density of each datum, got one that all data share, of {list(found.shared_p)}. "
            "Fix: evidence(model, guide, *data), the log weight of all data."
        )
    return torch.stack([log_p[0].double() for log_p in found.log_p.values()]).sum(0)


def summed_run(program: PyroProgram, batch: Batch, depth: int) -> Sums:
    r"""$\log \sum_c p(x, z, c)$ by one run of a program whose other latents get their values from a handler.

    Args:
        program: a Pyro program, without what takes a plate of particles for it.
        batch: its arguments.
        depth: number of plates around its sites, one of particles among them.

    Raises:
        ValueError: for a program that does not take a dim of values to the left of its plates.
    """
    return _of_one(program, Trace(), batch, depth, of_guide=False)


def _by_rows(task: Summation) -> Sums:
    rows = num_rows(task.batch)
    assert rows is not None
    repeated = tuple([repeat_rows(value, task.num) for value in task.batch])
    drawn = task.drawn(task.guide, _as_rows)
    found = _of_one(task.model, drawn, repeated, task.depth, of_guide=task.of_guide)
    return _mapped(found, lambda log_p: log_p.reshape(task.num, rows))


def _by_plate(task: Summation) -> Sums:
    num, depth, first_dim = task.num, task.depth, -(task.depth + 2)
    model = vectorized(task.model, num, depth)
    drawn = task.drawn(vectorized(task.guide, num, depth), lambda site: site["value"])
    run = enumerated_run(model, drawn, task.batch, first_dim)
    found = sum_out(run, of_guide=task.of_guide)
    first = run.guide.copy()
    for name, site in run.scored.items():
        first.nodes[name] = {**site, "value": _first_particle(site, depth)}  # type: ignore[typeddict-item]
    alone = sum_out(enumerated_run(model, first, task.batch, first_dim), of_guide=False)
    _compare(sum_out(run, of_guide=False) if task.of_guide else found, alone)
    return found


def _one_by_one(task: Summation) -> Sums:
    runs = []
    for k in range(task.num):
        drawn = task.drawn(task.guide, partial(_particle, depth=task.depth, index=k))
        run = _of_one(task.model, drawn, task.batch, task.depth, of_guide=task.of_guide)
        runs.append(run)
    return _joined(runs)


def _of_one(
    model: PyroProgram,
    guide: PyroProgram | Trace,
    batch: Batch,
    depth: int,
    *,
    of_guide: bool,
) -> Sums:
    """The log densities of one particle, as `(1, N)`."""
    try:
        run = enumerated_run(model, guide, batch, -(depth + 1))
    except torch.OutOfMemoryError:
        raise
    except MISFIT as error:
        raise ValueError(
            "the programs run by themselves, but not over all values of a site with infer={'enumerate': 'parallel'}: "
            "expected networks that broadcast over a dim of values to the left of the plates, got: "
            f"{error}\nFix: index dims from the right, Vindex(table)[..., c, :], and join inputs with "
            "Concat(net)(x, c) in place of torch.cat; or infer={} at the site, to draw it."
        ) from error
    return sum_out(run, of_guide=of_guide)


def _as_rows(site: Site) -> Tensor:
    """A site's value `(K, *plates, N, *event)` with the particles along the rows: `(*plates, K N, *event)`."""
    value = site["value"]
    num_event = len(site["fn"].event_shape)
    place = value.dim() - num_event - 1  # of the data
    value = value.movedim(0, place - 1).flatten(place - 1, place)
    return _without_leading(value, site, place)


def _particle(site: Site, depth: int, index: int) -> Tensor:
    """The value of one particle `(*plates, N, *event)`."""
    num_event = len(site["fn"].event_shape)
    place = site["value"].dim() - num_event - (depth + 1)
    value = site["value"].select(place, index)
    return _without_leading(value, site, value.dim() - num_event)


def _first_particle(site: Site, depth: int) -> Tensor:
    """The value of the first particle, with its enumerated dims where they are."""
    num_event = len(site["fn"].event_shape)
    place = site["value"].dim() - num_event - (depth + 1)
    if place == 0:
        return _particle(site, depth, 0)
    return site["value"].narrow(place, 0, 1) if place > 0 else site["value"]


def _without_leading(value: Tensor, site: Site, num_batch: int) -> Tensor:
    """A value without the dims of size 1 to the left of the site's own plates."""
    plates = [-frame.dim for frame in site["cond_indep_stack"] if frame.vectorized]
    inner = sorted(plates)[:-1]  # without the plate of particles
    needed = inner[-1] if inner else 0
    while num_batch > needed and value.shape[0] == 1:
        value = value.squeeze(0)
        num_batch -= 1
    return value


def _compare(found: Sums, alone: Sums) -> None:
    """Refuse particles that mean something else together than one by one."""
    for several, one in ((found.log_p, alone.log_p), (found.shared_p, alone.shared_p)):
        for name, log_p in one.items():
            if not torch.allclose(several[name][:1], log_p, rtol=CLOSE, atol=CLOSE):
                raise ValueError(
                    f"site '{name}': expected the log density that one particle has alone, got another. "
                    "Fix: Vindex(table)[..., c, :] in place of table[c]."
                )


def _joined(runs: list[Sums]) -> Sums:
    """The particles of several runs."""
    whole = Sums(groups=runs[0].groups)
    for field in ("log_p", "log_q", "shared_p", "shared_q"):
        for name in getattr(runs[0], field):
            parts = [getattr(run, field)[name] for run in runs]
            getattr(whole, field)[name] = torch.cat(parts)
    return whole


def _mapped(sums: Sums, change: Callable[[Tensor], Tensor]) -> Sums:
    """The sums with every log density inside the data plate changed."""
    log_p = {name: change(value) for name, value in sums.log_p.items()}
    log_q = {name: change(value) for name, value in sums.log_q.items()}
    return replace(sums, log_p=log_p, log_q=log_q)
