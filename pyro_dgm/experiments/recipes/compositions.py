"""Whole VAEs from a few numbers, each the composition that a user would write."""

from __future__ import annotations

import pyro.distributions as dist
from torch import nn

from ...programs.conditionals.conditional import Conditional, StandardNormal
from ...programs.flows.autoregressive import iaf, maf
from ...programs.flows.flow import Flow
from ...programs.likelihoods.categories import Bernoulli
from ...programs.likelihoods.discretized import DiscretizedLogistic
from ...programs.networks.dense import gated_mlp, mlp
from ...programs.networks.units import Rescale
from ...programs.vae import VAE


def levels_vae(
    dim: int = 64,
    levels: int = 17,
    latent: int = 16,
    hidden: int = 512,
    layers: int = 2,
    min_scale: float = 0.3,
) -> VAE:
    r"""Images of integer levels: MAF prior, IAF posterior, discretized logistic likelihood.

    Args:
        dim: pixels D.
        levels: grey levels L.
        latent: latent dims.
        hidden: hidden units of decoder and encoder.
        layers: flow layers, each way.
        min_scale: smallest logistic scale, in levels.
    """
    prior = Flow(StandardNormal(latent), maf(latent, layers))
    likelihood = DiscretizedLogistic(mlp(latent, hidden, 2 * dim), levels, min_scale)
    features = hidden // 2
    embed = nn.Sequential(Rescale(0, levels - 1), mlp(dim, hidden, features), nn.SiLU())
    base = Conditional(dist.Normal, mlp(features, 2 * latent))
    encoder = Flow(base, iaf(latent, layers, context=features), embed)
    return VAE(prior, likelihood, encoder)


def binary_vae(dim: int = 784, latent: int = 40, hidden: int = 300) -> VAE:
    r"""Binary images: standard prior, two gated layers each way, diagonal posterior, Bernoulli likelihood.

    Args:
        dim: pixels D.
        latent: latent dims.
        hidden: hidden units.

    References:
        Tomczak, Welling 2018, arXiv:1705.07120 (test NLL 84.50 nats on dynamic MNIST after full training).
    """
    likelihood = Bernoulli(gated_mlp(latent, hidden, hidden, dim))
    encoder = Conditional(dist.Normal, gated_mlp(dim, hidden, hidden, 2 * latent))
    return VAE(StandardNormal(latent), likelihood, encoder)
