r"""Data from the model itself, with the latents that they came from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ...contract import noise_name
from .explain import cause_of
from .generation import generated_value
from .traces import (
    Site,
    latent_sites,
    log_density,
    observed_sites,
    sample_sites,
    vectorized,
)


def run_of_prior(model: Callable, context: tuple, guide: Callable | None = None) -> Trace:
    """A run of the model that generates, and words that say why it does not.

    Raises:
        ValueError: if the model fails on `None` and the context.
    """
    try:
        return poutine.trace(model).get_trace(None, *context)
    except Exception as error:  # whatever a user's program raises
        cause = cause_of(error).partition(" Fix: ")[0].rstrip(".")
        raise ValueError(
            f"expected model(None{', c' * len(context)}) to make data, for they are simulated; got the error: {cause}. "
            f"{_fix_of_prior(context, guide)}"
        ) from error


def _fix_of_prior(context: tuple, guide: Callable | None) -> str:
    if context:
        return "Fix: leave the data x out, sbc(model, guide) or bdmc(model), and give the model's further arguments alone."
    if guide is not None and _generates(guide):
        return "Are model and guide swapped? Fix: the model first, then its guide."
    return "Fix: `with data_plate(x, c):` in the model, with x=None, and the further arguments in sbc(model, guide, c)."


def _generates(program: Callable) -> bool:
    try:
        generated_value(poutine.trace(program).get_trace(None))
    except Exception:  # whatever a user's program raises
        return False
    return True


def simulated(
    model: Callable, num: int, context: tuple, sites: list[str], depth: int
) -> tuple[Tensor, dict[str, Tensor]]:
    r"""$z \sim p(z \mid c)$, $x \sim p(x \mid z, c)$: x `(num, *event)` and each site `(num, *plates, *event)`.

    Args:
        model: a Pyro program that generates when its first argument is `None`.
        num: number of data; with a context, its number of rows.
        context: the program's further arguments.
        sites: names of the latent sites.
        depth: number of plates of the program.

    Raises:
        ValueError: if the data are not as many as the rows of the context.
    """
    trace = generative_trace(model, 1, num, context, depth)
    drawn, x = dict(sample_sites(trace)), generated_value(trace).flatten(0, 1)
    rows = next((len(c) for c in context if isinstance(c, Tensor) and c.dim() > 0), num)
    if len(x) != rows:
        raise ValueError(
            f"model: expected {rows} simulated data, one for each row of its further arguments, got {len(x)}. "
            "Fix: data_plate(x, c), a plate over the further arguments; or leave the data x out, sbc(model, guide)."
        )
    return x, {name: draws_of(drawn[name]).flatten(0, 1) for name in sites}


def generative_trace(model: Callable, num: int, size: int, context: tuple, depth: int) -> Trace:
    r"""A run that draws `num` times `size` data: particles are draws where rows of a context are data, else both."""
    rows = any(isinstance(c, Tensor) and c.dim() > 0 for c in context)
    return poutine.trace(vectorized(model, num if rows else num * size, depth)).get_trace(
        None, *context
    )


def log_joint(model: Callable, batch: tuple, latents: dict[str, Tensor], depth: int) -> Tensor:
    r"""$\log p(x_i, z_i)$ `(N,)` of given latents `(N, *plates, *event)`, in float64."""
    given = {name: value.movedim(0, depth - 1)[None] for name, value in latents.items()}
    trace = poutine.trace(vectorized(poutine.condition(model, data=given), 1, depth)).get_trace(
        *batch
    )
    densities = [log_density(site) for _, site in sample_sites(trace)]
    return torch.stack([d.reshape(-1, d.shape[-1]).sum(0).double() for d in densities]).sum(0)


def draws_of(site: Site) -> Tensor:
    """The value of a site with the data behind the particles, `(K, N, *plates, *event)`."""
    distribution = site["fn"]
    return (
        site["value"]
        .expand(distribution.batch_shape + distribution.event_shape)
        .movedim(len(distribution.batch_shape) - 1, 1)
    )


def names_of_latents(guide_trace: Any, model_trace: Any) -> list[str]:
    """The latent sites that make up z: all but the noise of discrete sites, which belongs to the data."""
    noise = {noise_name(name) for name in observed_sites(model_trace)}
    return [name for name in latent_sites(guide_trace) if name not in noise]
