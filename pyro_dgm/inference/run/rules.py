"""The contract of a pair, rule by rule: each refuses what breaks it, with the site, what came, and the fix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, cast

import torch
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ...contract import DATA, PyroProgram, Site, noise_name
from ..data.tensors import Batch
from ..sites.kinds import is_deterministic, is_enumerated
from ..sites.supports import check_draws, check_observation, check_reach, warn_of_integers
from ..vectorization.counting import (
    DataPlate,
    num_rows,
    refuse_count,
    refuse_plates,
    runs_of,
)
from .explain import fix_of_dtype, fix_of_event, fix_of_shape, fix_of_sizes
from .pair_checks import PROGRAM_OF
from .traces import (
    PairTrace,
    is_in_plate,
    log_density,
    observed_sites,
    plate_names,
    scored_sites,
)


@dataclass(frozen=True)
class Subject:
    """What the rules look at: one run of a pair on a batch.

    Attributes:
        pair: the run.
        model, guide: the programs.
        batch: their arguments.
        size: number of data that the objective divides by; `None` for the size of the batch.
    """

    pair: PairTrace
    model: PyroProgram
    guide: PyroProgram
    batch: Batch
    size: int | None = None


Rule = Callable[[Subject], None]
DENSITY = "checked_density"  # of a site in a trace


def check_sites(pair: PairTrace) -> None:
    """Refuse a pair that draws different sites, or observes none, or whose values can't be scored."""
    _check_swapped(pair)
    _check_names(pair)
    for name, site in pair.observed.items():
        check_data_shape(name, site)
        check_observation(name, site)
        density_of(name, site)
    for name, site in pair.factors.items():
        density_of(name, site)
    for name, site in pair.latent.items():
        check_draws(name, site, pair.modelled[name])


def check_data_shape(name: str, site: Site) -> None:
    """Refuse data that are of the right size, but not of the right shape: images that are not flattened."""
    expected, shape = tuple(site["fn"].event_shape), tuple(site["value"].shape)
    if shape[len(shape) - len(expected) :] == expected:  # the dims before are those of plates
        return
    got = shape[1:]
    if prod(expected) == prod(got):
        raise ValueError(
            f"site '{name}': expected data of event shape {expected}, got {got}. "
            f"Fix: {fix_of_shape(expected, got)}."
        )


def _check_swapped(pair: PairTrace) -> None:
    if pair.observed:
        return
    observed = list(observed_sites(pair.guide))
    if observed:
        raise ValueError(
            f"model: expected an observed site, got none, and {observed} in the guide: are model and guide "
            "swapped? Fix: the model first, then its guide."
        )


def latents_have_the_same_names(subject: Subject) -> None:
    """Both programs draw the same sites, one at least."""
    latent, drawn = set(subject.pair.modelled), set(subject.pair.latent)
    if latent != drawn or not drawn:
        raise ValueError(
            f"model and guide: expected the same latent sites, got {sorted(latent)} in the model and "
            f"{sorted(drawn)} in the guide. Fix: give each the same name in both programs."
        )


def _check_names(pair: PairTrace) -> None:
    latent, drawn = set(pair.modelled), set(pair.latent)
    if latent != drawn:
        raise ValueError(
            f"model and guide: expected the same latent sites, got {sorted(latent)} in the model and "
            f"{sorted(drawn)} in the guide. Fix: {_fix_of_names(pair)}."
        )
    if not pair.observed and not pair.factors:
        raise ValueError(
            "model: expected an observed site, got none. Fix: pyro.sample('x', p_x, obs=x) in the model."
        )


def _fix_of_names(pair: PairTrace) -> str:
    """What to do where model and guide draw different sites."""
    latent, drawn = set(pair.modelled), set(pair.latent)
    noise = {noise_name(name): name for name in pair.observed}
    others = sorted((latent ^ drawn) - set(noise))
    also = f"; and draw {others} in both programs" if others else ""
    undrawn_noise = sorted((latent - drawn) & set(noise))
    if undrawn_noise:
        return _fix_of_noise(undrawn_noise[0], noise, only_noise=latent <= set(noise)) + also
    needless_noise = sorted((drawn - latent) & set(noise))
    if needless_noise:
        return (
            f"dequantized(model, '{noise[needless_noise[0]]}') in place of the model if its distribution is a "
            f"density; no dequantizer in the guide if it is a mass function{also}"
        )
    for name in sorted(latent - drawn):
        if is_enumerated(pair.modelled[name]):
            return (
                f"infer={{'enumerate': 'parallel'}} at '{name}', to sum over its values, all of them; or "
                f"pyro.sample('{name}', …) in the guide as well, to draw it"
            )
    if not drawn:
        return f"{PROGRAM_OF['guide']}, a guide that draws {sorted(latent)}"
    return f"give each of {sorted(latent ^ drawn)} the same name in both programs"


def _fix_of_noise(name: str, noise: dict[str, str], *, only_noise: bool) -> str:
    known = "VAE(…, dequantizer=UnitUniform()), AmortizedGuide(encoder, UnitUniform())"
    if only_noise:
        known = "NoiseGuide(UnitUniform())"
    return f"{known} or pyro.sample('{name}', …) in the guide: the model of '{noise[name]}' is dequantized"


def sites_agree(subject: Subject) -> None:
    """Both programs draw the same sites, the model observes one, and all values can be scored."""
    check_sites(subject.pair)


