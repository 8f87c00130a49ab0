"""Every prior has mass one and draws what it scores; those made of posteriors are the encoder's own."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from cases import over, plane, randomize
from conftest import in_float64
from scipy.stats import ks_2samp
from torch import Tensor, nn

import pyro_dgm as dgm

zuko = dgm.flows.import_zuko()
H = (8,)


def diagonal(dim: int = 3) -> nn.Module:
    return dgm.Conditional(dist.Normal, dgm.mlp(dim, 8, 4))


def full() -> nn.Module:
    return dgm.MultivariateNormal(dgm.mlp(3, 8, 5), 2)


def flow() -> nn.Module:
    return dgm.Flow(diagonal(), dgm.realnvp(2, 2, context=3, hidden=H))


def flow_over_normal(bijector: Callable[[], Any]) -> Callable[[], nn.Module]:
    return lambda: dgm.Flow(dgm.StandardNormal(2), bijector())


PRIORS: dict[str, Callable[[], nn.Module]] = {
    "standard_normal": lambda: dgm.StandardNormal(2),
    "mixture": lambda: dgm.MixturePrior(2, 4),
    "vamp_of_diagonal": lambda: dgm.VampPrior(diagonal(), torch.randn(5, 3)),
    "vamp_of_full_covariance": lambda: dgm.VampPrior(full(), torch.randn(5, 3)),
    "vamp_of_flow": lambda: dgm.VampPrior(flow(), torch.randn(5, 3)),
    "aggregate": lambda: dgm.AggregatePrior(diagonal(), torch.randn(9, 3)),
    "realnvp": flow_over_normal(lambda: dgm.realnvp(2, 3, hidden=H)),
    "maf": flow_over_normal(lambda: dgm.maf(2, 2, hidden=H)),
    "iaf": flow_over_normal(lambda: dgm.iaf(2, 2, hidden=H)),
    "spline_coupling": flow_over_normal(lambda: dgm.spline_coupling(2, 2, hidden=H)),
    "spline_maf": flow_over_normal(lambda: dgm.spline_maf(2, 2, hidden=H)),
    "flow_over_mixture": lambda: dgm.Flow(dgm.MixturePrior(2, 3), dgm.realnvp(2, 2, hidden=H)),
    "zuko_maf": lambda: dgm.flows.Zuko(zuko.flows.MAF(2, transforms=2, hidden_features=H)),
}
# The density of a spline has a kink at every knot, and its tails are those of the normal base.
FINE = {PRIORS[name]: {"reach": 3.5, "num": 561} for name in ("spline_coupling", "spline_maf")}

LEVEL = 1e-3  # that any of the two-sample tests of this file fails by chance, over all priors and directions
DIRECTIONS, DRAWS = 8, 20_000


@pytest.fixture
def prior(build) -> nn.Module:
    return randomize(build(), 0.25)


@torch.no_grad()
def tabulated(law: Any, **options: Any) -> tuple[Tensor, Tensor]:
    """A grid over the plane `(num², 2)` and the mass of each of its cells."""
    grid, weights = plane(law, **options)
    log_p = torch.cat([law.log_prob(part) for part in grid.split(200_000)])
    return grid, log_p.exp() * weights


def drawn_from(grid: Tensor, mass: Tensor, num: int) -> Tensor:
    """Points of the density itself: cells by their mass, uniform inside a cell. The sampler has no part in it."""
    side = round(len(grid) ** 0.5)
    index = torch.searchsorted(mass.cumsum(0) / mass.sum(), torch.rand(num))
    axes = grid.reshape(side, side, 2)[:, 0, 0], grid.reshape(side, side, 2)[0, :, 1]
    places = index // side, index % side
    return torch.stack([_inside(a, p) for a, p in zip(axes, places, strict=True)], dim=-1)


def _inside(axis: Tensor, place: Tensor) -> Tensor:
    middles = (axis[1:] + axis[:-1]) / 2
    edges = torch.cat([axis[:1], middles, axis[-1:]])
    return edges[place] + (edges[place + 1] - edges[place]) * torch.rand(place.shape)


def p_value(one: Tensor, other: Tensor) -> float:
    """Kolmogorov-Smirnov of two samples in 8 fixed directions, corrected for their number (Bonferroni)."""
    angle = torch.arange(DIRECTIONS) * torch.pi / DIRECTIONS + 0.1
    directions = torch.stack([angle.cos(), angle.sin()]).to(one)
    pairs = zip((one @ directions).T.numpy(), (other @ directions).T.numpy(), strict=True)
    return DIRECTIONS * min(ks_2samp(a, b, method="asymp").pvalue for a, b in pairs)


# Mass and sampler ----------------------------------------------------------------------------------------------------


@in_float64
@pytest.mark.parametrize(**over(PRIORS))
def test_a_prior_has_mass_one_and_its_draws_come_from_the_density_that_it_scores(build, prior):
    """∫ p = 1 over the plane; and 20,000 draws against 20,000 points of the density at level 1e-3 over all priors."""
    law = prior()
    grid, mass = tabulated(law, **FINE.get(build, {}))
    torch.testing.assert_close(mass.sum(), torch.ones(()), rtol=1e-3, atol=0)
    assert p_value(law.sample((DRAWS,)), drawn_from(grid, mass, DRAWS)) > LEVEL / len(PRIORS)


def inverted(law: Any) -> Tensor:
    """A flow whose sampler runs the wrong way round."""
    return law.transforms[0].inv(law.base_dist.sample((DRAWS,))).detach()


def without_joint(law: Any) -> Tensor:
    """Every coordinate from a component of its own, as of a product of 1-D mixtures."""
    draws = law.sample((DRAWS,))
    return torch.stack([draws[:, 0], draws[torch.randperm(DRAWS), 1]], dim=-1)


def first_components(law: Any) -> Tensor:
    """Draws of three of five components."""
    return law.component(torch.arange(3)).sample((DRAWS // 3,)).reshape(-1, 2)


WRONG: dict[str, tuple[str, Callable[[Any], Tensor]]] = {
    "too_wide_by_a_tenth": ("standard_normal", lambda law: 1.1 * law.sample((DRAWS,))),
    "moved_by_a_twentieth": ("standard_normal", lambda law: 0.05 + law.sample((DRAWS,))),
    "product_of_mixtures": ("mixture", without_joint),
    "only_the_first_pseudo_inputs": ("vamp_of_diagonal", first_components),
    "flow_run_backwards": ("realnvp", inverted),
    "base_of_the_flow": ("flow_over_mixture", lambda law: law.base_dist.sample((DRAWS,))),
}


@in_float64
@pytest.mark.parametrize("name", WRONG)
def test_the_same_comparison_refuses_a_sampler_that_is_wrong(name):
    of, sampler = WRONG[name]
    law = randomize(PRIORS[of](), 0.5)()
    wrong = sampler(law)
    assert p_value(wrong, drawn_from(*tabulated(law), DRAWS)) < LEVEL / len(PRIORS)


# Mixtures ------------------------------------------------------------------------------------------------------------


def test_a_fresh_mixture_has_about_zero_mean_and_unit_variance():
    """Over 2,000 components; 5 standard errors."""
    law = dgm.MixturePrior(2, 2000)()
    assert bool((law.mean.abs() <= 5 * (0.5 / 2000) ** 0.5).all())
    draws = law.sample((20_000,))
    assert bool(
        ((draws.var(0) - 1).abs() <= 5 * (2 / 20_000) ** 0.5 + 5 * 0.5 * (2 / 2000) ** 0.5).all()
    )


@in_float64
def test_a_mixture_prior_is_the_mixture_of_its_parameters():
    prior = randomize(dgm.MixturePrior(3, 4))
    value, scale = torch.randn(6, 3), nn.functional.softplus(prior.raw_scale) + 1e-6
    each = torch.stack(
        [
            dist.Normal(m, s).to_event(1).log_prob(value)
            for m, s in zip(prior.loc, scale, strict=True)
        ]
    )
    expected = (prior.logits.log_softmax(-1)[:, None] + each).logsumexp(0)
    torch.testing.assert_close(prior().log_prob(value), expected)


def test_a_mixture_without_components_is_refused():
    with pytest.raises(
        ValueError, match=r"MixturePrior: expected num_components >= 1, got 0\. Fix"
    ):
        dgm.MixturePrior(2, 0)
    with pytest.raises(ValueError, match=r"MixturePrior: expected dim >= 1, got 0\. Fix"):
        dgm.MixturePrior(0, 2)


def test_the_representation_shows_the_settings():
    assert repr(dgm.MixturePrior(3, 5)) == "MixturePrior(3, 5)"
    vamp, aggregate = (
        k(diagonal(), torch.randn(5, 3)) for k in (dgm.VampPrior, dgm.AggregatePrior)
    )
    assert "pseudo_inputs=(5, 3)" in repr(vamp)
    assert "data=(5, 3)" in repr(aggregate)


@pytest.mark.parametrize("kind", [dgm.VampPrior, dgm.AggregatePrior])
def test_a_network_in_place_of_the_encoder_is_refused(kind):
    with pytest.raises(
        TypeError, match=r"encoder: expected a conditional.*got MLP.*Fix: encoder=Con"
    ):
        kind(dgm.mlp(3, 4), torch.randn(5, 3))


# Pseudo-inputs -------------------------------------------------------------------------------------------------------


def vamp_vae(encoder: nn.Module | None = None) -> dgm.VAE:
    encoder = encoder or diagonal()
    return dgm.VAE(dgm.VampPrior(encoder, torch.randn(5, 3)), dgm.Normal(dgm.mlp(2, 8, 3)), encoder)


def test_the_prior_refers_to_the_encoder_and_the_vae_counts_it_once():
    vae = vamp_vae()
    assert vae.model.prior.encoder is vae.guide.encoder
    own = {
        *vae.guide.parameters(),
        *vae.model.likelihood.parameters(),
        vae.model.prior.standardized,
    }
    counted = list(vae.parameters())
    assert len(counted) == len(own)
    assert set(counted) == own
    objective = dgm.ELBO(vae.model, vae.guide)
    assert len(list(objective.parameters())) == len(own)


@in_float64
def test_training_moves_the_encoder_through_the_prior():
    """The gradient of the encoder is the sum of its two parts: as the guide, and as the prior's components."""
    vae, x = vamp_vae(), torch.randn(6, 3)
    z = vae.guide.encoder(x).sample()
    weights = list(vae.guide.encoder.parameters())
    through_prior = torch.autograd.grad(vae.model.prior().log_prob(z).sum(), weights)
    assert all(bool((g != 0).any()) for g in through_prior)
    through_guide = torch.autograd.grad(vae.guide.encoder(x).log_prob(z).sum(), weights)
    whole = torch.autograd.grad(
        (vae.model.prior().log_prob(z) - vae.guide.encoder(x).log_prob(z)).sum(), weights
    )
    torch.testing.assert_close(
        whole, tuple(a - b for a, b in zip(through_prior, through_guide, strict=True))
    )


