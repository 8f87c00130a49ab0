"""Preflight: one run of a pair that refuses what breaks the contract, before shapes explode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ...contract import DATA, noise_name
from .supports import check_draws, check_observation, check_reach, innermost, warn_of_integers
from .traces import (
    Site,
    eval_mode,
    fork_rng,
    latent_sites,
    log_density,
    observed_sites,
    plate_depth,
    plate_names,
    run_pair,
    sample_sites,
)

TABLE = "Trace Shapes:"  # the title of the table of sites that Pyro hangs on the error of a program
OF_INTEGERS = (  # how torch refuses real numbers where labels belong
    "'indices' to have one of the following scalar types: Long",
    "one_hot is only applicable to index tensor",
    "tensors used as indices must be long",
)


@dataclass(frozen=True)
class Structure:
    """What one run of a pair found.

    Attributes:
        depth: number of plates, the data plate included.
        latent: names of the latent sites, in the guide's order.
        observed: names of the observed sites.
        table: Pyro's table of the model's site shapes.
    """

    depth: int
    latent: tuple[str, ...]
    observed: tuple[str, ...]
    table: str

    def __str__(self) -> str:
        return f"latent {list(self.latent)}, observed {list(self.observed)}, plate depth {self.depth}\n{self.table}"


def preflight(model: Callable, guide: Callable, *batch: Any, size: int | None = None) -> Structure:
    """Run the pair once with validation on and check it against the contract; weights and seeds stay as they are.

    Args:
        model: any Pyro program.
        guide: its guide, with the same arguments.
        batch: the arguments, observation first.
        size: number of data that the objective divides by; `None` for the size of the batch.

    Raises:
        ValueError: with the site, what was expected, what came and the fix, for: empty, NaN or infinite data; a program
            that fails; a site outside the data plate; different latent sites; a wrong event or batch shape; observed
            values outside the support; a Delta observation; a plate size that the objective does not know; networks
            that do not broadcast over particles; draws of the guide outside the model's support.
    """
    for position, tensor in enumerate(batch):
        if isinstance(tensor, Tensor):
            check_data(tensor, f"argument {position}")
    with fork_rng(*batch), eval_mode(model, guide), pyro.validation_enabled(True):
        guide_trace, model_trace = run_or_explain(model, guide, batch)
        try:
            _check(guide_trace, model_trace, batch, size)
            _score(guide_trace)
            _score(model_trace)
            _check_particles(model, guide, batch, plate_depth(guide_trace, model_trace))
        except ValueError as error:
            raise ValueError(
                f"{error}\n\nSites of the model:\n{model_trace.format_shapes()}"
            ) from error
        return Structure(
            depth=plate_depth(guide_trace, model_trace),
            latent=tuple(latent_sites(guide_trace)),
            observed=tuple(observed_sites(model_trace)),
            table=model_trace.format_shapes(),
        )


def check_data(tensor: Tensor, name: str) -> None:
    """Refuse empty, NaN and infinite data."""
    if tensor.numel() == 0:
        raise ValueError(
            f"{name}: expected at least one datum, got a tensor of shape {tuple(tensor.shape)}."
        )
    if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
        num = int((~tensor.isfinite()).sum())
        raise ValueError(
            f"{name}: expected finite values, got {num} NaN or infinite of {tensor.numel()}. "
            "Fix: x = x[x.isfinite().flatten(1).all(1)], or dgm.impute(model, guide, x, observed=x.isfinite())."
        )


def run_or_explain(
    model: Callable, guide: Callable, batch: tuple, given: tuple | None = None
) -> tuple[Trace, Trace]:
    """Run the pair, and say of what fails how it is mended; `given` are the data of which the batch is a part."""
    try:
        return run_pair(model, guide, batch)
    except Exception as error:
        shapes = [
            tuple(b.shape) if isinstance(b, Tensor) else type(b).__name__ for b in given or batch
        ]
        table = "".join(["\n\n" * (TABLE in str(error)), *str(error).partition(TABLE)[1:]])
        raise ValueError(
            f"the programs fail on a batch of shapes {shapes}: {cause_of(error)}{_hint(error, model, batch)}{table}"
        ) from error


def cause_of(error: Exception) -> str:
    """What an error says, without the table of sites that Pyro hangs on it."""
    return str(error).partition(TABLE)[0].strip()


def _hint(error: Exception, model: Callable, batch: tuple) -> str:
    """The fix of the commonest mistakes."""
    if "positional argument" in str(error):
        return f"\nFix: the batch has {len(batch)} arguments; drop the labels, or take them in both programs, Concat(net)."
    if any(words in str(error) for words in OF_INTEGERS):
        return "\nFix: labels as integers, labels.long()."
    if "same dtype" in str(error):
        return "\nFix: data of the networks' dtype, x.float()."
    misshaped = _hint_of_shape(model, batch)
    if not misshaped and "inside plate" in str(error):
        return f"\nFix: {_fix_of_event(str(error), batch[0].shape[1:])}."
    return misshaped


def _hint_of_shape(model: Callable, batch: tuple) -> str:
    """What the model generates, where that differs from the data."""
    try:
        event, got = tuple(model(None, *batch[1:]).shape[1:]), tuple(batch[0].shape)
    except Exception:
        return ""
    if event == got[1:]:
        return ""
    fix = f"networks for {got[1:]}"
    if len(got) == 1:
        fix = "x[None] for one datum, a row per datum for several"
    elif prod(event) == prod(got[1:]):
        fix = f"x.reshape(len(x), *{event})" if len(event) > 1 else "x.flatten(1)"
    return f";\nexpected data of event shape {event}, which the model generates, got {got[1:]}. Fix: {fix}."


def _check(guide_trace: Trace, model_trace: Trace, batch: tuple, size: int | None) -> None:
    check_sites(guide_trace, model_trace)
    for trace in (guide_trace, model_trace):
        for name, site in sample_sites(trace):
            _check_plate(name, site, batch, size)
    latent = latent_sites(model_trace)
    for name, site in latent_sites(guide_trace).items():
        _check_latent(name, site, latent[name])
    for name, site in observed_sites(model_trace).items():
        warn_of_integers(name, site)


def check_sites(guide_trace: Trace, model_trace: Trace) -> None:
    """Refuse a pair that draws different sites, or observes none, or whose values can't be scored."""
    if not observed_sites(model_trace) and (observed := data_sites(guide_trace)):
        raise ValueError(
            f"model: expected an observed site, got none, and {observed} in the guide: are model and guide swapped? "
            "Fix: the model first, then its guide."
        )
    latent, drawn = set(latent_sites(model_trace)), set(latent_sites(guide_trace))
    if latent != drawn:
        raise ValueError(
            f"model and guide: expected the same latent sites, got {sorted(latent)} in the model and {sorted(drawn)} "
            f"in the guide. Fix: {_fix_of_sites(latent, drawn, model_trace)}."
        )
    if not observed_sites(model_trace):
        raise ValueError(
            "model: expected an observed site, got none. Fix: pyro.sample('x', p_x, obs=x) in the model."
        )
    for name, site in observed_sites(model_trace).items():
        check_observation(name, site)
    modelled = latent_sites(model_trace)
    for name, site in latent_sites(guide_trace).items():
        check_draws(name, site, modelled[name])