def plates_hold_the_data(subject: Subject) -> None:
    """A site lies inside the data plate, at dim −1, over as many data as there are; or it is one that all share."""
    for sites in (subject.pair.guide_sites, subject.pair.model_sites):
        for name, site in sites.items():
            if is_deterministic(site):
                continue  # it has no density, wherever it is
            if is_in_plate(site, DATA):
                _check_plate(name, site, subject)
            else:
                _check_global(name, site)


def _check_global(name: str, site: Site) -> None:
    """A site outside the data plate is one draw for all data: it has one log density."""
    distribution = site["fn"]
    if any(frame.vectorized for frame in site["cond_indep_stack"]):
        return
    if len(distribution.batch_shape) > 0:
        raise ValueError(
            f"site '{name}': expected a site inside the plate '{DATA}', got one outside, of batch_shape "
            f"{tuple(distribution.batch_shape)} and event_shape {tuple(distribution.event_shape)}. "
            f"Fix: `with data_plate(x):` around pyro.sample('{name}', …); for a site that all data share, "
            "its distribution with .to_event()."
        )


def _check_plate(name: str, site: Site, subject: Subject) -> None:
    frame = next(f for f in site["cond_indep_stack"] if f.name == DATA)
    num = num_rows(subject.batch) or frame.size
    if frame.dim != -1:
        raise ValueError(
            f"site '{name}': expected the plate '{DATA}' at dim -1, got dim {frame.dim}. "
            "Fix: `with data_plate(x):`, and further plates to its left, dim=-2."
        )
    takes_part = frame.full_size == num  # the plate itself takes a minibatch of the arguments
    if frame.size != num and not takes_part:
        refuse_plates(runs_of(subject.model, subject.guide), subject.batch)
        refuse_count(num, DataPlate(frame.size, frame.full_size))
    total = frame.full_size or frame.size
    if total < frame.size:  # as many as the guide's plate, whose index it took over
        raise ValueError(
            f"site '{name}': expected the plate '{DATA}' over {frame.size} data in both programs, got a plate of "
            f"{total}. Fix: `with data_plate(x):` in both."
        )
    if subject.size is not None and total != subject.size:
        raise ValueError(
            f"site '{name}': expected a data plate of size {subject.size}, got {total}. "
            f"Fix: the same size in both places, data_plate(x, size={total}) and ELBO(…, size={total})."
        )


def latents_have_one_shape(subject: Subject) -> None:
    """Every latent site has the same event shape, the same plates and a fitting support in both programs."""
    for name, drawn in subject.pair.latent.items():
        _check_latent(name, drawn, subject.pair.modelled[name])


def _check_latent(name: str, drawn: Site, modelled: Site) -> None:
    expected, got = tuple(modelled["fn"].event_shape), tuple(drawn["fn"].event_shape)
    if got != expected:
        raise ValueError(
            f"site '{name}': expected event_shape {expected} as in the model, got {got} in the guide. "
            f"Fix: {_fix_of_latent(name, expected, got)}."
        )
    if set(plate_names(drawn)) != set(plate_names(modelled)):
        raise ValueError(
            f"site '{name}': expected the same plates in both programs, got {plate_names(modelled)} in the model "
            f"and {plate_names(drawn)} in the guide. Fix: the same `with` blocks around both statements."
        )
    check_reach(name, drawn, modelled)


def _fix_of_latent(name: str, expected: tuple[int, ...], got: tuple[int, ...]) -> str:
    if len(expected) == len(got) and noise_name("") not in name:
        return fix_of_sizes(expected, got)
    return fix_of_event(name, expected)


def integers_have_a_mass(subject: Subject) -> None:
    """Warn of integers under a density of real numbers."""
    for name, site in subject.pair.observed.items():
        warn_of_integers(name, site)


def densities_have_the_plates_shape(subject: Subject) -> None:
    """Every log density can be computed, with validation on, and has one entry per plate."""
    for trace in subject.pair:
        for name, site in scored_sites(trace).items():
            _check_density(name, site, trace)


def density_of(name: str, site: Site) -> Tensor:
    """The log density of a site, or why there is none; it is computed once, for a flow may take long."""
    of_trace = cast(dict[str, Any], site)
    if DENSITY not in of_trace:
        of_trace[DENSITY] = _density_of(name, site)
    return cast(Tensor, of_trace[DENSITY])


def _density_of(name: str, site: Site) -> Tensor:
    value = site["value"]
    try:
        return log_density(site)
    except Exception as error:  # whatever a distribution raises
        fix = "a distribution whose log_prob takes values of this shape."
        if value.dtype != torch.get_default_dtype():
            fix = f"data of the networks' dtype, {fix_of_dtype(torch.get_default_dtype())}."
        raise ValueError(
            f"site '{name}': expected data that have a density, got a value of shape "
            f"{tuple(value.shape)} and dtype {value.dtype}, on which it fails: {error}\nFix: {fix}"
        ) from error


def _check_density(name: str, site: Site, trace: Trace) -> None:
    log_p = density_of(name, site)
    trace.nodes[name]["log_prob"] = log_p  # Pyro's table of shapes shows it
    expected = []
    for frame in sorted(site["cond_indep_stack"], key=lambda frame: frame.dim):
        if frame.vectorized:
            expected.append(frame.size)
    if [d for d in log_p.shape if d != 1] != [d for d in expected if d != 1]:
        raise ValueError(
            f"site '{name}': expected one log density per plate {plate_names(site)}, {expected}, got shape "
            f"{tuple(log_p.shape)}. Fix: {fix_of_event(name, tuple(site['value'].shape[1:]))}."
        )


RULES: tuple[Rule, ...] = (
    sites_agree,
    plates_hold_the_data,
    latents_have_one_shape,
    integers_have_a_mass,
    densities_have_the_plates_shape,
)