def test_after_training_prior_and_guide_still_hold_one_encoder():
    vae, x = vamp_vae(), torch.randn(40, 3)
    before = {n: p.detach().clone() for n, p in vae.named_parameters()}
    dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide), lr=1e-2).fit(
        x, x[:10], epochs=2, batch_size=20, progress=False
    )
    assert vae.model.prior.encoder is vae.guide.encoder
    assert not [n for n, p in vae.named_parameters() if torch.equal(p, before[n])]
    expected = dgm.AggregatePrior(vae.guide.encoder, vae.model.prior.pseudo_inputs)
    z = torch.randn(7, 2)
    torch.testing.assert_close(vae.model.prior().log_prob(z), expected().log_prob(z))


def test_a_deep_copy_of_the_vae_shares_its_own_encoder_and_none_of_the_first():
    vae = vamp_vae()
    twin = copy.deepcopy(vae)
    assert twin.model.prior.encoder is twin.guide.encoder
    assert twin.guide.encoder is not vae.guide.encoder
    assert not {*twin.parameters()} & {*vae.parameters()}


def test_saved_weights_are_read_by_a_fresh_vae_whose_prior_goes_on_sharing(tmp_path):
    one, other = vamp_vae(), vamp_vae()
    z = torch.randn(7, 2)
    dgm.save_weights(one, tmp_path / "w")
    assert not torch.equal(one.model.prior().log_prob(z), other.model.prior().log_prob(z))
    dgm.load_weights(other, tmp_path / "w")
    assert other.model.prior.encoder is other.guide.encoder
    torch.testing.assert_close(
        other.model.prior().log_prob(z), one.model.prior().log_prob(z), rtol=0, atol=0
    )
    with torch.no_grad():
        next(other.guide.parameters()).add_(1.0)
    assert not torch.equal(one.model.prior().log_prob(z), other.model.prior().log_prob(z))


