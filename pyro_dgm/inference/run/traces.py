"""The one road from a pair of programs to log densities: guide once, model replayed against it once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import pyro
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine.runtime import _DIM_ALLOCATOR, _PYRO_STACK
from pyro.poutine.subsample_messenger import _Subsample
from pyro.poutine.trace_struct import Trace
from torch import Tensor, nn
from torch.distributions import Independent

from ...contract import PARTICLES, Site


def run_pair(
    model: Callable, guide: Callable, batch: tuple, num: int | None = None, depth: int = 1
) -> tuple[Trace, Trace]:
    """Trace the guide once and the model replayed against it once: `(guide trace, model trace)`.

    Args:
        model: a Pyro program.
        guide: a Pyro program with the same arguments.
        batch: their arguments.
        num: number of particles in an outermost plate; `None` for no such plate.
        depth: number of plates of the programs; the particles take the next dim to the left.
    """
    guide_trace = poutine.trace(vectorized(guide, num, depth)).get_trace(*batch)
    replayed = poutine.replay(vectorized(model, num, depth), trace=guide_trace)
    return guide_trace, poutine.trace(replayed).get_trace(*batch)


def vectorized(program: Callable, num: int | None, depth: int) -> Callable:
    """The program inside a plate of `num` particles, one dim to the left of its own plates."""
    if num is None:
        return program

    def inside(*batch: Any) -> Any:
        with pyro.plate(PARTICLES, num, dim=-(depth + 1)):
            return program(*batch)

    return inside


def sample_sites(trace: Trace) -> Iterator[tuple[str, Site]]:
    """The sample statements of a trace, without the index sites of plates."""
    for name, site in trace.nodes.items():
        if site["type"] == "sample" and not isinstance(site["fn"], _Subsample):
            yield name, cast(Site, site)


def latent_sites(trace: Trace) -> dict[str, Site]:
    """The sites of a trace that are drawn."""
    return {name: site for name, site in sample_sites(trace) if not site["is_observed"]}


def observed_sites(trace: Trace) -> dict[str, Site]:
    """The sites of a trace that are conditioned on data."""
    return {name: site for name, site in sample_sites(trace) if site["is_observed"]}


def log_density(site: Site) -> Tensor:
    """Log density of a site's value, masked, never scaled: estimates do not see N/B or a temperature."""
    return scale_and_mask(
        site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"]), mask=site["mask"]
    )


def plate_depth(*traces: Trace) -> int:
    """How many dims the plates of the traces take, the data plate included."""
    frames = [
        f for trace in traces for _, site in sample_sites(trace) for f in site["cond_indep_stack"]
    ]
    return max((-f.dim for f in frames if f.vectorized), default=1)


def plate_names(site: Site) -> list[str]:
    """Names of the plates around a site, outermost dim first."""
    frames = [f for f in site["cond_indep_stack"] if f.vectorized]
    return [f.name for f in sorted(frames, key=lambda f: f.dim)]


def plate_value(site: Site, value: Tensor | None = None) -> Tensor:
    """A site's value `(*plates, *event)`: dims of size 1 that belong to no plate of the site are dropped."""
    value = site["value"] if value is None else value
    num_batch = value.dim() - len(site["fn"].event_shape)
    framed = {f.dim for f in site["cond_indep_stack"] if f.vectorized}
    return value.squeeze([d for d in range(num_batch) if d - num_batch not in framed])


def scaled_sum(site: Site, log_p: Tensor, keep: int = 0) -> Tensor:
    """Sum of a log density times the site's scale, such as N/B of a subsampling plate; the last dims may be kept."""
    scale = site["scale"]
    if not (isinstance(scale, float) and scale == 1.0):
        log_p = scale_and_mask(log_p, scale=scale)
    return log_p.sum_to_size(log_p.shape[log_p.dim() - keep :])


def each_dim(name: str, site: Site) -> Site:
    r"""A site with $p(z) = \prod_j p(z_j)$ as one of numbers $z_j$: its log densities are `(*plates, *event)`."""
    distribution = site["fn"]
    if not isinstance(distribution, Independent) or distribution.base_dist.event_shape:
        raise ValueError(
            f"site '{name}': expected laws whose dims are independent, Conditional(dist.Normal, net) in the guide and "
            f"StandardNormal(D) in the model, got {distribution}, which has no density of one dim. "
            f"Fix: a number of free bits for the whole site, free_bits={{'{name}': 2.0}}."
        )
    index = (..., *[None] * len(distribution.event_shape))
    grown = {key: site[key][index] for key in ("scale", "mask") if isinstance(site[key], Tensor)}
    return {**site, "fn": distribution.base_dist, **grown}


def derive_seed(*numbers: int) -> int:
    """One seed of several: `manual_seed` reads the low 32 bits alone on the CPU, so that shifts would be lost."""
    words = [word for n in numbers for word in divmod(n % 2**64, 2**32)]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0])


@contextmanager
def without_handlers() -> Iterator[None]:
    """Run a program as if no handler and no plate stood around it: it is a value there, and no part of the model."""
    stacks: tuple[list, ...] = (_PYRO_STACK, _DIM_ALLOCATOR._stack)
    before = [stack[:] for stack in stacks]
    try:
        for stack in stacks:
            stack.clear()
        yield
    finally:
        for stack, frames in zip(stacks, before, strict=True):
            stack[:] = frames


@contextmanager
def fork_rng(*tensors: Any, seed: int | None = None) -> Iterator[None]:
    """Fork the random state of the CPU and of every device in use, and seed it if a seed is given."""
    devices = {t.device for t in tensors if isinstance(t, Tensor) and t.device.type == "cuda"}
    with torch.random.fork_rng(devices=sorted(devices, key=str), enabled=True):
        if seed is not None:
            torch.manual_seed(seed)
        yield


@contextmanager
def eval_mode(*programs: Any) -> Iterator[None]:
    """Evaluation mode without gradients for the programs that are modules; every mode is restored afterwards."""
    modules = [m for p in programs if isinstance(p, nn.Module) for m in p.modules()]
    modes = [m.training for m in modules]
    try:
        for module in modules:
            module.training = False
        with torch.no_grad():
            yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode
