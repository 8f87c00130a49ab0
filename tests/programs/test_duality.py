r"""KL(q ‖ T#p) = KL(T⁻¹#q ‖ p): the VAE with the flow in its prior and the one with it in its posterior are one."""

from __future__ import annotations

import copy

import pyro.distributions as dist
import pytest
import torch
from cases import randomize
from conftest import both_dtypes, in_float64
from torch import nn

import pyro_dgm as dgm
from pyro_dgm.inference.process.states import fork_rng

H = (8,)
FLOWS = {
    "realnvp": lambda: dgm.Flow(dgm.StandardNormal(3), dgm.realnvp(3, 3, hidden=H)),
    "maf": lambda: dgm.Flow(dgm.StandardNormal(3), dgm.maf(3, 2, hidden=H)),
    "spline_coupling": lambda: dgm.Flow(dgm.StandardNormal(3), dgm.spline_coupling(3, 2, hidden=H)),
    "flow_over_mixture": lambda: dgm.Flow(dgm.MixturePrior(3, 4), dgm.realnvp(3, 2, hidden=H)),
}
ENCODERS = {
    "diagonal": lambda: dgm.Conditional(dist.Normal, dgm.mlp(4, 8, 6)),
    "full": lambda: dgm.MultivariateNormal(dgm.mlp(4, 8, 9), 3),
    "iaf": lambda: dgm.Flow(
        dgm.Conditional(dist.Normal, nn.Linear(5, 6)),
        dgm.iaf(3, 2, context=5, hidden=H),
        embed=dgm.mlp(4, 5),
    ),
}
flows = pytest.mark.parametrize("flow", FLOWS)
encoders = pytest.mark.parametrize("encoder", ENCODERS)
TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-4}


def vae_of(flow: str, encoder: str = "diagonal") -> dgm.VAE:
    return randomize(dgm.VAE(FLOWS[flow](), dgm.Normal(dgm.mlp(3, 8, 4)), ENCODERS[encoder]()), 0.2)


def drawn(vae: dgm.VAE, x: torch.Tensor, num: int = 6) -> dgm.results.Particles:
    with fork_rng(seed=3):
        return dgm.draw(vae.model, vae.guide, x, num=num)


# The identity --------------------------------------------------------------------------------------------------------


@both_dtypes
@encoders
@flows
def test_under_common_noise_every_draw_has_the_weight_and_the_kl_that_it_had(flow, encoder, dtype):
    """log q(z|x) − log T#p(z) = log T⁻¹#q(ε|x) − log p(ε) at ε = T⁻¹(z), so that the two KL are one number."""
    vae, x = vae_of(flow, encoder), torch.randn(5, 4)
    absorbed = dgm.absorb_prior(vae)
    before, after = drawn(vae, x), drawn(absorbed, x)
    moved = vae.model.prior.bijector.inverse(before.values["z"])[0]
    tolerance = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
    torch.testing.assert_close(after.values["z"], moved, **tolerance)
    torch.testing.assert_close(after.kl, before.kl, **tolerance)
    torch.testing.assert_close(after.log_weight, before.log_weight, **tolerance)
    torch.testing.assert_close(after.log_p["x"], before.log_p["x"], **tolerance)


@both_dtypes
@flows
def test_the_bound_of_every_datum_and_its_nll_stay_what_they_were(flow, dtype):
    vae, x = vae_of(flow), torch.randn(5, 4)
    absorbed = dgm.absorb_prior(vae)
    before, after = (dgm.nll(v.model, v.guide, x, num=7, seed=2) for v in (vae, absorbed))
    tolerance = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
    for field in ("nelbo", "per_datum", "kl"):
        torch.testing.assert_close(getattr(after, field), getattr(before, field), **tolerance)


@in_float64
@flows
def test_the_gradients_of_the_bound_stay_what_they_were(flow):
    vae, x = vae_of(flow), torch.randn(5, 4)
    absorbed = dgm.absorb_prior(vae)
    parameters = list(vae.parameters())
    gradients = []
    for v in (vae, absorbed):
        with fork_rng(seed=3):
            gradients.append(torch.autograd.grad(dgm.ELBO(v.model, v.guide)(x), parameters))
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-10)