@in_float64
@pytest.mark.parametrize("unit", [1.0, 255.0, 1e-3])
def test_pseudo_inputs_start_as_given_in_the_unit_of_the_data_and_learn_in_their_spread(unit):
    given = unit * (3 + torch.randn(5, 3))
    prior = dgm.VampPrior(diagonal(), given, unit=given.std(correction=0))
    assert unit < 1 or torch.equal(dgm.VampPrior(diagonal(), given).spread, prior.spread)
    torch.testing.assert_close(prior.pseudo_inputs.detach(), given)
    torch.testing.assert_close(prior.standardized.mean().detach(), torch.zeros(()))
    torch.testing.assert_close(prior.standardized.std(correction=0).detach(), torch.ones(()))
    with torch.no_grad():
        prior.standardized.add_(0.1)
    torch.testing.assert_close(prior.pseudo_inputs.detach(), given + 0.1 * given.std(correction=0))


def test_pseudo_inputs_that_are_all_equal_have_the_unit_one_and_are_told_that_they_stay_equal():
    with pytest.warns(UserWarning, match=r"that differ, got 4 equal ones: .* Fix: pseudo_inputs="):
        prior = dgm.VampPrior(diagonal(), torch.full((4, 3), 7.0))
    torch.testing.assert_close(prior.pseudo_inputs.detach(), torch.full((4, 3), 7.0))
    prior().log_prob(torch.zeros(2)).backward()
    assert bool(prior.standardized.grad.isfinite().all())
    dgm.VampPrior(diagonal(), torch.full((1, 3), 7.0))


