"""The models declared with this library: an objective each; by the trainer's step, in `fit`, or by Pyro's SVI."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

import pyro_dgm as dgm
from pyro_dgm.experiments.recipes.compositions import levels_vae
from pyro_dgm.inference.training.replicates import choice

from .plain_pyro import svi_stepping
from .sizes import STEPS, Contestant, Size, count_in

Model = Callable[[Size], dgm.VAE]


def mlp(size: Size) -> dgm.VAE:
    encoder = dgm.Conditional(dist.Normal, dgm.mlp(size.dim, size.hidden, 2 * size.latent))
    likelihood = dgm.Bernoulli(dgm.mlp(size.latent, size.hidden, size.dim))
    return dgm.VAE(dgm.StandardNormal(size.latent), likelihood, encoder)


def conv(size: Size) -> dgm.VAE:
    network = dgm.ConvEncoder(size.event, 2 * size.latent, size.channels)
    likelihood = dgm.Bernoulli(dgm.ConvDecoder(size.latent, size.event, size.channels), event_dim=3)
    encoder = dgm.Conditional(dist.Normal, network)
    return dgm.VAE(dgm.StandardNormal(size.latent), likelihood, encoder)


def flows(size: Size) -> dgm.VAE:
    """A MAF prior, and an IAF posterior that reads the features of the encoder."""
    hidden = (size.units,)
    prior_layers = dgm.flows.maf(size.latent, size.layers, hidden=hidden)
    layers = dgm.flows.iaf(size.latent, size.layers, context=size.hidden, hidden=hidden)
    base = dgm.Conditional(dist.Normal, dgm.mlp(size.hidden, 2 * size.latent))
    embed = nn.Sequential(dgm.mlp(size.dim, size.hidden, size.hidden), nn.SiLU())
    likelihood = dgm.Bernoulli(dgm.mlp(size.latent, size.hidden, size.dim))
    prior = dgm.Flow(dgm.StandardNormal(size.latent), prior_layers)
    return dgm.VAE(prior, likelihood, dgm.Flow(base, layers, embed))


class WithoutContext(dgm.flows.Bijector):
    """Layers that the context of the base does not reach."""

    def __init__(self, layers: dgm.flows.Stack):
        super().__init__()
        self.layers = layers
        self.num_inverse = layers.num_inverse

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.layers(x)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.layers.inverse(y)


def iaf(size: Size) -> dgm.VAE:
    """An IAF posterior without a context over a diagonal normal one."""
    vae = mlp(size)
    layers = WithoutContext(dgm.flows.iaf(size.latent, size.layers, hidden=(size.units,)))
    return vae.replace(encoder=dgm.Flow(vae.guide.encoder, layers))


iwae = mlp  # under another bound


def vamp(size: Size) -> dgm.VAE:
    vae = mlp(size)
    pseudo_inputs = torch.rand(size.pseudo_inputs, size.dim)
    return vae.replace(prior=dgm.VampPrior(vae.guide.encoder, pseudo_inputs))


def digits(size: Size) -> dgm.VAE:
    """The recipe of the command line, on binary images: the time of a step does not depend on the values."""
    return levels_vae(size.dim)


def objective(model: Model, size: Size) -> dgm.training.Objective:
    vae = model(size)
    if size.particles > 1:
        return dgm.IWELBO(vae.model, vae.guide, size.particles)
    return dgm.ELBO(vae.model, vae.guide)


def first_loss(loss: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        return loss(x).item()


def stepping(model: Model, size: Size, *, compiled: bool | str) -> Contestant:
    """The trainer's step, as a user's own loop calls it."""
    loss, x = objective(model, size), size.data()
    first = first_loss(loss, x)
    trainer = dgm.SVITrainer(loss, lr=1e-3, compile=compiled)

    def step() -> None:
        with pyro.validation_enabled(False):
            trainer.step(x)

    return Contestant(step, count_in(loss), first)


def fitting(model: Model, size: Size, *, epochs: int) -> Contestant:
    """A call of `fit`, with all that it checks and keeps; the graph is there from the call before."""
    loss, x = objective(model, size), size.data(STEPS)
    first = first_loss(loss, x[: size.batch])
    trainer = dgm.SVITrainer(loss, lr=1e-3, compile=True)

    def fit(epochs: int = epochs, batches: int = STEPS) -> None:
        data = x[: batches * size.batch]
        trainer.fit(data, epochs=epochs, batch_size=size.batch, progress=False)

    warm_up = partial(fit, epochs=2, batches=10)
    return Contestant(fit, count_in(loss), first, STEPS * epochs, warm_up)


def replicated(
    model: Model, size: Size, *, seeds: int, epochs: int, at_once: int | None = None
) -> Contestant:
    """Several seeds by one call of `Replicates.fit`; a step is one of one seed."""
    x = size.data(STEPS)

    def build() -> dgm.SVITrainer:
        return dgm.SVITrainer(objective(model, size), lr=1e-3, compile=True)

    if at_once is not None:
        choice.num_at_once = lambda *_: at_once
    runs = dgm.training.Replicates(build, range(seeds))
    loss = runs.trainers[0].objective
    first = first_loss(loss, x[: size.batch])

    def fit(epochs: int = epochs, batches: int = STEPS) -> None:
        data = x[: batches * size.batch]
        runs.fit(data, epochs=epochs, batch_size=size.batch, progress=False)

    warm_up = partial(fit, epochs=2, batches=10)
    return Contestant(fit, count_in(loss), first, STEPS * seeds * epochs, warm_up)


def by_svi(model: Model, size: Size) -> Contestant:
    """The same pair of programs under `pyro.infer.SVI`."""
    vae = model(size)
    parameters = count_in(nn.ModuleList([vae.model, vae.guide]))
    return svi_stepping(vae.model, vae.guide, size, parameters)
