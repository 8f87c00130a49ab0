r"""Data from the model itself, with the latents that they came from."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ...contract import PyroProgram, Site
from ..data.tensors import Batch
from ..enumeration.layouts import log_joint_given
from ..run.explain import cause_of
from ..run.shares import sum_over_plates
from ..run.traces import latent_sites, log_density, scored_sites, vectorized
from ..sites.kinds import is_summable
from ..vectorization.counting import num_rows
from ..vectorization.rows import alone
from .observation import generated_value, observation_of, refuse_factors


def run_without_data(
    model: PyroProgram, context: Batch, guide: PyroProgram | None = None, fix: str = ""
) -> Trace:
    r"""$(z, x) \sim p(z, x \mid c)$: one run of the model without data, or an error that says why there is none.

    Args:
        model: a Pyro program that generates when its first argument is `None`.
        context: the program's further arguments.
        guide: its guide, with which the model may have been swapped.
        fix: what to do if it fails; default: what a caller of `sbc` and `bdmc` can do.

    Raises:
        ValueError: if the model fails on `None` and the context.
    """
    try:
        return poutine.trace(model).get_trace(None, *context)
    except Exception as error:  # whatever a user's program raises
        arguments = ["None", *["c"] * len(context)]
        cause, _, _ = cause_of(error).partition(" Fix: ")
        question, found = _repair(context, guide)
        raise ValueError(
            f"expected model({', '.join(arguments)}) to make data; "
            f"got the error: {cause.rstrip('.')}. {question}Fix: {fix or found}."
        ) from error


def _repair(context: Batch, guide: PyroProgram | None) -> tuple[str, str]:
    """What to ask of a user whose model does not generate, and the fix."""
    if context:
        return "", (
            "leave the data x out, sbc(model, guide) or bdmc(model), and give the model's further "
            "arguments alone"
        )
    if guide is not None and _generates(guide):
        return "Are model and guide swapped? ", "the model first, then its guide"
    return "", (
        "`with data_plate(x, c):` in the model, with x=None, and the further arguments in "
        "sbc(model, guide, c); or data as a template, sbc(model, guide, like=x)"
    )


def _generates(program: PyroProgram) -> bool:
    try:
        program(None)
    except Exception:  # whatever a user's program raises
        return False
    return True


def simulate(
    model: PyroProgram,
    num: int,
    context: Batch,
    sites: list[str],
    depth: int,
    read: Callable[[Trace], Tensor] | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    r"""$z \sim p(z \mid c)$, $x \sim p(x \mid z, c)$: x `(num, *event)` and each site `(num, *plates, *event)`.

    Args:
        model: a Pyro program that generates when its first argument is `None`.
        num: number of data; with a context, its number of rows.
        context: the program's further arguments.
        sites: names of the latent sites.
        depth: number of plates of the program.
        read: reads the data from a run, as `reader_of` gives it; found anew if not given.

    Raises:
        ValueError: if the data are not as many as the rows of the context; if no one site observes them; for a
            `pyro.factor` that weighs draws unequally.
    """
    trace = generative_trace(model, 1, num, context, depth)
    if read is None:
        read = reader_of(model, trace, context, depth)
    x = read(trace)
    rows = num_rows(context)
    check_size(len(x), num if rows is None else rows)
    run_sites = latent_sites(trace)
    latents = {}
    for name in sites:
        latents[name] = site_draws(run_sites[name]).flatten(0, 1)
    return x, latents


def check_size(num: int, expected: int | None) -> None:
    """Refuse data of a model that are not as many as its further arguments have rows.

    Args:
        num: how many there are.
        expected: how many there should be; any number if `None`.

    Raises:
        ValueError: if there are others.
    """
    if expected not in (None, num):
        raise ValueError(
            f"model: expected {expected} data, one for each row of its further arguments, got {num}. "
            "Fix: data_plate(x, c), a plate over the further arguments; or leave the data x out, "
            "sbc(model, guide)."
        )


def reader_of(
    model: PyroProgram, trace: Trace, context: Batch, depth: int
) -> Callable[[Trace], Tensor]:
    """What reads the model's data `(num, *event)` from its runs without data, told by one of them.

    Raises:
        ValueError: if no one site observes them, or for a `pyro.factor` that weighs draws unequally.
    """
    refuse_factors(model, trace, context, depth)
    name = observation_of(model, trace, context)
    return lambda run: generated_value(run, name).flatten(0, 1)


def generative_trace(model: PyroProgram, num: int, size: int, context: Batch, depth: int) -> Trace:
    """A run of the model that draws `num` times `size` data.

    The rows of a context are the data, and the particles the `num` draws of each; without such rows every particle is
    a datum.
    """
    num_particles = num * size if num_rows(context) is None else num
    particles = vectorized(model, num_particles, depth)
    return run_without_data(
        particles, context, fix="a model that reads nothing of x where x is None"
    )


def log_joint(model: PyroProgram, batch: Batch, latents: dict[str, Tensor], depth: int) -> Tensor:
    r"""$\log p(x_i, z_i)$ `(N,)` of given latents `(N, *plates, *event)`, in float64, enumerated sites summed out."""
    sites = sites_given(model, batch, latents, depth)
    if any(is_summable(site) for site in sites.values()):
        given = {name: value.movedim(0, depth - 1) for name, value in latents.items()}
        return log_joint_given(alone(model), given, batch, depth)
    densities = []
    for name, site in sites.items():
        densities.append(sum_over_plates(name, site, log_density(site))[0].double())
    return torch.stack(densities).sum(0)


def sites_given(
    program: PyroProgram, batch: Batch, latents: dict[str, Tensor], depth: int
) -> dict[str, Site]:
    """The sites with a density of a run at given latents `(N, *plates, *event)`, inside a plate of one particle."""
    given = {}
    for name, value in latents.items():
        given[name] = value.movedim(0, depth - 1)[None]  # (1, *plates, N, *event)
    conditioned = poutine.condition(program, data=given)
    return scored_sites(poutine.trace(vectorized(conditioned, 1, depth)).get_trace(*batch))


def site_draws(site: Site, value: Tensor | None = None) -> Tensor:
    """The value of a site under K particles, or another of its shape, `(K, N, *plates, *event)`.

    Every plate of the run has its dim.
    Unlike `data_dim_first`, it keeps dims of size 1 for plates that the site is not in, so that sites line up.
    """
    distribution = site["fn"]
    batch_shape = distribution.batch_shape
    value = (site["value"] if value is None else value).expand(
        batch_shape + distribution.event_shape
    )
    data_dim = len(batch_shape) - 1
    return value.movedim(data_dim, 1)
