"""A new prior for a trained VAE: what it gains in the bound, and everything that it leaves as it was."""

from __future__ import annotations

import copy

import pyro.distributions as dist
import pytest
import torch
from conftest import in_float64
from torch import Tensor, nn
from toys import BatchNorm

import pyro_dgm as dgm
from pyro_dgm.inference.process.states import fork_rng
from pyro_dgm.programs.conditionals.conditional import raw_of_positive
from pyro_dgm.refitting import generative as refitting

QUICK = {"epochs": 2, "batch_size": 20}


def shifted_vae(prior: nn.Module | None = None) -> dgm.VAE:
    """A linear encoder whose aggregated posterior is far from N(0, I): a correlated normal around (2, −1)."""
    net = nn.Linear(3, 4)
    with torch.no_grad():
        net.weight.copy_(
            torch.tensor([[1.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
        )
        net.bias.copy_(torch.tensor([2.0, -1.0, -0.5, 0.3]))
    return dgm.VAE(
        prior or dgm.StandardNormal(2),
        dgm.Normal(dgm.mlp(2, 6, 3)),
        dgm.Conditional(dist.Normal, net),
    )


def aggregate_of(vae: dgm.VAE) -> dist.MultivariateNormal:
    """Its closed form for x ~ N(0, I)."""
    law = vae.guide.encoder(torch.zeros(3))
    slope = vae.guide.encoder.net.weight[:2].detach()
    return dist.MultivariateNormal(
        law.mean.detach(), slope @ slope.T + torch.diag_embed(law.variance.detach())
    )


def state_of(module: nn.Module) -> dict[str, Tensor]:
    return {n: t.detach().clone() for n, t in module.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(t, other[n]) for n, t in one.items())


def drawn(vae: dgm.VAE, *batch: Tensor) -> dgm.results.Particles:
    with fork_rng(seed=3), torch.no_grad():
        return dgm.draw(vae.model, vae.guide, *batch, num=20)


# What it gains -------------------------------------------------------------------------------------------------------


@in_float64
def test_a_linear_flow_finds_the_normal_aggregate_in_closed_form():
    r"""$E_{q_{agg}}[-\log p]$ falls to the entropy of $q_{agg}$; 0.02 nats are left to 2,000 data and to training."""
    vae, x = shifted_vae(), torch.randn(2000, 3)
    prior = dgm.Flow(dgm.StandardNormal(2), dgm.flows.LULinear(2))
    refitted = dgm.refit_prior(vae, x, prior, epochs=15, batch_size=100, lr=0.03)
    exact, law = aggregate_of(vae), refitted.model.prior()
    z = exact.sample((50_000,))
    kl = (exact.log_prob(z) - law.log_prob(z)).detach()
    assert float(kl.mean()) < 0.02
    assert float((exact.log_prob(z) - vae.model.prior().log_prob(z)).mean()) > 1.0


@in_float64
@pytest.mark.parametrize(
    "prior",
    [
        lambda: dgm.MixturePrior(2, 5),
        lambda: dgm.Flow(dgm.StandardNormal(2), dgm.maf(2, 2, hidden=(8,))),
        lambda: dgm.Flow(dgm.MixturePrior(2, 3), dgm.realnvp(2, 2, hidden=(8,))),
    ],
    ids=["mixture", "flow", "flow_over_mixture"],
)
def test_the_refitted_prior_beats_the_standard_normal_and_the_gain_is_that_of_the_bound(prior):
    """Under common noise the drop of −ELBO is the drop of E_q[−log p(z)], draw by draw; the rest does not move."""
    vae, x = shifted_vae(), torch.randn(400, 3)
    refitted = dgm.refit_prior(vae, x, prior(), epochs=20, batch_size=50, lr=0.03)
    before, after = drawn(vae, x), drawn(refitted, x)
    assert torch.equal(before.values["z"], after.values["z"])
    assert torch.equal(before.log_p["x"], after.log_p["x"])
    assert torch.equal(before.log_guide, after.log_guide)
    gain = after.log_p["z"] - before.log_p["z"]
    torch.testing.assert_close(after.log_weight - before.log_weight, gain)
    z = before.values["z"].reshape(-1, 2)
    possible = float((aggregate_of(vae).log_prob(z) - vae.model.prior().log_prob(z)).mean())
    assert 0.9 * possible < float(gain.mean()) < possible + 0.05
    nelbo = [dgm.nll(v.model, v.guide, x, num=20).nelbo.mean() for v in (vae, refitted)]
    assert float(nelbo[0] - nelbo[1]) > 0.9 * possible


@in_float64
def test_the_aggregate_is_taken_as_it_is_and_no_fitted_prior_gains_more():
    vae, x = shifted_vae(), torch.randn(60, 3)
    refitted = dgm.refit_prior(vae, x, dgm.AggregatePrior(vae.guide.encoder, x), **QUICK)
    assert refitted.model.prior.encoder is refitted.guide.encoder
    assert same(state_of(refitted.guide), state_of(vae.guide))
    assert torch.equal(refitted.model.prior.data, x)
    fitted = dgm.refit_prior(vae, x, dgm.MixturePrior(2, 5), epochs=20, batch_size=20, lr=0.03)
    score = [float(drawn(v, x).log_p["z"].mean()) for v in (vae, fitted, refitted)]
    assert score == sorted(score)


def test_a_prior_without_parameters_needs_no_training():
    vae = shifted_vae(dgm.MixturePrior(2, 3))
    refitted = dgm.refit_prior(vae, torch.randn(5, 3), dgm.StandardNormal(2), **QUICK)
    assert isinstance(refitted.model.prior, dgm.StandardNormal)


# What it leaves ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mixture", "vamp", "aggregate"])
def test_nothing_that_was_given_is_touched_and_nothing_is_shared_with_the_result(kind):
    vae, x = shifted_vae(), torch.randn(40, 3)
    prior = {
        "mixture": lambda: dgm.MixturePrior(2, 3),
        "vamp": lambda: dgm.VampPrior(vae.guide.encoder, x[:5]),
        "aggregate": lambda: dgm.AggregatePrior(vae.guide.encoder, x),
    }[kind]()
    states = state_of(vae), state_of(prior)
    random = torch.get_rng_state()
    refitted = dgm.refit_prior(vae, x, prior, **QUICK)
    assert torch.equal(torch.get_rng_state(), random)
    assert same(state_of(vae), states[0])
    assert same(state_of(prior), states[1])
    assert vae.training
    assert isinstance(vae.model.prior, dgm.StandardNormal)
    tensors = {t.data_ptr() for m in (vae, prior) for t in m.state_dict().values()}
    assert not [n for n, t in refitted.state_dict().items() if t.data_ptr() in tensors]
    for module in (vae, prior):
        assert all(p.requires_grad and p.grad is None for p in module.parameters())


@pytest.mark.parametrize("kind", ["mixture", "vamp"])
def test_encoder_and_likelihood_are_bitwise_copies_that_can_be_trained_again(kind):
    vae, x = shifted_vae(), torch.randn(40, 3)
    prior = dgm.MixturePrior(2, 3) if kind == "mixture" else dgm.VampPrior(vae.guide.encoder, x[:5])
    refitted = dgm.refit_prior(vae, x, prior, **QUICK)
    assert same(state_of(refitted.guide.encoder), state_of(vae.guide.encoder))
    assert same(state_of(refitted.model.likelihood), state_of(vae.model.likelihood))
    assert all(p.requires_grad for p in refitted.parameters())
    before = state_of(refitted)
    trainer = dgm.SVITrainer(dgm.ELBO(refitted.model, refitted.guide), lr=1e-2)
    trainer.fit(x, epochs=1, batch_size=20, progress=False)
    moved = state_of(refitted)
    assert not [n for n, _ in refitted.named_parameters() if torch.equal(moved[n], before[n])]


def test_an_encoder_that_was_frozen_stays_frozen():
    vae = shifted_vae()
    vae.guide.requires_grad_(False)
    refitted = dgm.refit_prior(vae, torch.randn(40, 3), dgm.MixturePrior(2, 3), **QUICK)
    assert not any(p.requires_grad for p in refitted.guide.parameters())
    assert all(p.requires_grad for p in refitted.model.parameters())


@pytest.mark.parametrize("kind", ["mixture", "vamp"])
def test_an_encoder_with_batch_norm_or_dropout_stays_as_it_is_and_is_drawn_from_as_it_is_evaluated(
    kind,
):
    """Its running statistics don't move, and its draws are those of q(z | x) with nothing dropped."""
    x, seen = torch.randn(40, 3), []
    net = nn.Sequential(nn.Linear(3, 6), BatchNorm(6), nn.Dropout(0.5), nn.Linear(6, 4))
    encoder = dgm.Conditional(dist.Normal, net)
    vae = dgm.VAE(dgm.StandardNormal(2), dgm.Normal(dgm.mlp(2, 3)), encoder)
    prior = dgm.MixturePrior(2, 3) if kind == "mixture" else dgm.VampPrior(encoder, x[:5])
    net[2].register_forward_hook(lambda module, *_: seen.append(module.training))
    refitted = dgm.refit_prior(vae, x, prior, **QUICK)
    assert seen
    assert not any(seen), "the prior was fitted to draws with units dropped"
    assert same(state_of(refitted.guide), state_of(vae.guide)), (
        "the running statistics of the encoder have moved"
    )
    assert refitted.guide.training


def test_size_and_the_names_of_the_sites_stay():
    vae = dgm.VAE(
        dgm.StandardNormal(2), dgm.Normal(dgm.mlp(2, 3)), shifted_vae().guide.encoder, size=40
    )
    refitted = dgm.refit_prior(vae, torch.randn(40, 3), dgm.MixturePrior(2, 3), **QUICK)
    assert refitted.model.size == refitted.guide.size == 40


# Vamp ----------------------------------------------------------------------------------------------------------------


@in_float64
def test_a_vamp_prior_moves_its_pseudo_inputs_and_refers_to_the_new_encoder():
    vae, x = shifted_vae(), torch.randn(200, 3)
    prior = dgm.VampPrior(vae.guide.encoder, x[:4])
    refitted = dgm.refit_prior(vae, x, prior, epochs=10, batch_size=50, lr=0.03)
    assert refitted.model.prior.encoder is refitted.guide.encoder
    assert refitted.guide.encoder is not vae.guide.encoder
    assert not torch.equal(refitted.model.prior.pseudo_inputs, prior.pseudo_inputs)
    started = dgm.VAE(prior, vae.model.likelihood, vae.guide.encoder)
    assert float(drawn(refitted, x).log_p["z"].mean()) > float(drawn(started, x).log_p["z"].mean())


# The fit -------------------------------------------------------------------------------------------------------------


def test_the_seed_decides_the_result():
    vae, x, prior = shifted_vae(), torch.randn(40, 3), dgm.MixturePrior(2, 3)
    one, two, three = (state_of(dgm.refit_prior(vae, x, prior, seed=s, **QUICK)) for s in (0, 0, 1))
    assert same(one, two)
    assert not same(one, three)


@in_float64
def test_the_latents_are_fresh_draws_each_time_a_datum_is_seen_with_the_context_beside_them():
    x, c = torch.randn(10, 3), torch.randn(10, 1)
    encoder = dgm.Normal(dgm.Concat(nn.Linear(4, 2)), scale=1e-9)
    latents = refitting._LatentBatches(dgm.AmortizedGuide(encoder), (x, c), 4, shuffle=False)
    z, context = (torch.cat(parts) for parts in zip(*latents.epoch(), strict=True))
    torch.testing.assert_close(z, encoder(x, c).mean.detach(), rtol=0, atol=1e-4)
    assert torch.equal(context, c)
    assert not z.requires_grad
    latents = refitting._LatentBatches(shifted_vae().guide, x, 10, shuffle=False)
    (one,), (two,) = next(latents.epoch()), next(latents.epoch())
    assert not torch.equal(one, two)


@in_float64
def test_with_held_out_data_the_best_epoch_is_kept_and_patience_stops(monkeypatch):
    """At a huge learning rate on few data the prior gets worse: what is kept is no worse than the first epoch's."""
    trainers = []

    class Spy(dgm.SVITrainer):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            trainers.append(self)

    monkeypatch.setattr(refitting, "SVITrainer", Spy)
    vae, x, val = shifted_vae(), torch.randn(6, 3), torch.randn(50, 3)
    refitted = dgm.refit_prior(
        vae, x, dgm.MixturePrior(2, 6), val=val, epochs=60, lr=0.3, patience=4
    )
    (trainer,) = trainers
    scores = [row["val_nelbo"] for row in trainer.history]
    best = min(range(len(scores)), key=scores.__getitem__)
    assert len(scores) == best + 1 + 4 < 60
    kept = dgm.refit_prior(vae, x, dgm.StandardNormal(2))  # the same encoder
    assert same(state_of(kept.guide), state_of(refitted.guide))
    again = trainer.evaluate(
        refitting._LatentBatches(refitted.guide, val, 128, shuffle=False), batch_size=128
    )
    assert again["nelbo"] == pytest.approx(min(scores))


@in_float64
def test_contexts_go_to_the_encoder_and_to_the_prior():
    """Labels that move the posterior by ±2: a prior that sees them gains more than one that doesn't."""
    encoder = dgm.Conditional(dist.Normal, dgm.Concat(nn.Linear(4, 4)))
    with torch.no_grad():
        encoder.net.net.weight.mul_(0.1)[:2, 3] = 2.0
    vae = dgm.VAE(dgm.StandardNormal(2), dgm.Normal(dgm.Concat(dgm.mlp(3, 3))), encoder)
    x, c = torch.randn(200, 3), torch.randint(2, (200, 1)) * 2.0 - 1
    seeing = dgm.Conditional(dist.Normal, nn.Linear(1, 4))
    options = {"val": (x[:50], c[:50]), "epochs": 15, "batch_size": 50, "lr": 0.05}
    scores = [
        float(drawn(dgm.refit_prior(vae, (x, c), prior, **options), x, c).log_p["z"].mean())
        for prior in (
            dgm.Conditional(dist.Normal, nn.Linear(1, 4)).requires_grad_(False),
            dgm.MixturePrior(2, 2),
            seeing,
        )
    ]
    assert scores == sorted(scores)
    assert scores[2] > scores[1] + 0.3


def test_a_refitted_vae_can_be_saved_copied_and_absorbed(tmp_path):
    vae, x = shifted_vae(), torch.randn(40, 3)
    refitted = dgm.refit_prior(
        vae, x, dgm.Flow(dgm.StandardNormal(2), dgm.realnvp(2, 2, hidden=(8,))), **QUICK
    )
    twin = copy.deepcopy(refitted)
    dgm.save_weights(refitted, tmp_path / "w")
    dgm.load_weights(twin, tmp_path / "w")
    scores = [
        dgm.nll(v.model, v.guide, x, num=3).nelbo
        for v in (refitted, twin, dgm.absorb_prior(refitted))
    ]
    torch.testing.assert_close(scores[1], scores[0])
    torch.testing.assert_close(scores[2], scores[0])


# The scale -----------------------------------------------------------------------------------------------------------


@in_float64
@pytest.mark.parametrize("dequantizer", [None, dgm.UnitUniform()], ids=["plain", "dequantized"])
def test_the_refitted_scale_is_the_root_of_the_mean_squared_residual_and_a_maximum_of_the_bound(
    dequantizer,
):
    encoder = dgm.Conditional(dist.Normal, dgm.mlp(3, 8, 4))
    vae = dgm.VAE(
        dgm.StandardNormal(2), dgm.Normal(dgm.mlp(2, 8, 3), scale=0.4), encoder, dequantizer
    )
    x = torch.randint(0, 3, (400, 3)).to(torch.get_default_dtype())
    refitted = dgm.refit_scale(vae, x, num=50)
    drawn = dgm.encode(vae.guide, x, num=50, seed=1)
    residual = (
        x
        + drawn.get("x_noise", torch.zeros(()))
        - vae.generator.likelihood.net(drawn["z"]).detach()
    )
    expected = residual.square().mean((1, 2))  # of every draw: mean and standard error over 50
    sigma = refitted.generator.likelihood.scale.detach()
    assert (
        float((sigma.square() - expected.mean()).abs())
        < 5 * 2**0.5 * float(expected.std()) / 50**0.5
    )
    assert float(vae.generator.likelihood.scale.detach()) == pytest.approx(0.4)
    best = dgm.nll(refitted.model, refitted.guide, x, num=50).nelbo.mean()
    for factor in (0.9, 1.1):
        refitted.generator.likelihood.set_scale(float(sigma) * factor)
        assert float(dgm.nll(refitted.model, refitted.guide, x, num=50).nelbo.mean() - best) > 0.01


@pytest.mark.parametrize("residual", [1e-2, 1e-4])
def test_a_tiny_optimal_scale_keeps_its_digits(residual):
    """From residuals, not from log densities at another scale, of which they would be a tiny part."""
    net = nn.Linear(2, 3)
    vae = dgm.VAE(
        dgm.StandardNormal(2), dgm.Normal(net), dgm.Conditional(dist.Normal, dgm.mlp(3, 4))
    )
    nn.init.zeros_(net.weight)
    x = (net.bias + residual * torch.randn(1000, 3)).detach().float()
    vae = vae.float()
    exact = (x - net.bias).double().square().mean().sqrt()
    found = dgm.refit_scale(vae, x, num=2).generator.likelihood.scale
    torch.testing.assert_close(found.detach().double(), exact.detach(), rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    ("given", "found"),
    [(dgm.VAE, "the class VAE"), (dgm.EmptyGuide(), "EmptyGuide")],
    ids=["class", "program"],
)
def test_what_is_no_vae_is_refused(given, found):
    x = torch.randn(5, 3)
    for name, call in {
        "refit_prior": lambda: dgm.refit_prior(given, x, dgm.StandardNormal(2)),
        "refit_scale": lambda: dgm.refit_scale(given, x),
        "refit_guide": lambda: dgm.refit_guide(given, x, nn.Linear(3, 4)),
        "nll_over_scale": lambda: dgm.diagnostics.nll_over_scale(given, x, x, (1.0,)),
    }.items():
        with pytest.raises(
            TypeError, match=rf"{name}: expected a trained VAE, got {found}\. Fix: {name}\(VAE"
        ):
            call()


def test_a_likelihood_without_one_scale_is_refused():
    encoder = dgm.Conditional(dist.Normal, dgm.mlp(3, 4))
    vae = dgm.VAE(dgm.StandardNormal(2), dgm.Bernoulli(dgm.mlp(2, 3)), encoder)
    with pytest.raises(
        TypeError, match=r"refit_scale: expected a Normal likelihood.*got Bernoulli"
    ):
        dgm.refit_scale(vae, torch.zeros(5, 3))


@in_float64
@pytest.mark.parametrize(
    "prior",
    [
        lambda vae, data: dgm.AggregatePrior(vae.guide.encoder, data),
        lambda *_: dgm.Flow(dgm.StandardNormal(2), [dgm.flows.LULinear(2)]),
    ],
    ids=["aggregate", "linear_flow"],
)
def test_surgery_foretells_what_a_new_prior_wins(prior):
    """Hoffman and Johnson: the gain is the fall of the marginal KL, and no prior gains more than all of it."""
    vae, data = shifted_vae(), torch.randn(200, 3)
    made = dgm.refit_prior(vae, data, prior(vae, data), epochs=20, lr=1e-2)
    before, after = (dgm.surgery(v.model, v.guide, data, num=2000) for v in (vae, made))
    gain = after.elbo.value - before.elbo.value  # over the same draws
    assert gain == pytest.approx(before.marginal_kl.value - after.marginal_kl.value, abs=1e-9)
    assert 1 < gain < before.marginal_kl.value + 1e-9 + 5 * after.marginal_kl.stderr
    assert after.mutual_information.value == pytest.approx(
        before.mutual_information.value, abs=1e-9
    )


def probabilistic_pca(x: Tensor, latent: int) -> tuple[dgm.VAE, float]:
    r"""The linear VAE of largest evidence, with its exact diagonal posterior, and its $\sigma_*$ in closed form.

    $\sigma_*^2$ is the mean of the eigenvalues of the covariance that the latents leave over, and
    $W = U (\Lambda - \sigma_*^2)^{1/2}$, $q(z \mid x) = N(M^{-1} W^T (x - \bar x), \sigma_*^2 M^{-1})$, $M = \Lambda$
    (Tipping and Bishop 1999).
    """
    values, vectors = torch.linalg.eigh((x - x.mean(0)).T @ (x - x.mean(0)) / len(x))
    variance = values[:-latent].mean()
    kept, directions = values[-latent:], vectors[:, -latent:]
    weight = directions * (kept - variance).sqrt()
    decoder, net = nn.Linear(latent, x.shape[1]), nn.Linear(x.shape[1], 2 * latent)
    with torch.no_grad():
        decoder.weight.copy_(weight)
        decoder.bias.copy_(x.mean(0))
        net.weight.copy_(torch.cat([weight.T / kept[:, None], torch.zeros_like(weight.T)]))
        scales = [raw_of_positive(float(s)) for s in (variance / kept).sqrt()]
        net.bias.copy_(torch.cat([-weight.T @ x.mean(0) / kept, torch.tensor(scales)]))
    likelihood = dgm.Normal(decoder, scale=float(variance.sqrt()))
    return dgm.VAE(
        dgm.StandardNormal(latent), likelihood, dgm.Conditional(dist.Normal, net)
    ), float(variance.sqrt())


@in_float64
def test_the_optimal_noise_of_a_linear_vae_is_that_of_probabilistic_pca():
    x = torch.randn(400, 5) @ torch.randn(5, 5)
    vae, sigma = probabilistic_pca(x, latent=2)
    covariance = vae.generator.likelihood.net.weight.detach()
    covariance = covariance @ covariance.T + sigma**2 * torch.eye(5)
    evidence = dist.MultivariateNormal(x.mean(0), covariance).log_prob(x)
    found = dgm.nll(vae.model, vae.guide, x, num=3)
    torch.testing.assert_close(
        -found.nelbo, evidence
    )  # the bound is the evidence: the posterior is exact
    vae.generator.likelihood.set_scale(3 * sigma)
    refitted = dgm.refit_scale(vae, x, num=200).generator.likelihood.scale.item()
    assert refitted == pytest.approx(sigma, rel=5 * (2 / (400 * 200)) ** 0.5)
