"""Models of parts: a VAE, and a generator without a guide, in the sizes of the data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from torch import nn

from ...programs import vae
from ...programs.guides import EmptyGuide
from ...programs.models import LatentVariableModel
from ..data.datasets import Data
from .encoders import Diagonal
from .likelihoods import Automatic, Deterministic
from .networks import Dense, Network
from .priors import Standard
from .recipe import ModelAndGuide, Recipe
from .slots import Dequantizer, Encoder, Likelihood, Prior


@dataclass(frozen=True)
class VAE(Recipe):
    """A VAE of a prior, a likelihood and an encoder; with a context in the data it is a conditional one.

    Args:
        latent: latent dims.
        network: what encoder and decoder are made of.
        prior: of the latents.
        likelihood: of the data given the latents.
        encoder: the posterior that the guide draws from.
        dequantizer: noise that makes integers real numbers, for likelihoods that are densities.
    """

    latent: int = 16
    network: Network = Dense()
    prior: Prior = Standard()
    likelihood: Likelihood = Automatic()
    encoder: Encoder = Diagonal()
    dequantizer: Dequantizer | None = None

    def build(self, data: Data) -> vae.VAE:  # noqa: D102
        @cache
        def encoder() -> nn.Module:
            return self.encoder.build(latent=self.latent, data=data, network=self.network)

        prior = self.prior.build(latent=self.latent, data=data, encoder=encoder)
        likelihood = _likelihood(self.likelihood, self.latent, data, self.network, self.dequantizer)
        if self.dequantizer is None:
            return vae.VAE(prior, likelihood, encoder())
        noise = self.dequantizer.build(data=data, network=self.network)
        return vae.VAE(prior, likelihood, encoder(), noise, levels=data.levels)


@dataclass(frozen=True)
class Generator(Recipe):
    """A model without a guide, for adversarial training alone.

    Args:
        latent: latent dims.
        network: what the decoder is made of.
        prior: of the latents; none that needs an encoder.
        likelihood: of the data given the latents.
    """

    latent: int = 16
    network: Network = Dense()
    prior: Prior = Standard()
    likelihood: Likelihood = Deterministic()

    def build(self, data: Data) -> nn.Module:  # noqa: D102
        prior = self.prior.build(latent=self.latent, data=data, encoder=_no_encoder)
        likelihood = _likelihood(self.likelihood, self.latent, data, self.network)
        return ModelAndGuide(LatentVariableModel(prior, likelihood), EmptyGuide())


def _likelihood(
    likelihood: Likelihood,
    latent: int,
    data: Data,
    network: Network,
    dequantizer: Dequantizer | None = None,
) -> nn.Module:
    is_density = dequantizer is not None
    # Data with missing values: their mask is the last context, and `Observed(…)` goes around this one.
    return likelihood.build(num_in=latent, data=data, network=network, is_density=is_density)


def _no_encoder() -> nn.Module:
    raise ValueError(
        "prior: expected one that needs no encoder, since a generator has none. "
        "Fix: --model.prior=Mixture, or --model=VAE."
    )
