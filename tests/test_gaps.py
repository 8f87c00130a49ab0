"""The inference gap in two parts, against closed forms of the linear-Gaussian model."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch
from conftest import in_float64
from torch import nn

import pyro_dgm as dgm


class Exact:
    """A linear-Gaussian VAE: its evidence, its posterior, and the diagonal normal nearest to it."""

    def __init__(self, shift: float, spread: float):
        decoder, scale = nn.Linear(2, 4), 0.7
        decoder.weight.data = torch.tensor([[1.0, 0.8], [0.8, 1.0], [0.5, 0.9], [1.0, 0.2]])
        weight, bias = decoder.weight.detach(), decoder.bias.detach()
        self.precision = torch.eye(2) + weight.T @ weight / scale**2
        self.evidence = dist.MultivariateNormal(bias, weight @ weight.T + scale**2 * torch.eye(4))
        encoder = nn.Linear(4, 4)
        with torch.no_grad():  # the mean of the posterior moved, and the scales of the nearest diagonal times a factor
            encoder.weight[:2] = torch.linalg.solve(self.precision, weight.T) / scale**2
            encoder.bias[:2] = -encoder.weight[:2] @ bias + shift
            encoder.weight[2:] = 0
            encoder.bias[2:] = torch.expm1(self.precision.diagonal() ** -0.5 * spread).log()
        self.vae = dgm.VAE(
            dgm.StandardNormal(2), dgm.Normal(decoder, scale), dgm.Conditional(dist.Normal, encoder, floor=1e-12)
        )

    @property
    def approximation(self) -> float:
        r"""$KL$ of the nearest diagonal to the posterior: $\frac12 (\sum_d \log P_{dd} - \log |P|)$."""
        return float(self.precision.diagonal().log().sum() - self.precision.logdet()) / 2


@in_float64
@pytest.mark.parametrize(("shift", "spread"), [(0.0, 1.0), (0.6, 1.4)])
def test_both_gaps_are_those_of_the_closed_forms(shift, spread):
    """Means over 40 data; 5 standard errors of 2,000 draws, and 0.01 nats for an ascent that stops."""
    exact = Exact(shift, spread)
    x = exact.evidence.sample((40,))
    found = dgm.gaps(exact.vae, x, num=2000, num_steps=150)
    moved = torch.full((2,), shift)
    amortization = moved @ exact.precision @ moved / 2 + 2 * (spread**2 / 2 - 0.5 - torch.tensor(spread).log())
    draws = dgm.draw(exact.vae.model, exact.vae.guide, x, num=2000).log_weight.detach()
    error = 5 * float((draws.var(0) / 2000).mean() / 40) ** 0.5 + 0.01
    assert abs(found.amortization.value - float(amortization)) < error
    assert abs(found.approximation.value - exact.approximation) < error
    assert exact.approximation > 0.05  # else the second line says nothing
    assert found.inference.value == pytest.approx(found.amortization.value + found.approximation.value)
    assert "amortization" in str(found)


@in_float64
def test_a_truth_of_the_same_data_takes_the_place_of_importance_sampling():
    exact = Exact(0.3, 1.0)
    x = exact.evidence.sample((6,))
    truth = dgm.ais(exact.vae.model, x, num=2, steps=3, start=exact.vae.guide)
    found = dgm.gaps(exact.vae, x, num=20, num_steps=5, truth=truth)
    expected = dgm.nll(exact.vae.model, exact.vae.guide, x, num=20).nelbo - truth.per_datum
    torch.testing.assert_close(found.amortization_per_datum + found.approximation_per_datum, expected)
    with pytest.raises(ValueError, match="gaps: expected a truth of 5 data, got one of 6"):
        dgm.gaps(exact.vae, x[:5], num=20, num_steps=1, truth=truth)


def test_a_dequantized_vae_is_refused():
    encoder = dgm.Conditional(dist.Normal, dgm.mlp(3, 4))
    vae = dgm.VAE(dgm.StandardNormal(2), dgm.Normal(dgm.mlp(2, 3)), encoder, dgm.UnitUniform())
    with pytest.raises(ValueError, match=r"gaps: expected a VAE without a dequantizer.*Fix: a discretized likelihood"):
        dgm.gaps(vae, torch.zeros(3, 3))