@pytest.mark.parametrize(("centre", "sd"), [(0.5, 0.01), (-0.05, 0.01), (0.0, 0.01), (128.0, 2.5)])
def test_narrow_noise_around_one_value_is_told_and_a_unit_mends_it(centre, sd):
    start = centre + sd * torch.randn(20, 30)
    with pytest.warns(
        UserWarning, match=r"as widely spread as the data, got .* stays one component. Fix: unit="
    ):
        dgm.VampPrior(diagonal(30), start)
    prior = dgm.VampPrior(diagonal(30), start, unit=0.3)
    torch.testing.assert_close(prior.pseudo_inputs.detach(), start)
    assert prior.spread.item() == pytest.approx(0.3)
    assert "unit=0.3" in repr(prior)


@pytest.mark.parametrize("unit", [None, 1.0])
def test_a_step_of_adam_moves_pseudo_inputs_by_its_rate_in_their_unit(unit):
    prior = dgm.VampPrior(diagonal(), 0.4 * torch.randn(20, 3), unit)
    start = prior.pseudo_inputs.detach()
    optimizer = torch.optim.Adam([prior.standardized], lr=0.01)
    prior().log_prob(torch.randn(50, 2)).sum().backward()
    optimizer.step()
    moved = (prior.pseudo_inputs.detach() - start).abs()
    torch.testing.assert_close(
        moved, torch.full_like(moved, 0.01 * prior.spread), rtol=1e-3, atol=0
    )


@pytest.mark.parametrize("unit", [0.0, -1.0, torch.inf, torch.nan, torch.ones(3)])
def test_a_unit_that_is_no_positive_number_is_refused(unit):
    with pytest.raises(
        ValueError, match=r"expected a unit that is one number above 0, got .*Fix: "
    ):
        dgm.VampPrior(diagonal(), torch.randn(5, 3), unit=unit)


