"""A guide for a generator that stays, and the likelihood that it tells, beside closed forms."""

from __future__ import annotations

from functools import partial

import pyro.distributions as dist
import pytest
import torch
from conftest import in_float64
from torch import nn
from toys import BatchNorm, same_toy_vae, toy_vae, without_kernels

import pyro_dgm as dgm

QUICK = {"epochs": 2, "batch_size": 10}


def linear(scale=1.0):
    r"""A GAN's generator $G(z) = W z$ under $\mathcal N(G(z), \sigma^2)$, beside an encoder that can be exact."""
    net = nn.Linear(2, 3, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[1.0, 0.4], [-0.3, 0.8], [0.5, 0.5]]))
    encoder = dgm.MultivariateNormal(nn.Linear(3, 5), 2)
    return dgm.VAE(
        dgm.StandardNormal(2),
        dgm.Normal(dgm.distributions.MeanOf(dgm.Deterministic(net)), scale),
        encoder,
    )


def evidence(vae, scale):
    weight = vae.generator.likelihood.net.likelihood.net.weight.detach()
    return dist.MultivariateNormal(torch.zeros(3), weight @ weight.T + scale**2 * torch.eye(3))


def states(module):
    return {n: t.detach().clone() for n, t in module.state_dict().items()}


def same(one, other):
    return all(torch.equal(t, other[n]) for n, t in one.items())


# The guide -----------------------------------------------------------------------------------------------------------


@in_float64
@pytest.mark.parametrize("objective", [dgm.ELBO, dgm.Sleep], ids=["elbo", "sleep"])
def test_a_linear_generator_gets_its_exact_posterior(objective):
    r"""$E[z \mid x] = P^{-1} W^T x / \sigma^2$ and covariance $P^{-1}$, awake and asleep."""
    sigma, vae = 0.5, linear(0.5)
    x = evidence(vae, sigma).sample((2000,))
    fitted = dgm.refit_guide(
        vae, x, vae.guide.encoder, epochs=25, batch_size=100, lr=0.02, objective=objective
    )
    weight = vae.generator.likelihood.net.likelihood.net.weight.detach()
    covariance = (torch.eye(2) + weight.T @ weight / sigma**2).inverse()
    with torch.no_grad():
        law = fitted.guide.encoder(x)
    exact = dist.MultivariateNormal(x @ weight @ covariance / sigma**2, covariance)
    assert torch.distributions.kl_divergence(law, exact).mean() < 0.02


def test_the_generator_and_what_was_given_stay_as_they_are():
    vae, encoder = toy_vae(), dgm.Conditional(dist.Normal, dgm.mlp(3, 4))
    before, given = states(vae), states(encoder)
    fitted = dgm.refit_guide(vae, torch.randn(20, 3), encoder, **QUICK)
    assert same(before, states(vae))
    assert same(given, states(encoder))
    assert same(states(vae.generator), states(fitted.generator))
    assert not any(torch.equal(p, given[n]) for n, p in fitted.guide.encoder.named_parameters())
    assert all(p.requires_grad for p in fitted.parameters())
    assert fitted.generator.likelihood is not vae.generator.likelihood


@pytest.mark.parametrize("objective", [dgm.ELBO, dgm.Sleep], ids=["elbo", "sleep"])
def test_a_guide_that_is_fitted_by_a_graph_is_that_of_autograd(objective, monkeypatch):
    """One graph for all epochs, though the trainer asks the generator for training mode and it stays as it is."""
    graphs, found = without_kernels(monkeypatch), []
    vae = same_toy_vae()
    vae.generator.likelihood.net[1] = nn.Sequential(BatchNorm(6), nn.SiLU())
    encoder = dgm.Conditional(dist.Normal, dgm.mlp(3, 6, 4))
    for compile_ in (False, True):
        fitted = dgm.refit_guide(
            vae,
            torch.randn(40, 3, generator=torch.Generator().manual_seed(2)),
            encoder,
            epochs=3,
            batch_size=10,
            objective=objective,
            compile=compile_,
        )
        found.append(states(fitted))
        assert fitted.generator.train().likelihood.net[1][0].training  # its modes can be set again
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-6)
    assert len(graphs) == 1


def test_the_best_epoch_on_held_out_data_is_kept():
    vae, x, val = same_toy_vae(), torch.randn(20, 3), torch.randn(20, 3)
    options = {"epochs": 20, "batch_size": 10, "lr": 0.3}
    scores = [
        dgm.SVITrainer(dgm.ELBO(fitted.model, fitted.guide)).evaluate(val, batch_size=10)["nelbo"]
        for fitted in (
            dgm.refit_guide(vae, x, vae.guide.encoder, v, **options) for v in (val, None)
        )
    ]
    assert scores[0] < scores[1]


