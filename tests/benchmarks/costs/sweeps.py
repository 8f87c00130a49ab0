"""Calls whose cost is measured over a decade of one size each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import pyro
import torch
from contestants import ours
from contestants.sizes import IWAE, SMALL, SMALL_FLOWS, Size
from torch import Tensor

import pyro_dgm as dgm

Call = Callable[[], object]


@dataclass(frozen=True)
class Sweep:
    """A call prepared for sizes over a decade.

    Attributes:
        title: what is called.
        by: what grows.
        sizes: of it.
        prepare: the call of a size.
    """

    title: str
    by: str
    sizes: tuple[int, ...]
    prepare: Callable[[int], Call]


def decade(first: int) -> tuple[int, ...]:
    """Five sizes from `first` to ten times as many, evenly on the log scale."""
    return tuple(round(first * 10 ** (k / 4)) for k in range(5))


def step_of(model: ours.Model, size: Size, *, compiled: bool = False) -> Call:
    trainer = dgm.SVITrainer(ours.objective(model, size), lr=1e-3, compile=compiled)
    x = size.data()

    def step() -> None:
        with pyro.validation_enabled(False):
            trainer.step(x)

    return step


def step_by_batch(batch: int) -> Call:
    return step_of(ours.mlp, replace(SMALL, batch=batch), compiled=True)


def eager_step_by_batch(batch: int) -> Call:
    return step_of(ours.mlp, replace(SMALL, batch=batch))


def step_by_particles(particles: int) -> Call:
    return step_of(ours.iwae, replace(IWAE, particles=particles))


def step_by_latents(latent: int) -> Call:
    return step_of(ours.flows, replace(SMALL_FLOWS, latent=latent))


def step_by_layers(layers: int) -> Call:
    return step_of(ours.flows, replace(SMALL_FLOWS, layers=layers))


@cache
def trainer() -> dgm.SVITrainer:
    """One for epochs of all sizes, so that there is one graph."""
    return dgm.SVITrainer(ours.objective(ours.mlp, SMALL), lr=1e-3, compile=True)


def epoch_by_data(num: int) -> Call:
    x = images(num)
    return lambda: trainer().fit(x, epochs=1, batch_size=SMALL.batch, progress=False)


@cache
def pair(latent: int = SMALL.latent) -> dgm.VAE:
    return ours.mlp(replace(SMALL, latent=latent))


def images(num: int) -> Tensor:
    return torch.rand(num, SMALL.dim).bernoulli()


def nll_by_data(num_data: int) -> Call:
    x = images(num_data)
    return lambda: dgm.nll(pair().model, pair().guide, x, num=100)


def nll_by_draws(num: int) -> Call:
    x = images(50)
    return lambda: dgm.nll(pair().model, pair().guide, x, num=num)


def nll_by_latents(latent: int) -> Call:
    x, vae = images(100), pair(latent)
    return lambda: dgm.nll(vae.model, vae.guide, x, num=200)


def surgery_by_pairs(pairs: int) -> Call:
    """As many draws as data."""
    x = images(round(pairs**0.5))
    return lambda: dgm.surgery(pair().model, pair().guide, x, num=len(x))


# Of `nll` the smallest sizes fill one chunk: half a chunk is faster, since its numbers stay in the cache.
TIMES = [
    Sweep("compiled step, MLP VAE 784-64-20", "batch", decade(64), step_by_batch),
    Sweep("eager step of IWAE 784-200-20, batch 32", "particles", decade(5), step_by_particles),
    Sweep("eager step, MAF and IAF 64-64, batch 64", "latents", decade(8), step_by_latents),
    Sweep("eager step, MAF and IAF 64-64-8, batch 64", "layers", decade(1), step_by_layers),
    Sweep("epoch of a compiled fit, 784-64-20", "data", decade(12_800), epoch_by_data),
    Sweep("nll, 784-64-20, 100 draws", "data", decade(200), nll_by_data),
    Sweep("nll, 784-64-20, 50 data", "draws", decade(400), nll_by_draws),
    Sweep("nll, 784-64, 100 data, 200 draws", "latents", decade(8), nll_by_latents),
    Sweep("surgery, 784-64-20", "pairs", decade(400_000), surgery_by_pairs),
]

MEMORY = [
    Sweep("eager step, MLP VAE 784-64-20", "batch", decade(2_000), eager_step_by_batch),
    Sweep("epoch of a compiled fit, 784-64-20", "data", decade(12_800), epoch_by_data),
    Sweep("nll, 784-64-20, 100 draws", "data", decade(200), nll_by_data),
    Sweep("nll, 784-64-20, 50 data", "draws", decade(400), nll_by_draws),
    Sweep("surgery, 784-64-20", "pairs", decade(400_000), surgery_by_pairs),
]
