"""The six programs of `binary_tables.py`, and the recipe of all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import pyro.distributions as dist
import torch
from torch import Tensor, nn

import pyro_dgm as dgm


@dataclass(frozen=True)
class Recipe:
    """What is the same for every table and every program."""

    latent: int = 16
    hidden: int = 256
    particles: int = 5
    pseudo_inputs: int = 100
    dropout: float = 0.3
    weight_decay: float = 0.05
    lr: float = 3e-3
    ema: float = 0.998
    steps: int = 2500
    draws: int = 200
    val_draws: int = 100
    sum_draws: int = 400
    compile: bool | str = "auto"

    def batch_size(self, num: int) -> int:
        """150 data, at most 500 steps an epoch, and at least ten steps an epoch of few data."""
        return min(num, max(16, min(150, num // 10), num // 500))

    def epochs(self, num: int) -> int:
        """So many steps, and at least ten epochs of many data."""
        return max(min(10, self.steps), ceil(self.steps / max(1, num // self.batch_size(num))))


class Dropout(nn.Module):
    r"""$x_d\, b_d / (1 - p)$, $b_d \sim \mathrm{Bern}(1 - p)$, of noise whose size alone depends on x."""

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(torch.get_default_dtype())
        if not self.training or self.p == 0:
            return x
        return x * (torch.rand_like(x) >= self.p) / (1 - self.p)


class Parts:
    """The parts of which the programs of one table are made.

    Args:
        recipe: their sizes.
        train: the data.
    """

    def __init__(self, recipe: Recipe, train: Tensor):
        self.recipe = recipe
        self.train = train
        self.dim = train.shape[1]

    def encoder(self) -> nn.Module:
        recipe = self.recipe
        return dgm.Conditional(dist.Normal, dgm.mlp(self.dim, recipe.hidden, 2 * recipe.latent))

    def net(self) -> nn.Module:
        return dgm.mlp(self.recipe.latent, self.recipe.hidden, self.dim)

    def flow(self) -> nn.Module:
        latent = self.recipe.latent
        return dgm.Flow(dgm.StandardNormal(latent), dgm.maf(latent, layers=2, hidden=(64,)))

    def columns(self, net: nn.Module | None = None, dropout: float = 0.0) -> nn.Module:
        made = dgm.flows.MADE(self.dim, hidden=(self.recipe.hidden,), num_params=1)
        return dgm.distributions.AutoregressiveBernoulli(made, net, scale=Dropout(dropout))


def vae(parts: Parts) -> dgm.training.Objective:
    """Standard normal prior, independent columns, normal guide."""
    prior = dgm.StandardNormal(parts.recipe.latent)
    pair = dgm.VAE(prior, dgm.Bernoulli(parts.net()), parts.encoder())
    return dgm.ELBO(pair.model, pair.guide)


def flow_prior(parts: Parts) -> dgm.training.Objective:
    """The VAE with a masked autoregressive flow as its prior."""
    pair = dgm.VAE(parts.flow(), dgm.Bernoulli(parts.net()), parts.encoder())
    return dgm.ELBO(pair.model, pair.guide)


def vamp_prior(parts: Parts) -> dgm.training.Objective:
    """The VAE with a VampPrior, whose pseudo-inputs start at data."""
    encoder = parts.encoder()
    prior = dgm.VampPrior(encoder, parts.train[: parts.recipe.pseudo_inputs])
    pair = dgm.VAE(prior, dgm.Bernoulli(parts.net()), encoder)
    return dgm.ELBO(pair.model, pair.guide)


def importance_weighted(pair: dgm.VAE, parts: Parts) -> dgm.training.Objective:
    """The importance-weighted bound, with the gradient that its encoder needs."""
    estimator = dgm.DoublyReparameterized()
    return dgm.IWELBO(pair.model, pair.guide, parts.recipe.particles, estimator=estimator)


def iwelbo(parts: Parts) -> dgm.training.Objective:
    """The VAE trained by the importance-weighted bound."""
    prior = dgm.StandardNormal(parts.recipe.latent)
    pair = dgm.VAE(prior, dgm.Bernoulli(parts.net()), parts.encoder())
    return importance_weighted(pair, parts)


def autoregressive(parts: Parts) -> dgm.training.Objective:
    """A masked network and no latents: exact."""
    return dgm.ELBO(dgm.DensityModel(parts.columns()), dgm.EmptyGuide())


def combined(parts: Parts) -> dgm.training.Objective:
    """Flow prior, autoregressive columns given z, which see a part of each other, the importance-weighted bound."""
    columns = parts.columns(parts.net(), parts.recipe.dropout)
    pair = dgm.VAE(parts.flow(), columns, parts.encoder())
    return importance_weighted(pair, parts)


PROGRAMS: dict[str, Callable[[Parts], dgm.training.Objective]] = {
    "combined": combined,
    "IWELBO": iwelbo,
    "VAE": vae,
    "autoregressive": autoregressive,
    "flow prior": flow_prior,
    "VampPrior": vamp_prior,
}