def data_sites(trace: Trace) -> list[str]:
    """Names of the sites that score data; a `pyro.factor`, which guides may have, scores none."""
    return [
        name
        for name, site in observed_sites(trace).items()
        if not isinstance(innermost(site["fn"]), dist.Unit)
    ]


def _fix_of_sites(latent: set[str], drawn: set[str], model_trace: Trace) -> str:
    noise = {noise_name(name): name for name in observed_sites(model_trace)}
    others = sorted((latent ^ drawn) - set(noise))
    also = f"; and draw {others} in both programs" if others else ""
    if lacking := sorted((latent - drawn) & set(noise)):
        known = (
            "VAE(…, dequantizer=UnitUniform()), AmortizedGuide(encoder, UnitUniform())"
            if latent - set(noise)
            else "NoiseGuide(UnitUniform())"
        )
        return (
            f"{known} or pyro.sample('{lacking[0]}', …) in the guide: the model of '{noise[lacking[0]]}' is "
            f"dequantized{also}"
        )
    if extra := sorted((drawn - latent) & set(noise)):
        return (
            f"dequantized(model, '{noise[extra[0]]}') in place of the model if its law is a density; no dequantizer in "
            f"the guide if it is a mass function{also}"
        )
    if summed := [
        n for n in sorted(latent - drawn) if "enumerate" in (model_trace.nodes[n]["infer"] or {})
    ]:
        return (
            f"pyro.sample('{summed[0]}', …) in the guide as well, to draw and to weigh it; to train without, "
            "PyroObjective(model, guide, TraceEnum_ELBO(max_plate_nesting=1)), which sums it out"
        )
    return f"give each of {sorted(latent ^ drawn)} the same name in both programs"