def test_context_and_dequantizer_are_kept():
    likelihood = dgm.Normal(dgm.Concat(dgm.mlp(2 + 1, 3)))
    encoder = dgm.Conditional(dist.Normal, dgm.Concat(dgm.mlp(3 + 1, 4)))
    vae = dgm.VAE(dgm.StandardNormal(2), likelihood, encoder, dgm.UnitUniform())
    x, c = torch.randint(5, (20, 3)).to(torch.get_default_dtype()), torch.randn(20, 1)
    fitted = dgm.refit_guide(
        vae, (x, c), encoder, **QUICK, objective=partial(dgm.IWELBO, num_particles=2)
    )
    assert isinstance(fitted.guide.dequantizer, dgm.UnitUniform)
    assert dgm.nll(fitted.model, fitted.guide, x, c, num=5).per_datum.shape == (20,)


# The curve -----------------------------------------------------------------------------------------------------------


def annealed(model, guide, x):
    return dgm.ais(model, x, num=4, steps=5, leapfrog=3, start=guide)


@in_float64
@pytest.mark.parametrize(
    "score", [partial(dgm.nll, num=500), annealed], ids=["importance", "annealed"]
)
def test_the_curve_is_that_of_the_exact_evidence(score):
    r"""$x \sim \mathcal N(0, W W^T + \sigma^2 I)$ at each σ, within 0.05 nats; the least is at the σ of the data."""
    vae = linear()
    train, test = evidence(vae, 0.4).sample((1500,)), evidence(vae, 0.4).sample((100,))
    curve = dgm.diagnostics.nll_over_scale(
        vae, train, test, (0.2, 0.4, 1.0), epochs=15, batch_size=100, lr=0.02, score=score
    )
    assert curve.scales == (1.0, 0.4, 0.2)
    for scale, found in zip(curve.scales, curve.scores, strict=True):
        exact = -evidence(vae, scale).log_prob(test)
        torch.testing.assert_close(found.mean, exact.mean().item(), atol=0.05, rtol=0)
    assert curve.scales[curve.best] == 0.4
    assert [v.generator.likelihood.scale.item() for v in curve.vaes] == pytest.approx(curve.scales)
    assert same(
        states(vae.generator.likelihood.net), states(curve.vaes[0].generator.likelihood.net)
    )


def test_the_curve_is_fitted_by_graphs_where_that_is_asked_for(monkeypatch):
    graphs, x = without_kernels(monkeypatch), torch.randn(20, 3)
    dgm.diagnostics.nll_over_scale(linear(), x, x[:5], [1.0, 0.5], **QUICK, compile=True)
    assert len(graphs) == 2


def test_it_prints_a_table_that_says_what_it_is():
    x = torch.randn(20, 3)
    curve = dgm.diagnostics.nll_over_scale(
        toy_vae(), x, x, (0.5, 2.0), **QUICK, score=partial(dgm.nll, num=5)
    )
    lines = str(curve).split("\n")
    assert "upper bound in expectation" in lines[0]
    assert [line.split()[0] for line in lines[1:]] == ["2", "0.5"]
    assert ["*" in line for line in lines[1:]] == [i == curve.best for i in range(2)]
    table = curve.to_dataframe()
    assert list(table.columns) == ["scale", "nll", "stderr"]
    assert table["scale"].tolist() == [2, 0.5]
    assert table["nll"].tolist() == [score.mean for score in curve.scores]
    assert "upper bound in expectation" in curve._repr_html_()


def test_context_is_scored_as_well():
    likelihood = dgm.Normal(dgm.Concat(dgm.mlp(2 + 1, 3)))
    encoder = dgm.Conditional(dist.Normal, dgm.Concat(dgm.mlp(3 + 1, 4)))
    batch = torch.randn(20, 3), torch.randn(20, 1)
    vae = dgm.VAE(dgm.StandardNormal(2), likelihood, encoder)
    curve = dgm.diagnostics.nll_over_scale(
        vae, batch, batch, (1.0,), **QUICK, score=partial(dgm.nll, num=5)
    )
    assert curve.scores[0].per_datum.shape == (20,)


def test_a_likelihood_without_a_scale_is_refused():
    vae = toy_vae().replace(likelihood=dgm.Deterministic(dgm.mlp(2, 3)))
    with pytest.raises(
        TypeError, match=r"expected a Normal likelihood, .* got Deterministic.*Fix: vae.replace"
    ):
        dgm.diagnostics.nll_over_scale(vae, torch.zeros(5, 3), torch.zeros(5, 3), (1.0,))


@pytest.mark.parametrize("scales", [(), (1.0, 0.0)])
def test_scales_that_are_not_positive_are_refused(scales):
    with pytest.raises(ValueError, match="expected at least one σ, and all of them positive.*Fix"):
        dgm.diagnostics.nll_over_scale(toy_vae(), torch.zeros(5, 3), torch.zeros(5, 3), scales)