@both_dtypes
@flows
def test_the_samples_stay_what_they_were(flow, dtype):
    vae = vae_of(flow)
    before, after = (dgm.generate(v.model, 9, seed=4) for v in (vae, dgm.absorb_prior(vae)))
    torch.testing.assert_close(after, before, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@in_float64
def test_the_declared_program_draws_the_noise_and_the_decoder_runs_the_flow():
    """z* ~ p(z*), x ~ p(x | T(z*)), the site z of the absorbed VAE being the noise."""
    vae = vae_of("realnvp")
    absorbed = dgm.absorb_prior(vae)
    z, noise = (dgm.generate(v.model, 9, site="z", seed=4) for v in (vae, absorbed))
    torch.testing.assert_close(vae.model.prior.bijector(noise)[0], z)
    assert absorbed.model.prior is vae.model.prior.base
    value = torch.randn(9, 4)
    torch.testing.assert_close(
        absorbed.model.likelihood(noise).log_prob(value), vae.model.likelihood(z).log_prob(value)
    )


def test_the_absorbed_posterior_scores_its_own_draws_without_a_second_pass():
    """One call a coupling layer for T⁻¹ in the guide, one for T in the decoder."""
    vae, x = vae_of("realnvp"), torch.randn(5, 4)
    calls: list[int] = []
    for layer in vae.model.prior.bijector:
        layer.net.register_forward_hook(lambda *_: calls.append(1))
    absorbed = dgm.absorb_prior(vae)
    objective = dgm.ELBO(absorbed.model, absorbed.guide)
    objective.preflight(x)
    calls.clear()
    objective(x)
    assert len(calls) == 3 + 3


@in_float64
def test_contexts_that_base_and_layers_pass_over_or_take_go_through():
    """A conditional VAE whose flow of linear layers passes over the labels."""
    prior = dgm.Flow(
        dgm.StandardNormal(3),
        [dgm.flows.LULinear(3), dgm.flows.Orthogonal(3), dgm.flows.ActNorm(3)],
    )
    likelihood = dgm.Normal(dgm.Concat(dgm.mlp(5, 4)))
    vae = randomize(
        dgm.VAE(prior, likelihood, dgm.Conditional(dist.Normal, dgm.Concat(dgm.mlp(6, 6))))
    )
    x, c = torch.randn(5, 4), torch.randn(5, 2)
    absorbed = dgm.absorb_prior(vae)
    before, after = (dgm.nll(v.model, v.guide, x, c, num=3).per_datum for v in (vae, absorbed))
    torch.testing.assert_close(after, before)
    torch.testing.assert_close(dgm.generate(absorbed.model, 2, c), dgm.generate(vae.model, 2, c))


# The same modules ----------------------------------------------------------------------------------------------------


@flows
def test_both_vaes_hold_the_same_parameters_and_training_one_trains_the_other(flow):
    vae, x = vae_of(flow), torch.randn(20, 4)
    absorbed = dgm.absorb_prior(vae)
    assert {*absorbed.parameters()} == {*vae.parameters()}
    assert len(list(absorbed.parameters())) == len(list(vae.parameters()))
    before = [p.detach().clone() for p in vae.parameters()]
    trainer = dgm.SVITrainer(dgm.ELBO(absorbed.model, absorbed.guide), lr=1e-2)
    trainer.fit(x, epochs=2, batch_size=10, progress=False)
    assert not any(torch.equal(p, b) for p, b in zip(vae.parameters(), before, strict=True))
    first, second = (dgm.nll(v.model, v.guide, x, num=2).nelbo for v in (vae, absorbed))
    torch.testing.assert_close(first, second)


@flows
def test_to_expose_what_was_absorbed_gives_the_same_modules_back(flow):
    vae = vae_of(flow)
    vae = dgm.VAE(vae.model.prior, vae.model.likelihood, vae.guide.encoder, size=50)
    absorbed = dgm.absorb_prior(vae)
    again = dgm.expose_prior(absorbed)
    assert again.model.likelihood is vae.model.likelihood
    assert again.guide.encoder is vae.guide.encoder
    assert again.model.prior.base is vae.model.prior.base
    assert again.model.prior.bijector is vae.model.prior.bijector
    assert again.model.size == again.guide.size == absorbed.model.size == absorbed.guide.size == 50


@in_float64
def test_a_deep_copy_of_an_absorbed_vae_can_be_exposed():
    vae, x = vae_of("realnvp"), torch.randn(5, 4)
    again = dgm.expose_prior(copy.deepcopy(dgm.absorb_prior(vae)))
    first, second = (dgm.nll(v.model, v.guide, x, num=2).nelbo for v in (vae, again))
    torch.testing.assert_close(first, second)


@in_float64
def test_a_flow_over_a_flow_is_absorbed_twice():
    inner = dgm.Flow(dgm.StandardNormal(3), dgm.realnvp(3, 2, hidden=H))
    prior = dgm.Flow(inner, dgm.realnvp(3, 2, hidden=H))
    vae = randomize(dgm.VAE(prior, dgm.Normal(dgm.mlp(3, 8, 4)), ENCODERS["diagonal"]()))
    twice = dgm.absorb_prior(dgm.absorb_prior(vae))
    assert isinstance(twice.model.prior, dgm.StandardNormal)
    x = torch.randn(5, 4)
    first, second = (dgm.nll(v.model, v.guide, x, num=2).nelbo for v in (vae, twice))
    torch.testing.assert_close(first, second)
    exposed = dgm.expose_prior(dgm.expose_prior(twice))
    assert exposed.guide.encoder is vae.guide.encoder


# Errors --------------------------------------------------------------------------------------------------------------


def test_a_prior_that_is_no_flow_is_refused_with_the_fix():
    vae = dgm.VAE(dgm.StandardNormal(3), dgm.Normal(dgm.mlp(3, 4)), ENCODERS["diagonal"]())
    with pytest.raises(ValueError, match=r"absorb_prior: expected a flow prior without a context, got StandardNormal\. "
                                         r"Fix: VAE\(Flow"):  # fmt: skip
        dgm.absorb_prior(vae)


@pytest.mark.parametrize(
    "prior",
    [
        lambda: dgm.Flow(dgm.StandardNormal(3), dgm.realnvp(3, 2, context=5), embed=dgm.mlp(2, 5)),
        lambda: dgm.Flow(dgm.StandardNormal(3), dgm.realnvp(3, 2, context=2)),
        lambda: dgm.Flow(dgm.StandardNormal(3), dgm.flows.LULinear(3, context=2)),
    ],
    ids=["embedded", "coupling", "linear"],
)
def test_a_flow_prior_that_depends_on_a_context_is_refused(prior):
    vae = dgm.VAE(
        prior(),
        dgm.Normal(dgm.Concat(dgm.mlp(5, 4))),
        dgm.Conditional(dist.Normal, dgm.Concat(nn.Linear(6, 6))),
    )
    with pytest.raises(ValueError, match="absorb_prior: expected a flow prior without a context"):
        dgm.absorb_prior(vae)


def test_what_was_never_absorbed_cannot_be_exposed():
    vae, other = vae_of("realnvp"), dgm.absorb_prior(vae_of("realnvp"))
    with pytest.raises(
        ValueError,
        match="expose_prior: expected a decoder and an encoder that share one flow, got Normal",
    ):
        dgm.expose_prior(vae)
    absorbed = dgm.absorb_prior(vae)
    mixed = dgm.VAE(absorbed.model.prior, absorbed.model.likelihood, other.guide.encoder)
    with pytest.raises(
        ValueError,
        match=r"share one flow, got Pullback and Pushforward\. Fix: expose_prior\(absorb_prior",
    ):
        dgm.expose_prior(mixed)
    forward = dgm.distributions.Pushforward(vae.guide.encoder, vae.model.prior.bijector)
    with pytest.raises(ValueError, match="share one flow, got Pullback and Pushforward"):
        dgm.expose_prior(dgm.VAE(absorbed.model.prior, absorbed.model.likelihood, forward))
