"""The structure of one program alone: a guide, or a model on data or on its own draws."""

from __future__ import annotations

from dataclasses import replace

from pyro import poutine
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ...contract import DATA, PyroProgram, Site
from ..data.extremes import extreme_batch
from ..data.tensors import Batch, has_rows
from ..sites.described import SiteInfo
from ..sites.kinds import Kind, is_auxiliary, is_deterministic, is_drawn, is_factor
from ..sites.measures import measure_of
from ..vectorization.modes import takes_all_data
from .explain import explanation
from .pair_checks import PROGRAM_OF, describe
from .structure import Structure, full_size
from .traces import depth_of, is_in_plate, sites_of


def structure_of_guide(guide: PyroProgram, batch: Batch) -> Structure:
    """The structure of a guide alone."""
    whole = takes_all_data(None, guide, batch)
    some = batch if whole else extreme_batch(batch)
    trace = _run_alone(guide, some, None, given=batch)
    _refuse_network(guide, trace)
    return replace(_structure_of_one(trace), fixed_size=whole)


def _refuse_network(guide: PyroProgram, trace: Trace) -> None:
    """Refuse what returns a tensor and names no site: a guide of a model without latents returns nothing."""
    if not sites_of(trace) and isinstance(trace.nodes["_RETURN"]["value"], Tensor):
        raise TypeError(
            f"guide: expected a program that draws its latents by pyro.sample, got {describe(guide)}, "
            f"which draws none and returns a tensor. Fix: {PROGRAM_OF['guide']}."
        )


def structure_of_model(model: PyroProgram, batch: Batch) -> Structure:
    """The structure of a model alone, on data or, with `None` in their place, on its own draws."""
    whole = has_rows(batch[0]) and takes_all_data(model, None, batch)
    some = batch if whole or not has_rows(batch[0]) else extreme_batch(batch)
    trace = _run_alone(model, some, model, given=batch)
    return replace(_structure_of_one(trace), fixed_size=whole)


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
    shared = []
    found = sites_of(trace)
    for name, site in found.items():
        sites.append(SiteInfo.of(name, site, _kind_alone(site)))
        if not is_in_plate(site, DATA) and not is_deterministic(site):
            shared.append(name)
    depth, table = depth_of(*found.values()), trace.format_shapes()
    measure = measure_of(found)
    return Structure(
        depth,
        tuple(sites),
        table,
        measure=measure,
        shared=tuple(shared),
        full_size=full_size(found),
    )


def _kind_alone(site: Site) -> Kind:
    """The kind of a site of one program, of which no other tells more."""
    if is_factor(site):
        return Kind.FACTOR
    if is_deterministic(site):
        return Kind.DETERMINISTIC
    if not is_drawn(site):
        return Kind.OBSERVED
    if is_auxiliary(site):
        return Kind.AUXILIARY
    return Kind.LATENT if is_in_plate(site, DATA) else Kind.GLOBAL
