"""Pyro's NUTS on a posterior of posteriordb, within a number of CPU seconds."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import torch
from posteriors import Data, Posterior, Quantities
from pyro import poutine
from pyro.infer import MCMC, NUTS
from torch import Tensor

import pyro_dgm as dgm
from pyro_dgm.programs.flow_guide import init_to_median_or_origin

WARM_UP = 500
NUM_DRAWS = 1000
MOST_SECONDS = 240
LEAST_DRAWS = 4  # of which an effective sample size can be computed
Found = dict[str, object]


class OutOfTime(Exception):
    """The seconds are spent; the draws until then are kept."""


class Keeper:
    """The hook of `MCMC`: keeps the draws, and stops the chain when its time is over.

    Attributes:
        num_steps: steps so far, warm-up and draws.
        draws: unconstrained latents of each draw.
    """

    def __init__(self) -> None:
        self.num_steps = 0
        self.draws: list[dict[str, Tensor]] = []
        self.end = time.process_time() + MOST_SECONDS

    def __call__(self, kernel: NUTS, latents: dict[str, Tensor], stage: str, step: int) -> None:
        self.num_steps += 1
        if self.num_steps > WARM_UP:
            self.draws.append(dict(latents))
        if time.process_time() > self.end:
            raise OutOfTime


def by_nuts(posterior: Posterior, data: Data) -> tuple[Quantities, Found]:
    """One chain of 500 steps of warm-up and 1,000 draws, of a compiled log density."""
    # Pyro finds plates and a start by draws from the prior, which a flat one does not have.
    kernel = NUTS(
        posterior.model,
        jit_compile=True,
        ignore_jit_warnings=True,
        max_plate_nesting=0,
        init_strategy=init_to_median_or_origin,
    )
    kept = Keeper()
    chain = MCMC(kernel, NUM_DRAWS, WARM_UP, hook_fn=kept, disable_progbar=True)
    with suppress(OutOfTime):
        chain.run(data)
    found: Found = {"steps": kept.num_steps, "draws": len(kept.draws)}
    if len(kept.draws) < LEAST_DRAWS:
        return {}, found
    draws = quantities(posterior, data, kernel, kept.draws)
    smallest = [float(dgm.diagnostics.ess(value[None]).min()) for value in draws.values()]
    return draws, {**found, "ess": min(smallest)}


@torch.no_grad()
def quantities(
    posterior: Posterior, data: Data, kernel: NUTS, draws: list[dict[str, Tensor]]
) -> Quantities:
    """Latent or `pyro.deterministic` site → values `(K, *shape)`."""
    columns: dict[str, list[Tensor]] = {}
    for draw in draws:
        latents = {}
        for name, value in draw.items():
            latents[name] = kernel.transforms[name].inv(value)
        conditioned = poutine.condition(posterior.model, data=latents)
        sites = poutine.trace(conditioned).get_trace(data).nodes
        for name, site in sites.items():
            if name in latents or _is_deterministic(site):
                columns.setdefault(name, []).append(site["value"])
    return {name: torch.stack(values) for name, values in columns.items()}


def _is_deterministic(site: dict[str, Any]) -> bool:
    return site["type"] == "sample" and bool(site["infer"].get("_deterministic"))
