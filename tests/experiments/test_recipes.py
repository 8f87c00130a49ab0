"""The recipes are what their docstrings say."""

import pytest
import torch

from pyro_dgm import ELBO, Flow, StandardNormal
from pyro_dgm.experiments.recipes.compositions import binary_vae, levels_vae


def test_levels_vae_has_a_flow_on_both_sides_and_scores_integer_images():
    vae = levels_vae(dim=9, levels=5, latent=3, hidden=16)
    assert isinstance(vae.model.prior, Flow)
    assert isinstance(vae.guide.encoder, Flow)
    x = torch.randint(0, 5, (7, 9))
    report = ELBO(vae.model, vae.guide).preflight(x)
    assert report.latent == ("z",)
    assert ELBO(vae.model, vae.guide)(x).isfinite()


def test_binary_vae_has_the_published_number_of_parameters():
    gated = lambda a, b: 2 * (a + 1) * b  # noqa: E731
    plain = lambda a, b: (a + 1) * b  # noqa: E731
    expected = (
        gated(784, 300)
        + gated(300, 300)
        + plain(300, 80)
        + gated(40, 300)
        + gated(300, 300)
        + plain(300, 784)
    )
    vae = binary_vae()
    assert sum(p.numel() for p in vae.parameters()) == expected
    assert isinstance(vae.model.prior, StandardNormal)


def test_binary_vae_refuses_grey_pixels():
    vae = binary_vae(dim=9, latent=2, hidden=8)
    with pytest.raises(
        ValueError, match=r"site 'x': expected binary values .* got grey values .*Fix: binarize"
    ):
        ELBO(vae.model, vae.guide).preflight(torch.rand(5, 9))