def num_components_used(vae: dgm.VAE, x: torch.Tensor) -> float:
    r"""$\exp I(k; z)$ between codes of data and the components of the prior: 1 where these are one and the same."""
    encoder, prior = vae.guide.encoder, vae.model.prior
    with torch.no_grad():
        z = encoder(x).sample()
        of_components = encoder(prior.pseudo_inputs).base_dist
        share = of_components.log_prob(z[:, None]).sum(-1).softmax(-1)
    mean = share.mean(0)
    information = (
        torch.special.xlogy(share, share).sum(1).mean() - torch.special.xlogy(mean, mean).sum()
    )
    return information.exp().item()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:VampPrior")
def test_narrow_pseudo_inputs_become_a_mixture_in_the_unit_of_the_data():
    """Binary 8×8 digits, 30 epochs: 17.8 ± 1.1 components are used (three seeds), and 1.00 without the unit."""
    from sklearn.datasets import load_digits

    x = torch.tensor(load_digits().data > 8, dtype=torch.get_default_dtype())
    used = []
    for unit in (x.std(), None):
        torch.manual_seed(0)
        start = 0.5 + 0.01 * torch.randn(50, 64)
        encoder = dgm.Conditional(dist.Normal, dgm.mlp(64, 128, 2 * 8))
        prior = dgm.VampPrior(encoder, start, unit)
        vae = dgm.VAE(prior, dgm.Bernoulli(dgm.mlp(8, 128, 64)), encoder)
        trainer = dgm.SVITrainer(
            dgm.ELBO(vae.model, vae.guide), optimizer=partial(torch.optim.Adam, lr=5e-3)
        )
        trainer.fit(x[:1500], epochs=30, batch_size=20, progress=False)
        used.append(num_components_used(vae, x[1500:]))
    assert used[0] > 8
    assert used[1] < 1.1


def test_weights_of_a_prior_bring_their_own_unit():
    """The unit is a buffer, as it always was: files of a release without the argument are read whole."""
    encoder = diagonal()
    old, new = (
        dgm.VampPrior(encoder, torch.randn(5, 3)),
        dgm.VampPrior(encoder, torch.randn(5, 3), 9.0),
    )
    state = old.state_dict()
    assert {"centre", "spread", "standardized"} <= set(state)
    new.load_state_dict(state)
    assert torch.equal(new.pseudo_inputs, old.pseudo_inputs)


def test_pseudo_inputs_are_a_copy_and_levels_become_floats():
    given = torch.randint(17, (5, 3))
    prior = dgm.VampPrior(diagonal(), given)
    assert prior.standardized.dtype == torch.get_default_dtype()
    torch.testing.assert_close(prior.pseudo_inputs.detach(), given.to(torch.get_default_dtype()))
    floats = torch.randn(5, 3)
    before, prior = floats.clone(), dgm.VampPrior(diagonal(), floats)
    with torch.no_grad():
        prior.standardized.zero_()
    assert torch.equal(floats, before)


@pytest.mark.parametrize("kind", [dgm.VampPrior, dgm.AggregatePrior])
@pytest.mark.parametrize(
    "tensor", [torch.zeros(0, 3), torch.zeros(3), torch.zeros(())], ids=["none", "vector", "0-dim"]
)
def test_no_inputs_are_refused_with_the_fix(kind, tensor):
    argument = "pseudo_inputs" if kind is dgm.VampPrior else "data"
    with pytest.raises(
        ValueError,
        match=rf"{kind.__name__}: expected {argument} of shape \(K, \*event\).*Fix: {argument}=",
    ):
        kind(diagonal(), tensor)


# Aggregate -----------------------------------------------------------------------------------------------------------


@in_float64
@pytest.mark.parametrize("encoder", [diagonal, full, flow])
def test_the_aggregate_is_the_mean_of_the_posteriors_of_its_data(encoder):
    """KL(q_agg ‖ p) = 0: at every point log p(z) = log mean q(z | x_n)."""
    encoder, x = randomize(encoder()), torch.randn(11, 3)
    z = encoder(x).sample((4,)).reshape(-1, 2)
    each = torch.stack([encoder(datum).log_prob(z) for datum in x])
    expected = each.logsumexp(0) - torch.tensor(11.0).log()
    torch.testing.assert_close(dgm.AggregatePrior(encoder, x)().log_prob(z), expected)
    torch.testing.assert_close(dgm.VampPrior(encoder, x)().log_prob(z), expected)


