"""The guide that refines its encoder's answer for every datum, against the exact posterior."""

from __future__ import annotations

import copy

import pyro
import pyro.distributions as dist
import pytest
import torch
from conftest import both_dtypes, in_float64
from pyro import poutine
from pyro.infer import Predictive
from torch import nn
from toys import Frozen, LinearGaussian, Series

import pyro_dgm as dgm


def with_diagonal_posterior(scale: float = 0.7) -> LinearGaussian:
    """Orthogonal columns of W: the posterior precision I + WᵀW / s² is diagonal."""
    model = LinearGaussian(scale=scale)
    with torch.no_grad():
        model.weight.copy_(torch.linalg.qr(torch.randn(4, 2))[0] * torch.tensor([1.5, 0.8]))
    return model


def bad_encoder(family=dist.Normal, num_in: int = 4, num_out: int = 4) -> dgm.Conditional:
    """It has seen neither data nor model: a location of about 0 and a scale of about 0.7, whatever the datum."""
    net = nn.Linear(num_in, num_out)
    nn.init.normal_(net.weight, std=0.02)
    return dgm.Conditional(family, net)


def refined(model, encoder=None, **options) -> dgm.SemiAmortizedGuide:
    return dgm.SemiAmortizedGuide(bad_encoder() if encoder is None else encoder, model, **options)


# Against the exact posterior -----------------------------------------------------------------------------------------


@both_dtypes
@pytest.mark.slow
def test_over_a_bad_diagonal_encoder_it_reaches_the_evidence_of_a_diagonal_posterior(dtype):
    """0.03 nats of each datum are left to 150 noisy steps."""
    model = with_diagonal_posterior()
    x, encoder = model.data(12), bad_encoder()
    amortized = dgm.nll(model, dgm.AmortizedGuide(encoder), x, num=400)
    found = dgm.nll(
        model, refined(model, encoder, num_steps=150, lr=0.1, num_particles=16), x, num=400
    )
    gap = found.nelbo + model.log_evidence(x)
    assert bool((gap > -5 * found.monte_carlo - 1e-6).all())
    assert float(gap.max()) < 0.03
    assert float((amortized.nelbo + model.log_evidence(x)).mean()) > 0.5
    assert bool((found.ess > 0.9 * 400).all())


@in_float64
@pytest.mark.slow
def test_over_an_encoder_of_the_right_covariance_it_reaches_a_correlated_posterior():
    """a + e^b ∘ q where only the mean of q is wrong; 0.05 nats of each datum are left to 300 noisy steps."""
    model = LinearGaussian()
    weight = model.weight.detach()
    covariance = (torch.eye(2) + weight.T @ weight / model.scale**2).inverse()

    class Off(nn.Module):
        def forward(self, x):
            return dist.MultivariateNormal(0.5 + 0 * x[..., :2], covariance)

    x = model.data(8)
    found = dgm.nll(
        model, refined(model, Off(), num_steps=300, lr=0.1, num_particles=16), x, num=300
    )
    assert float((found.nelbo + model.log_evidence(x)).max()) < 0.05


@pytest.mark.slow
def test_no_datum_loses_by_the_refinement():
    """−ELBO of each datum from 1,000 draws, 5 standard errors of the difference allowed."""
    model = LinearGaussian()
    x, encoder = model.data(20), bad_encoder()
    before = dgm.draw(model, dgm.AmortizedGuide(encoder), x, num=1000).log_weight.detach()
    after = dgm.draw(model, refined(model, encoder, num_steps=60), x, num=1000).log_weight.detach()
    standard_error = ((before.var(0) + after.var(0)) / 1000).sqrt()
    assert bool((after.mean(0) - before.mean(0) >= -5 * standard_error).all())


@in_float64
def test_without_steps_of_any_length_it_is_the_encoder():
    model = LinearGaussian()
    x, encoder = model.data(5), bad_encoder()
    guide = refined(model, encoder, num_steps=1, lr=0.0)
    trace = poutine.trace(guide).get_trace(x)
    trace.compute_log_prob()
    torch.testing.assert_close(
        trace.nodes["z"]["log_prob"], encoder(x).log_prob(trace.nodes["z"]["value"])
    )


