"""The sleep phase: its least loss is a conditional entropy, its best guide the posterior, and it moves no model."""

from __future__ import annotations

from math import e, log, pi

import pyro.distributions as dist
import pytest
import torch
from conftest import in_float64
from torch import nn
from toys import (
    BatchNorm,
    ExactGuide,
    LinearGaussian,
    Series,
    SeriesGuide,
    captured,
    stepped,
    toy_vae,
)

import pyro_dgm as dgm
from pyro_dgm.inference.drawing.simulation import log_joint, simulate
from pyro_dgm.inference.process.states import fork_rng


def linear(slope=(1.0, -2.0, 0.5), scale=0.7):
    r"""$z \sim N(0, 1)$, $x \mid z \sim N(w z, s^2 I)$: a normal posterior that a diagonal encoder can be."""
    net = nn.Linear(1, len(slope), bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.tensor(slope)[:, None])
    return dgm.LatentVariableModel(dgm.StandardNormal(1), dgm.Normal(net, scale))


def deterministic(dim=2):
    """The generator of a GAN: it shows the first coordinate of z and hides the others."""
    net = nn.Linear(dim, 1, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.eye(dim)[:1])
    return dgm.LatentVariableModel(dgm.StandardNormal(dim), dgm.Deterministic(net))


@in_float64
def test_the_loss_of_the_exact_posterior_is_the_conditional_entropy():
    r"""$H(z \mid x) = \frac12 \log \det 2 \pi e \Sigma$; 5 standard errors of 40,000 draws."""
    model = LinearGaussian()
    guide, num = ExactGuide(model), 40_000
    with torch.no_grad():
        x, latents = simulate(model, num, (), ["z"], 1)
        costs = -log_joint(guide, (x,), latents, 1)
        loss = dgm.Sleep(model, guide)(torch.zeros(num, 4))
    entropy = log(2 * pi * e) + guide.root.logdet()
    stderr = costs.std() / num**0.5
    assert float(stderr) < 0.01
    assert abs(costs.mean() - entropy) < 5 * stderr
    assert abs(loss - entropy) < 5 * stderr


@in_float64
def test_a_wrong_guide_loses_its_kullback_leibler_divergence():
    r"""A posterior mean moved by δ loses $\frac12 \delta^T \Sigma^{-1} \delta$; 5 standard errors of 40,000 draws."""
    model = LinearGaussian()
    exact, moved, num = ExactGuide(model), ExactGuide(model, shift=0.2), 40_000
    with torch.no_grad():
        x, latents = simulate(model, num, (), ["z"], 1)
        loss = log_joint(exact, (x,), latents, 1) - log_joint(moved, (x,), latents, 1)
    delta = moved.shift.detach()
    kl = delta @ torch.cholesky_inverse(exact.root) @ delta / 2
    assert abs(loss.mean() - kl) < 5 * loss.std() / num**0.5


@in_float64
def test_training_finds_the_exact_posterior_without_a_datum():
    r"""Weights $\Sigma w^T / s^2$, bias 0, scale $\Sigma^{1/2}$; the data are zeros, and nothing is learned of them."""
    model = linear()
    encoder = dgm.Normal(nn.Linear(3, 1))
    trainer = dgm.SVITrainer(
        dgm.Sleep(model, dgm.AmortizedGuide(encoder)),
        lr=0.05,
        schedule=lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9),
    )
    trainer.fit(torch.zeros(10_000, 3), epochs=60, batch_size=1000, progress=False)
    slope = model.likelihood.net.weight.detach().flatten()
    variance = 1 / (1 + slope @ slope / 0.7**2)
    torch.testing.assert_close(
        encoder.net.weight[0].detach(), variance * slope / 0.7**2, atol=0.01, rtol=0
    )
    assert abs(encoder.net.bias.item()) < 0.01
    assert abs(encoder.scale.item() / variance.sqrt().item() - 1) < 0.02


@in_float64
def test_a_deterministic_decoder_teaches_what_its_output_does_not_say():
    """The shown coordinate is found, with a scale that shrinks; the hidden one keeps its prior N(0, 1)."""
    encoder = dgm.Conditional(dist.Normal, nn.Linear(1, 4))
    guide = dgm.AmortizedGuide(encoder)
    trainer = dgm.SVITrainer(dgm.Sleep(deterministic(), guide), lr=0.03)
    trainer.fit(torch.zeros(4000, 1), epochs=60, batch_size=1000, progress=False)
    with torch.no_grad():
        law = encoder(torch.tensor([[-1.0], [0.0], [2.0]]))
    torch.testing.assert_close(law.mean[:, 0], torch.tensor([-1.0, 0.0, 2.0]), atol=0.1, rtol=0)
    assert float(law.variance[:, 0].max()) < 0.05
    torch.testing.assert_close(law.mean[:, 1], torch.zeros(3), atol=0.15, rtol=0)
    torch.testing.assert_close(law.variance[:, 1].sqrt(), torch.ones(3), atol=0.15, rtol=0)


def test_it_moves_the_guide_alone():
    vae = toy_vae()
    before = (
        [p.detach().clone() for p in vae.generator.parameters()],
        [p.detach().clone() for p in vae.guide.parameters()],
    )
    trainer = dgm.SVITrainer(dgm.Sleep(vae.model, vae.guide), lr=0.1)
    trainer.fit(torch.zeros(20, 3), epochs=2, batch_size=10, progress=False)
    assert all(
        torch.equal(a, b) for a, b in zip(before[0], vae.generator.parameters(), strict=True)
    )
    assert not any(
        torch.equal(a, b) for a, b in zip(before[1], vae.guide.parameters(), strict=True)
    )