@in_float64
def test_no_prior_scores_the_draws_of_the_encoder_higher_than_the_aggregate():
    """E log q_agg − E log p = KL(q_agg ‖ p) ≥ 0 for any other p; 5 standard errors over 20,000 draws."""
    encoder, x = randomize(diagonal(), 0.5), torch.randn(11, 3)
    z = dgm.AggregatePrior(encoder, x)().sample((20_000,))
    best = dgm.AggregatePrior(encoder, x)().log_prob(z)
    for other in (
        dgm.StandardNormal(2),
        dgm.MixturePrior(2, 5),
        dgm.AggregatePrior(encoder, x[:5]),
    ):
        gap = (best - other().log_prob(z)).detach()
        assert float(gap.mean()) > 5 * float(gap.std()) / 20_000**0.5


def test_the_data_of_the_aggregate_travel_in_the_state_dict_and_are_a_copy():
    x = torch.randn(6, 3)
    one, other = (dgm.AggregatePrior(diagonal(), data) for data in (x, torch.randn(6, 3)))
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.state_dict()["data"], x)
    z = torch.randn(4, 2)
    torch.testing.assert_close(other().log_prob(z), one().log_prob(z), rtol=0, atol=0)
    x.zero_()
    torch.testing.assert_close(other().log_prob(z), one().log_prob(z), rtol=0, atol=0)
    assert "data" not in dict(one.named_parameters())


def test_stored_bytes_stay_bytes_and_are_read_as_the_encoder_reads_them():
    x, z = torch.randint(256, (6, 3), dtype=torch.uint8), torch.randn(4, 2)
    encoder = diagonal()
    prior = dgm.AggregatePrior(encoder, x)
    assert prior.data.dtype == torch.uint8
    expected = dgm.AggregatePrior(encoder, x.to(torch.get_default_dtype()))
    torch.testing.assert_close(prior().log_prob(z), expected().log_prob(z))


@in_float64
def test_a_context_goes_to_the_encoder_beside_every_stored_datum():
    encoder, x, c = (
        dgm.Conditional(dist.Normal, dgm.Concat(dgm.mlp(5, 4))),
        torch.randn(4, 3),
        torch.randn(6, 2),
    )
    law, z = dgm.AggregatePrior(encoder, x)(c), torch.randn(6, 2)
    assert law.batch_shape == (6,)
    expected = torch.stack([
        torch.stack([encoder(datum, row).log_prob(value) for datum in x]).logsumexp(0) - torch.tensor(4.0).log()
        for row, value in zip(c, z, strict=True)
    ])  # fmt: skip
    torch.testing.assert_close(law.log_prob(z), expected)


@in_float64
def test_images_may_be_stored():
    encoder = dgm.Conditional(dist.Normal, dgm.ConvEncoder((1, 5, 5), 4, (3, 4)))
    images, z = torch.rand(6, 1, 5, 5), torch.randn(3, 2)
    expected = encoder(images).log_prob(z[:, None]).logsumexp(-1) - torch.tensor(6.0).log()
    for kind in (dgm.VampPrior, dgm.AggregatePrior):
        torch.testing.assert_close(kind(encoder, images)().log_prob(z), expected)


@pytest.mark.parametrize("kind", [dgm.VampPrior, dgm.AggregatePrior])
def test_an_encoder_that_cannot_score_given_points_is_refused_in_a_prior(kind):
    encoder = dgm.Flow(diagonal(), dgm.flows.planar(2, 2, 3))
    with pytest.raises(
        ValueError, match=r"prior: expected bijectors that go both ways.*got Stack|got Planar"
    ):
        dgm.VAE(kind(encoder, torch.randn(5, 3)), dgm.Normal(dgm.mlp(2, 3)), encoder)