# One datum at a time -------------------------------------------------------------------------------------------------


@in_float64
def test_every_datum_is_refined_by_itself():
    """With noise taken out of the draws, the ascent of a subset is that of the whole set."""
    model = with_diagonal_posterior()
    x, encoder = model.data(6), bad_encoder(Frozen)
    guide = refined(model, encoder, num_steps=20)
    whole = guide._refine(x)
    part = guide._refine(x[2:4])
    torch.testing.assert_close(part, tuple(t[2:4] for t in whole))
    assert not torch.allclose(whole[0], torch.zeros(6, 2))
    assert not torch.allclose(whole[1], torch.zeros(6, 2))


@pytest.mark.slow
def test_a_subset_of_the_data_has_the_same_bound_up_to_noise():
    model = with_diagonal_posterior()
    x, encoder = model.data(8), bad_encoder()
    guide = refined(model, encoder, num_steps=100, lr=0.1, num_particles=16)
    whole, part = (dgm.nll(model, guide, rows, num=300).nelbo for rows in (x, x[:3]))
    assert float((whole[:3] - part).abs().max()) < 0.03


def test_it_starts_anew_in_every_call_and_follows_encoder_and_model_as_they_stand():
    model = with_diagonal_posterior()
    x, encoder = model.data(5), bad_encoder(Frozen)
    guide = refined(model, encoder, num_steps=10)
    first = guide._refine(x)
    torch.testing.assert_close(guide._refine(x), first, rtol=0, atol=0)
    with torch.no_grad():
        model.bias.add_(1.0)
    assert not torch.equal(guide._refine(x)[0], first[0])


# Handlers ------------------------------------------------------------------------------------------------------------


def test_the_ascent_is_hidden_from_every_handler_around_the_guide():
    model = LinearGaussian()
    x, guide = model.data(5), refined(model, num_steps=3)
    trace = poutine.trace(guide).get_trace(x)
    assert [n for n, s in trace.nodes.items() if s["type"] == "sample"] == ["data", "z"]
    assert trace.nodes["z"]["value"].shape == (5, 2)
    assert [f.name for f in trace.nodes["z"]["cond_indep_stack"]] == ["data"]


@in_float64
def test_a_replayed_latent_does_not_reach_into_the_ascent():
    model = with_diagonal_posterior()
    x, z = model.data(5), torch.full((5, 2), 9.0)
    guide = refined(model, bad_encoder(Frozen), num_steps=5)
    expected = guide._refine(x)
    found = []
    with poutine.condition(data={"z": z}), poutine.mask(mask=False), poutine.scale(scale=7.0):
        found.append(guide._refine(x))
    torch.testing.assert_close(found[0], expected, rtol=0, atol=0)


def test_it_works_under_particles_estimates_and_predictive():
    model = LinearGaussian()
    x, guide = model.data(5), refined(model, num_steps=3)
    assert dgm.draw(model, guide, x, num=7).values["z"].shape == (7, 5, 2)
    assert dgm.draw(model, guide, x, num=7).log_weight.shape == (7, 5)
    assert dgm.encode(guide, x, num=3)["z"].shape == (3, 5, 2)
    assert dgm.reconstruct(model, guide, x, num=3)["x"].shape == (5, 4)
    assert dgm.nll(model, guide, x, num=6, chunk=4).per_datum.shape == (5,)
    for parallel in (False, True):
        drawn = Predictive(model, guide=guide, num_samples=3, parallel=parallel)(x)
        assert drawn["z"].shape[0] == 3
        assert drawn["z"].shape[-2:] == (5, 2)
    assert dgm.active_units(guide, x, num=4)["z"].shape == (2,)


def test_contexts_reach_encoder_and_model():
    vae = dgm.VAE(
        dgm.StandardNormal(2),
        dgm.Normal(dgm.Concat(dgm.mlp(5, 4))),
        dgm.Conditional(dist.Normal, dgm.Concat(dgm.mlp(7, 4))),
    )
    x, c = torch.randn(6, 4), torch.randn(6, 3)
    guide = refined(vae.model, vae.guide.encoder, num_steps=40)
    before = dgm.nll(vae.model, vae.guide, x, c, num=500).nelbo
    after = dgm.nll(vae.model, guide, x, c, num=500).nelbo
    assert float(after.mean()) < float(before.mean())


