"""Parts that are put together wrongly are refused where they are handed over, with the fix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from house.answers import expect
from house.entries import Critic, D, build, normal
from house.mistakes import IN_DATA, IN_PROGRAMS, a_distribution
from house.options import IN_OPTIONS
from torch import nn

import pyro_dgm as dgm


def prior() -> nn.Module:
    return dgm.StandardNormal(2)


def likelihood() -> nn.Module:
    return dgm.Normal(nn.Linear(2, D))


def encoder() -> nn.Module:
    return dgm.Conditional(dist.Normal, nn.Linear(D, 4))


def pair() -> tuple[nn.Module, nn.Module]:
    vae = build("real")
    return vae.model, vae.guide


def frozen() -> tuple[nn.Module, nn.Module]:
    model, guide = pair()
    return model.requires_grad_(False), guide.requires_grad_(False)


CONSTRUCTIONS: dict[str, tuple[Callable[[], Any], str]] = {
    "VAE of a distribution as prior": (
        lambda: dgm.VAE(a_distribution(), likelihood(), encoder()),
        "prior=StandardNormal(8)",
    ),
    "VAE of a class as prior": (
        lambda: dgm.VAE(dgm.StandardNormal, likelihood(), encoder()),
        "prior=StandardNormal(8)",
    ),
    "VAE of a network as likelihood": (
        lambda: dgm.VAE(prior(), nn.Linear(2, D), encoder()),
        "likelihood=Bernoulli(net)",
    ),
    "VAE of a network as encoder": (
        lambda: dgm.VAE(prior(), likelihood(), nn.Linear(D, 4)),
        "Conditional(dist.Normal, net)",
    ),
    "VAE of a guide as encoder": (
        lambda: dgm.VAE(prior(), likelihood(), build("real").guide),
        "Conditional(dist.Normal, net)",
    ),
    "DensityModel of a distribution": (
        lambda: dgm.DensityModel(a_distribution()),
        "Flow(StandardNormal",
    ),
    "Flow of a distribution": (
        lambda: dgm.Flow(a_distribution(), dgm.maf(2, 1)),
        "StandardNormal(",
    ),
    "Flow of a transformer": (
        lambda: dgm.Flow(prior(), dgm.flows.Affine()),
        "Coupling(dim, transformer=Affine())",
    ),
    "Flow of a list of transformers": (
        lambda: dgm.Flow(prior(), [dgm.flows.Spline()]),
        "Coupling(dim, transformer=Spline())",
    ),
    "Conditional of a distribution": (
        lambda: dgm.Conditional(a_distribution(), nn.Linear(D, 4)),
        "dist.Normal",
    ),
    "Conditional without a network": (lambda: dgm.Conditional(dist.Normal, nn.Linear), "net=mlp("),
    "ELBO of a VAE": (lambda: dgm.ELBO(build("real")), "vae.model, vae.guide"),
    "ELBO of a model alone": (lambda: dgm.ELBO(pair()[0]), "ELBO(model, guide)"),
    "ELBO of no particles": (lambda: dgm.ELBO(*pair(), num_particles=0), "num_particles=1"),
    "IWELBO of no particles": (lambda: dgm.IWELBO(*pair(), num_particles=0), "num_particles=1"),
    "NoiseGuide of a distribution": (lambda: dgm.NoiseGuide(a_distribution()), "UnitUniform()"),
    "SVITrainer of a model": (lambda: dgm.SVITrainer(pair()[0]), "ELBO("),
    "SVITrainer of a VAE": (lambda: dgm.SVITrainer(build("real")), "ELBO(vae.model, vae.guide)"),
    "SVITrainer of a class": (lambda: dgm.SVITrainer(dgm.ELBO), "ELBO("),
    "SVITrainer of no parameters": (
        lambda: dgm.SVITrainer(dgm.ELBO(dgm.DensityModel(prior()), dgm.EmptyGuide())),
        "a network in one of its programs",
    ),
    "SVITrainer of frozen programs": (
        lambda: dgm.SVITrainer(dgm.ELBO(*frozen())),
        "requires_grad_(True)",
    ),
    "GANTrainer of a VAE": (lambda: dgm.GANTrainer(build("real"), Critic()), "vae.generator"),
    "GANTrainer of a class as critic": (lambda: dgm.GANTrainer(pair()[0], Critic), "Critic("),
    "GANTrainer of a class as game": (
        lambda: dgm.GANTrainer(pair()[0], Critic(), dgm.NonSaturating),
        "NonSaturating()",
    ),
    "khat of one row": (lambda: dgm.khat(torch.randn(100)), "log_weight[:, None]"),
}


@pytest.mark.parametrize("name", list(CONSTRUCTIONS))
def test_a_mistake_in_a_construction_is_refused_with_the_fix(name):
    build_it, fix = CONSTRUCTIONS[name]
    expect(fix, build_it)


@pytest.mark.parametrize(
    "convert", [lambda w: w.numpy(), lambda w: w.bfloat16()], ids=["array", "bfloat16"]
)
def test_khat_takes_arrays_and_half_precision(convert):
    log_weight = normal(100, 2).bfloat16().to(torch.get_default_dtype())
    found, right = dgm.khat(convert(log_weight)), dgm.khat(log_weight.float())
    torch.testing.assert_close(found.double(), right.double(), rtol=1e-3, atol=1e-3)


def test_there_are_at_least_twenty_five_mistakes():
    assert len(IN_DATA) + len(IN_PROGRAMS) + len(IN_OPTIONS) + len(CONSTRUCTIONS) >= 75
