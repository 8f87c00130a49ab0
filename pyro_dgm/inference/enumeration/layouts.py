"""How K particles of a run with enumerated sites are laid out: along the rows, in a plate, or one run each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

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


def summed(
    model: PyroProgram,
    guide: PyroProgram,
    batch: Batch,
    num: int,
    depth: int,
    pair: PairTrace,
    *,
    of_guide: bool,
) -> Sums:
    """The log densities of K particles with the enumerated sites summed out.

    The data are repeated along their plate where no site is shared: networks then see what they see in training. Else
    the particles have a plate to its left, and the first of them is run alone as well, for comparison. Where neither
    runs, each particle has a run of its own.

    Args:
        model: a program by itself, without what takes a plate of particles for it.
        guide: its guide, by itself.
        batch: their arguments.
        num: number K of particles.
        depth: number of plates.
        pair: a run of the K particles in which all sites are drawn.
        of_guide: whether the guide's enumerated sites are summed as well, over new draws of its others; if not, the
            draws are those of `pair`.

    Raises:
        ValueError: for programs that do not take a dim of values to the left of their plates.
    """
    layouts = [_by_plate, _one_by_one]
    if num_rows(batch) is not None and not shared_sites(pair):
        layouts.insert(0, _by_rows)
    for layout in layouts[:-1]:
        try:
            return layout(model, guide, batch, num, depth, pair, of_guide)
        except Exception:  # whatever a user's program raises on several particles at once
            continue
    return layouts[-1](model, guide, batch, num, depth, pair, of_guide)


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
    """
    conditioned = poutine.condition(model, data=dict(values))
    found = _of_one(conditioned, Trace(), batch, depth, of_guide=False)
    return torch.stack([log_p[0].double() for log_p in found.log_p.values()]).sum(0)


def _by_rows(
    model: PyroProgram,
    guide: PyroProgram,
    batch: Batch,
    num: int,
    depth: int,
    pair: PairTrace,
    of_guide: bool,  # noqa: FBT001
) -> Sums:
    rows = num_rows(batch)
    assert rows is not None
    repeated = tuple([repeat_rows(value, num) for value in batch])
    drawn: Any = guide
    if not of_guide:
        values = {name: _as_rows(site) for name, site in pair.scored.items()}
        drawn = kept_draws(values, pair.guide)
    found = _of_one(model, drawn, repeated, depth, of_guide=of_guide)
    return _mapped(found, lambda log_p: log_p.reshape(num, rows))


def _by_plate(
    model: PyroProgram,
    guide: PyroProgram,
    batch: Batch,
    num: int,
    depth: int,
    pair: PairTrace,
    of_guide: bool,  # noqa: FBT001
) -> Sums:
    drawn: Any = vectorized(guide, num, depth)
    if not of_guide:
        drawn = kept_draws({name: site["value"] for name, site in pair.scored.items()}, pair.guide)
    run = enumerated_run(vectorized(model, num, depth), drawn, batch, -(depth + 2))
    found = sum_out(run, of_guide=of_guide)
    first = run.guide.copy()
    for name, site in run.scored.items():
        first.nodes[name] = {**site, "value": _first_particle(site, depth)}  # type: ignore[typeddict-item]
    alone = sum_out(enumerated_run(model, first, batch, -(depth + 2)), of_guide=False)
    _compare(sum_out(run, of_guide=False) if of_guide else found, alone)
    return found


def _one_by_one(
    model: PyroProgram,
    guide: PyroProgram,
    batch: Batch,
    num: int,
    depth: int,
    pair: PairTrace,
    of_guide: bool,  # noqa: FBT001
) -> Sums:
    runs = []
    for k in range(num):
        drawn: Any = guide
        if not of_guide:
            values = {n: _particle(site, depth, k) for n, site in pair.scored.items()}
            drawn = kept_draws(values, pair.guide)
        runs.append(_of_one(model, drawn, batch, depth, of_guide=of_guide))
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
    except Exception as error:  # whatever a user's program raises
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