def test_the_model_runs_as_it_is_evaluated():
    net = nn.Sequential(nn.Linear(2, 3), BatchNorm(3))
    model = dgm.LatentVariableModel(dgm.StandardNormal(2), dgm.Normal(net))
    before = net[1].running_mean.clone()
    objective = dgm.Sleep(
        model, dgm.AmortizedGuide(dgm.Conditional(dist.Normal, dgm.mlp(3, 4)))
    ).train()
    objective(torch.zeros(5, 3)).backward()
    assert torch.equal(net[1].running_mean, before)
    assert net.training


def test_only_size_and_context_of_a_batch_are_read():
    decoder = dgm.Normal(dgm.Concat(dgm.mlp(2 + 1, 3)))
    encoder = dgm.Conditional(dist.Normal, dgm.Concat(dgm.mlp(3 + 1, 4)))
    objective = dgm.Sleep(
        dgm.LatentVariableModel(dgm.StandardNormal(2), decoder), dgm.AmortizedGuide(encoder)
    )
    label = torch.randn(6, 1)
    losses = []
    for x, c in (
        (torch.zeros(6, 3), label),
        (torch.ones(6, 3), label),
        (torch.zeros(6, 3), label + 1),
    ):
        torch.manual_seed(0)
        losses.append(objective(x, c))
    assert torch.equal(losses[0], losses[1])
    assert not torch.equal(losses[0], losses[2])
    objective.preflight(torch.zeros(6, 3), label)


def test_a_dequantized_model_gives_levels_and_the_noise_that_belongs_to_them():
    net = dgm.mlp(3, 4)
    vae = dgm.VAE(
        dgm.StandardNormal(2),
        dgm.Normal(dgm.mlp(2, 3), 3.0),
        dgm.Conditional(dist.Normal, net),
        dgm.UnitUniform(),
    )
    seen = []
    net.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    objective = dgm.Sleep(vae.model, vae.guide)
    report = objective.preflight(torch.zeros(50, 3))
    assert set(report.latent) == {"x_noise", "z"}
    objective(torch.zeros(50, 3))
    assert float(seen[-1].std()) > 1.5  # what the model makes, with its noise, and not the zeros
    assert not torch.equal(seen[-1], seen[-1].floor())


def test_further_plates_are_kept_apart():
    model, guide = Series(), SeriesGuide()
    objective = dgm.Sleep(model, guide)
    assert objective.preflight(torch.zeros(4, 3)).depth == 2
    assert objective(torch.zeros(4, 3)).isfinite()


def test_different_sites_are_refused():
    vae = toy_vae()
    guide = dgm.AmortizedGuide(vae.guide.encoder, latent="w")
    with pytest.raises(
        ValueError, match=r"expected the same latent sites, got \['z'\] in the model and \['w'\]"
    ):
        dgm.Sleep(vae.model, guide).preflight(torch.zeros(4, 3))


def test_data_of_another_shape_than_the_model_makes_are_refused():
    model = toy_vae().model
    guide = dgm.AmortizedGuide(dgm.Conditional(dist.Normal, dgm.mlp(5, 4)))
    model = dgm.LatentVariableModel(model.prior, dgm.Deterministic(dgm.mlp(2, 3)))
    with pytest.raises(
        ValueError, match=r"expected the event shape \(3,\) that the model makes, got \(5,\)"
    ):
        dgm.Sleep(model, guide).preflight(torch.zeros(4, 5))


def test_a_guide_that_cannot_score_the_prior_is_refused():
    model = toy_vae().model
    guide = dgm.AmortizedGuide(dgm.Conditional(dist.LogNormal, dgm.mlp(3, 4)))
    with pytest.raises(ValueError, match="fails to score the model's own latents"):
        dgm.Sleep(model, guide).preflight(torch.zeros(4, 3))


def test_a_guide_that_is_a_point_mass_is_refused():
    """Its loss is infinite, and has no gradient."""
    vae = toy_vae()
    guide = dgm.AmortizedGuide(dgm.Deterministic(dgm.mlp(3, 2)))
    with pytest.raises(
        ValueError, match=r"Sleep: .*point mass \(Delta\) at \['z'\]: .* Fix: Conditional"
    ):
        dgm.SVITrainer(dgm.Sleep(vae.model, guide)).fit(torch.zeros(4, 3), progress=False)


def test_images_that_are_not_flattened_are_explained_as_everywhere():
    vae = toy_vae()
    with pytest.raises(ValueError, match=r"(?s)the programs fail on a batch .*Fix: x.flatten\(1\)"):
        dgm.Sleep(vae.model, vae.guide).preflight(torch.zeros(4, 3, 1))


def test_nan_is_refused():
    vae = toy_vae()
    with pytest.raises(ValueError, match="expected finite values"):
        dgm.Sleep(vae.model, vae.guide).preflight(torch.full((4, 3), torch.nan))


def test_its_step_is_one_graph():
    vae = toy_vae()
    objective, x = dgm.Sleep(vae.model, vae.guide), torch.zeros(5, 3)
    objective.preflight(x)
    graph, *state = captured(objective, x)
    with fork_rng(seed=0):
        found = graph(*state, (x,))
    with fork_rng(seed=0):
        expected = stepped(objective)(*state, (x,))
    torch.testing.assert_close(found, expected)