@pytest.mark.slow
def test_a_flow_encoder_is_refined_too():
    encoder = dgm.Flow(bad_encoder(), dgm.iaf(2, 2, context=4, hidden=(8,)))
    model = with_diagonal_posterior()
    x = model.data(6)
    found = dgm.nll(
        model, refined(model, encoder, num_steps=100, lr=0.1, num_particles=16), x, num=300
    )
    assert float((found.nelbo + model.log_evidence(x)).max()) < 0.05


@pytest.mark.slow
def test_a_model_with_a_further_plate_can_be_refined():
    """The refinement has its own dim to the left of the model's plates; z alone is refined, u is integrated here."""

    class Marginal(Series):
        def forward(self, x=None):
            with dgm.data_plate(x):
                z = pyro.sample(
                    "z", dist.Normal(self.offset.new_zeros(()), 1.0).expand([1]).to_event(1)
                )
                with pyro.plate("time", self.steps, dim=-2):
                    return pyro.sample(
                        "x",
                        dist.Normal(z[..., 0] + self.offset, 1.25**0.5),
                        obs=None if x is None else x.T,
                    )

    model = Marginal()
    x = torch.randn(6, 3)
    guide = refined(
        model, bad_encoder(num_in=3, num_out=2), num_steps=100, lr=0.1, num_particles=16
    )
    found = dgm.nll(model, guide, x, num=300)
    assert float((found.nelbo + model.log_evidence(x)).abs().max()) < 0.05


# No trace ------------------------------------------------------------------------------------------------------------


def test_an_estimate_leaves_weights_gradients_modes_and_the_users_random_state_alone():
    model, encoder = LinearGaussian(), bad_encoder()
    guide, x = refined(model, encoder, num_steps=5), model.data(4)
    weights = [copy.deepcopy(m.state_dict()) for m in (model, encoder)]
    before = torch.get_rng_state()
    first = dgm.nll(model, guide, x, num=10)
    second = dgm.nll(model, guide, x, num=10)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.nelbo, second.nelbo)
    assert model.training
    assert guide.training
    for module, state in zip((model, encoder), weights, strict=True):
        assert all(torch.equal(t, state[n]) for n, t in module.state_dict().items())
        assert all(p.grad is None for p in module.parameters())


def test_no_gradient_flows_through_the_ascent():
    """Under an ELBO the encoder is trained as the start of a fixed affine map; model and encoder hold the gradients."""
    model, encoder = LinearGaussian(), bad_encoder()
    guide, x = refined(model, encoder, num_steps=5), model.data(4)
    shift, log_scale = guide._refine(x)
    assert not shift.requires_grad
    assert not log_scale.requires_grad
    dgm.ELBO(model, guide)(x).backward()
    assert all(bool(p.grad.isfinite().all()) for p in (*model.parameters(), *encoder.parameters()))


def test_it_names_what_it_refines():
    model = dgm.LatentVariableModel(dgm.StandardNormal(2), dgm.Normal(dgm.mlp(2, 4)), latent="code")
    x = torch.randn(5, 4)
    guide = refined(model, num_steps=2, latent="code")
    assert list(dgm.encode(guide, x)) == ["code"]
    assert bool(dgm.nll(model, guide, x, num=3).nelbo.isfinite().all())


def test_no_data_are_refused():
    with pytest.raises(
        ValueError, match=r"SemiAmortizedGuide: expected data x, got None\. Fix: guide\(x\)"
    ):
        refined(LinearGaussian())(None)


def test_the_representation_shows_the_settings():
    guide = refined(LinearGaussian(), num_steps=7, lr=0.1)
    assert "num_steps=7, lr=0.1, num_particles=8, latent='z'" in repr(guide)
    assert "size=9, latent='z', observed='x'" in repr(dgm.AmortizedGuide(bad_encoder(), size=9))
