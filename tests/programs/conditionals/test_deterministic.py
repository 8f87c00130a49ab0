"""A deterministic decoder generates and has no density; with an observation model around it, chains invert it."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch
from conftest import in_float64
from torch import nn

import pyro_dgm as dgm


def generator(dim=2, observed=3, bias=True):
    return dgm.LatentVariableModel(
        dgm.StandardNormal(dim), dgm.Deterministic(nn.Linear(dim, observed, bias))
    )


def test_it_generates_what_its_network_makes():
    model = generator()
    z = dgm.generate(model, 1000, site="z")
    assert torch.equal(dgm.generate(model, 1000), model.likelihood.net(z).detach())


@pytest.mark.parametrize(("shape", "event_dim"), [((3,), 1), ((1, 2, 3), 3)])
def test_an_event_is_as_wide_as_the_data(shape, event_dim):
    decoder = dgm.Deterministic(
        nn.Sequential(nn.Linear(2, torch.Size(shape).numel()), nn.Unflatten(-1, shape)), event_dim
    )
    law = decoder(torch.zeros(4, 5, 2))
    assert (law.batch_shape, law.event_shape) == ((4, 5), shape)


def test_it_is_refused_as_a_density():
    model = generator()
    guide = dgm.AmortizedGuide(dgm.Conditional(dist.Normal, nn.Linear(3, 4)))
    with pytest.raises(ValueError, match="a Delta observation has no density"):
        dgm.preflight(model, guide, torch.zeros(5, 3))


def test_the_mean_shares_the_network_of_its_likelihood():
    model = generator()
    around = dgm.Normal(dgm.distributions.MeanOf(model.likelihood), scale=0.5)
    z = torch.randn(7, 2)
    assert torch.equal(around(z).mean, model.likelihood.net(z))
    assert {id(p) for p in model.likelihood.parameters()} < {id(p) for p in around.parameters()}


@pytest.mark.parametrize("likelihood", [dgm.Normal, dgm.Bernoulli, dgm.Deterministic])
def test_any_likelihood_with_a_mean_has_one(likelihood):
    decoder, z = likelihood(nn.Linear(2, 3)), torch.randn(7, 2)
    assert torch.equal(dgm.distributions.MeanOf(decoder)(z), decoder(z).mean)


@in_float64
def test_chains_invert_the_generator_at_data_that_it_made():
    r"""$p(z \mid G(z_*))$ is normal with precision $P = I + W^T W / \sigma^2$ and mean $P^{-1} W^T W z_* / \sigma^2$.

    5 standard errors of the chains; z* itself lies within 5 posterior deviations.
    """
    model, sigma = generator(), 0.05
    with torch.no_grad():
        model.likelihood.net.weight.copy_(torch.tensor([[1.0, 0.4], [-0.3, 0.8], [0.5, 0.5]]))
        z = torch.randn(6, 2)
        x = model.likelihood.net(z)
    observed = dgm.LatentVariableModel(
        model.prior, dgm.Normal(dgm.distributions.MeanOf(model.likelihood), sigma)
    )
    run = dgm.hmc(observed, x, num=100, chains=8, warmup=80, leapfrog=5)
    draws = run.draws["z"].flatten(0, 1)
    gram = model.likelihood.net.weight.detach().T @ model.likelihood.net.weight.detach() / sigma**2
    covariance = (torch.eye(2) + gram).inverse()
    deviation = covariance.diagonal().sqrt()
    assert run.worst_rhat < 1.05
    assert (
        (draws.mean(0) - z @ gram @ covariance).abs() < 5 * deviation / run.ess["z"].sqrt()
    ).all()
    assert ((draws.std(0) / deviation - 1).abs() < 5 / (2 * run.ess["z"]).sqrt()).all()
    assert ((draws.mean(0) - z).abs() < 5 * deviation).all()
    assert float(deviation.max()) < 0.1  # the data say where z is: the prior has 1


def test_the_representation_shows_the_settings():
    assert "event_dim=3" in repr(dgm.Deterministic(nn.Identity(), event_dim=3))


def test_a_network_in_place_of_a_likelihood_has_no_mean():
    with pytest.raises(
        TypeError, match=r"likelihood: expected a conditional.*got MLP, .*Fix: likel"
    ):
        dgm.distributions.MeanOf(dgm.mlp(2, 3))