def _check_plate(name: str, site: Site, batch: tuple, size: int | None) -> None:
    distribution = site["fn"]
    if DATA not in plate_names(site):
        if site["is_observed"] or size is None or len(distribution.batch_shape) > 0:
            raise ValueError(
                f"site '{name}': expected a site inside the plate '{DATA}', got one outside, of batch_shape "
                f"{tuple(distribution.batch_shape)} and event_shape {tuple(distribution.event_shape)}. Fix: `with data_plate(x):` around "
                f"pyro.sample('{name}', …); for a global site, data_plate(x, size=N) and ELBO(…, size=N)."
            )
        return
    frame = next(f for f in site["cond_indep_stack"] if f.name == DATA)
    num = len(batch[0]) if batch and isinstance(batch[0], Tensor) else frame.size
    if frame.dim != -1 or frame.size != num:
        raise ValueError(
            f"site '{name}': expected the plate '{DATA}' at dim -1 with {num} data, got dim {frame.dim} with "
            f"{frame.size}. Fix: `with data_plate(x):`, and further plates to its left, dim=-2."
        )
    total, wanted = frame.full_size or frame.size, num if size is None else size
    if total != wanted:
        raise ValueError(
            f"site '{name}': expected a data plate of size {wanted}, got {total}. "
            f"Fix: the same size in both places, data_plate(x, size={total}) and ELBO(…, size={total})."
        )


def _check_latent(name: str, drawn: Site, modelled: Site) -> None:
    if tuple(drawn["fn"].event_shape) != tuple(modelled["fn"].event_shape):
        raise ValueError(
            f"site '{name}': expected event_shape {tuple(modelled['fn'].event_shape)} as in the model, got "
            f"{tuple(drawn['fn'].event_shape)} in the guide. Fix: {_fix_of_event(name, modelled['fn'].event_shape)}."
        )
    if set(plate_names(drawn)) != set(plate_names(modelled)):
        raise ValueError(
            f"site '{name}': expected the same plates in both programs, got {plate_names(modelled)} in the model and "
            f"{plate_names(drawn)} in the guide. Fix: the same `with` blocks around both statements."
        )
    check_reach(name, drawn, modelled)


def _score(trace: Trace) -> None:
    """Compute every log density with validation on, and refuse shapes that are not those of the plates."""
    for name, site in sample_sites(trace):
        try:
            site["log_prob"] = log_density(site)
        except Exception as error:
            raise ValueError(
                f"site '{name}': its density fails on a value of shape {tuple(site['value'].shape)} and dtype "
                f"{site['value'].dtype}: {error}{_fix_of_dtype(site['value'])}"
            ) from error
        expected = [
            f.size for f in sorted(site["cond_indep_stack"], key=lambda f: f.dim) if f.vectorized
        ]
        if [d for d in site["log_prob"].shape if d != 1] != [d for d in expected if d != 1]:
            raise ValueError(
                f"site '{name}': expected one log density per plate {plate_names(site)}, {expected}, got shape "
                f"{tuple(site['log_prob'].shape)}. Fix: {_fix_of_event(name, site['value'].shape[1:])}."
            )


def _fix_of_dtype(value: Tensor) -> str:
    return (
        ""
        if value.dtype == torch.get_default_dtype()
        else "\nFix: data of the network's dtype, x.float()."
    )


def _fix_of_event(site: str, event: Sequence[int]) -> str:
    if noise_name("") in site:
        return f"UnitUniform({tuple(event)}), for noise of the shape of the data"
    return ".to_event(1) on the distribution, for the dims that belong to one event"


def _check_particles(model: Callable, guide: Callable, batch: tuple, depth: int) -> None:
    """Run two particles per datum: the programs must broadcast over a further dim on the left."""
    try:
        traces = run_pair(model, guide, batch, num=2, depth=depth)
        for trace in traces:
            trace.compute_log_prob()
    except Exception as error:
        raise ValueError(
            f"the programs run on one draw per datum, but not on several: expected networks that broadcast over "
            f"leading dims, since K draws arrive as (K, N, …); got: {error}\n"
            "Fix: join inputs with Concat(net)(x, z) in place of torch.cat, and index dims from the right."
        ) from error


def extreme_rows(tensor: Tensor, num: int) -> Tensor:
    """Indices of `num` rows that hold the smallest, the largest and the least integer value first, then the first ones.

    A check of these rows finds data outside an elementwise support wherever they hide in the set.
    """
    flat = tensor.reshape(len(tensor), -1)
    flat = flat.byte() if flat.dtype is torch.bool else flat
    fraction = (flat - flat.round()).abs() if flat.is_floating_point() else flat
    worst = torch.stack(
        [flat.amin(1).argmin(), flat.amax(1).argmax(), fraction.amax(1).argmax()]
    ).tolist()
    rows = [*dict.fromkeys([*worst, *range(min(num, len(tensor)))])]
    return torch.tensor(rows[: max(num, len(set(worst)))], device=tensor.device)
