"""Models of parts: a VAE, and a generator without a guide, in the sizes of the data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from torch import nn

from ...programs import vae
from ...programs.guides import EmptyGuide
from ...programs.likelihoods.observed import Observed
from ...programs.models import LatentVariableModel
from ..data.datasets import Data
from .encoders import Diagonal
from .likelihoods import Automatic, Deterministic
from .networks import Dense, Network
from .priors import Standard, WithoutMask
from .recipe import ModelAndGuide, Recipe
from .slots import Dequantizer, Encoder, Likelihood, Prior
from .units import require_complete


@dataclass(frozen=True)
class VAE(Recipe):
    """A VAE of a prior, a likelihood and an encoder; with a context in the data it is a conditional one.

    Of data with missing numbers it is a likelihood of those that are there; the encoder sees which.

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

        is_density = self.dequantizer is not None
        prior = self.prior.build(latent=self.latent, data=data, encoder=encoder)
        likelihood = self.likelihood.build(
            num_in=self.latent, data=data, network=self.network, is_density=is_density
        )
        if data.has_mask:
            prior, likelihood = WithoutMask(prior), Observed(likelihood)
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
        require_complete("Generator", data)
        prior = self.prior.build(latent=self.latent, data=data, encoder=_no_encoder)
        likelihood = self.likelihood.build(num_in=self.latent, data=data, network=self.network)
        return ModelAndGuide(LatentVariableModel(prior, likelihood), EmptyGuide())


def _no_encoder() -> nn.Module:
    raise ValueError(
        "prior: expected one that needs no encoder, since a generator has none. "
        "Fix: --model.prior=Mixture, or --model=VAE."
    )
