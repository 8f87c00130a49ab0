import pyro
import pyro.distributions as dist
import pytest
import torch
from cases import PAIRS, over
from toys import (
    ExactGuide,
    GlobalMean,
    GlobalMeanGuide,
    LinearGaussian,
    Series,
    SeriesGuide,
    Written,
    linear_gaussian,
    toy_vae,
)

import pyro_dgm as dgm
from pyro_dgm.inference.process.states import evaluation_mode

WITH_CONTEXT = {"vae_labels"}


@pytest.mark.parametrize("chunk", [3, 10_000])
@pytest.mark.parametrize(**over(PAIRS))
def test_generated_data_have_the_shape_of_the_data(build, chunk):
    case = build()
    x, *context = case.batch(4)
    found = dgm.generate(case.model, 7, *context, chunk=chunk)
    assert found.shape == ((7, 4, *x.shape[1:]) if context else (7, *x.shape[1:]))
    assert found.isfinite().all()
    assert not found.requires_grad


@pytest.mark.parametrize(**over(PAIRS))
def test_what_a_model_generates_it_can_be_trained_on(build):
    case = build()
    _, *context = case.batch(4)
    x = dgm.generate(case.model, 1, *context)[0] if context else dgm.generate(case.model, 4)
    assert dgm.nll(case.model, case.guide, x, *context, num=3).per_datum.isfinite().all()


def test_generated_data_have_the_law_of_the_model():
    """Mean and covariance of 20,000 draws against the closed form."""
    model = LinearGaussian(latent=2, observed=3)
    x = dgm.generate(model, 20_000)
    weight = model.weight.detach()
    covariance = weight @ weight.T + model.scale**2 * torch.eye(3)
    variance = covariance.diagonal()
    assert ((x.mean(0) - model.bias).abs() < 5 * (variance / 20_000).sqrt()).all()
    standard_error = ((covariance**2 + variance[:, None] * variance) / 20_000).sqrt()
    assert ((x.T.cov() - covariance).abs() < 5 * standard_error).all()


def test_it_samples_the_prior_that_it_scores():
    """Defect 6: E[log p(z)] over generated z equals minus the entropy, here by quadrature of a flow prior."""
    prior = dgm.Flow(dgm.StandardNormal(2), dgm.maf(2, 2, hidden=(8,)))
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
        model = dgm.LatentVariableModel(prior, dgm.Normal(dgm.mlp(2, 3)))
        log_p = prior().log_prob(dgm.generate(model, 20_000, site="z"))
        edge = torch.arange(-12, 12, 0.04)
        density = prior().log_prob(torch.cartesian_prod(edge, edge))
        assert abs(density.exp().sum() * 0.04**2 - 1) < 1e-3
        exact = (density.exp() * density).sum() * 0.04**2
    assert (log_p.mean() - exact).abs() < 5 * log_p.std() / 20_000**0.5


def test_a_context_decides_what_is_generated():
    density = dgm.Conditional(dist.Normal, torch.nn.Identity())
    c = torch.tensor([[-50.0, -9.0], [50.0, -9.0]])
    x = dgm.generate(dgm.DensityModel(density), 6, c)
    assert x.shape == (6, 2, 1)
    assert (x[:, 0] < -40).all()
    assert (x[:, 1] > 40).all()


def test_every_site_can_be_asked_for():
    vae = toy_vae()
    assert dgm.generate(vae.model, 5, site="z").shape == (5, 2)
    assert torch.equal(dgm.generate(vae.model, 5, site="x"), dgm.generate(vae.model, 5))


def test_means_are_those_of_the_same_latents():
    """E[x | z] = W z + b, at the z that the same seed draws."""
    model = LinearGaussian()
    z, found = dgm.generate(model, 50, site="z"), dgm.generate(model, 50, mean=True)
    with torch.no_grad():
        torch.testing.assert_close(found, z @ model.weight.T + model.bias)
    assert not torch.equal(found, dgm.generate(model, 50))


@pytest.mark.parametrize(**over(PAIRS))
def test_means_have_the_shape_of_the_data_or_say_that_there_are_none(build):
    case = build()
    x, *context = case.batch(4)
    try:
        found = dgm.generate(case.model, 7, *context, mean=True, chunk=3)
    except NotImplementedError:
        with pytest.raises(NotImplementedError, match="expected a distribution that has a mean"):
            dgm.generate(case.model, 7, *context, mean=True)
        return
    assert found.shape == ((7, 4, *x.shape[1:]) if context else (7, *x.shape[1:]))


def test_means_have_the_law_that_a_critic_without_noise_plays_against():
    """The very draws of `trainer.fakes` under one seed."""
    generator = toy_vae().generator
    trainer = dgm.GANTrainer(generator, dgm.mlp(3, 1))
    with evaluation_mode(generator, seed=3):
        generator(None)  # `generate` runs the program once to learn of its plates
        fake = trainer.fakes(torch.empty(6, 3))
    torch.testing.assert_close(dgm.generate(generator, 6, mean=True, seed=3), fake)


def test_a_law_without_a_mean_says_so():
    model = dgm.DensityModel(dgm.Flow(dgm.StandardNormal(3), dgm.maf(3, 2, hidden=(8,))))
    with pytest.raises(
        NotImplementedError,
        match=r"site 'x': expected a distribution that has a mean.*Fix: .*generate\(model",
    ):
        dgm.generate(model, 3, mean=True)


def test_the_mean_is_that_of_the_observed_site_whatever_is_returned():
    def run(program, x):
        with dgm.data_plate(x):
            return 2 * pyro.sample("x", dist.Normal(program.weight, 1.0), obs=x)

    torch.testing.assert_close(
        dgm.generate(Written(run), 5, mean=True), torch.full((5,), 0.5), check_dtype=False
    )


def test_an_unknown_site_raises_with_those_there_are():
    with pytest.raises(ValueError, match=r"a site among \['z', 'x'\], .* got 'y'. Fix: site='x'"):
        dgm.generate(toy_vae().model, 5, site="y")


def test_a_further_plate_follows_the_draws():
    assert dgm.generate(Series(), 5).shape == (5, 3)
    assert dgm.generate(Series(), 5, site="z").shape == (5,)


def test_a_global_site_is_drawn_once_per_draw():
    mu = dgm.generate(GlobalMean(), 5, site="mu")
    assert mu.shape == (5,)
    assert mu.unique().numel() == 5


def test_a_global_vector_keeps_its_dims():
    def run(program, x):
        mu = pyro.sample("mu", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        with dgm.data_plate(x):
            return pyro.sample("x", dist.Normal(mu * program.weight, 1.0).to_event(1), obs=x)

    assert dgm.generate(Written(run), 5, site="mu").shape == (5, 3)


def test_draws_repeat_under_a_seed_and_leave_the_users_alone():
    model = LinearGaussian()
    model.train()
    before = torch.get_rng_state()
    first = dgm.generate(model, 5)
    torch.testing.assert_close(dgm.generate(model, 5), first, rtol=0, atol=0)
    assert not torch.equal(dgm.generate(model, 5, seed=1), first)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training


# Encode and reconstruct ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(**over(PAIRS))
def test_codes_are_draws_of_every_latent_site(build):
    case = build()
    batch = case.batch(4)
    codes = dgm.encode(case.guide, *batch, num=3)
    assert set(codes) == set(dgm.draw(case.model, case.guide, *batch, num=3).values)
    assert all(z.shape[:2] == (3, 4) for z in codes.values())


def test_codes_have_the_law_of_the_posterior():
    model, guide, x = linear_gaussian()
    z = dgm.encode(guide, x, num=20_000)["z"]
    loc = (x - guide.bias) @ guide.map.T
    variance = (guide.root @ guide.root.T).diagonal()
    assert ((z.mean(0) - loc).abs() < 5 * (variance / 20_000).sqrt()).all()


@pytest.mark.parametrize(
    "pair",
    ["vae_normal", "vae_bernoulli", "vae_labels", "vae_conv", "vae_flow", "two_latents_bare"],
)
def test_reconstructions_have_the_shape_of_the_data(pair):
    case = PAIRS[pair]()
    batch = case.batch(4)
    found = dgm.reconstruct(case.model, case.guide, *batch, num=3)
    assert found.keys() == {"x"}
    assert found["x"].shape == batch[0].shape
    assert found["x"].isfinite().all()


def test_reconstructions_are_means_over_the_posterior():
    """E[Wz + b | x] in closed form, by 20,000 draws."""
    model, guide, x = linear_gaussian()
    found = dgm.reconstruct(model, guide, x, num=20_000)["x"]
    with torch.no_grad():
        exact = ((x - guide.bias) @ guide.map.T) @ model.weight.T + model.bias
        spread = model.weight @ guide.root
        standard_error = (spread @ spread.T).diagonal().sqrt() / 20_000**0.5
    assert ((found - exact).abs() < 5 * standard_error).all()


def test_binary_reconstructions_are_probabilities():
    case = PAIRS["vae_bernoulli"]()
    found = dgm.reconstruct(case.model, case.guide, *case.batch(4), num=3)["x"]
    assert ((found > 0) & (found < 1)).all()


def test_a_further_plate_has_its_reconstructions():
    model, guide, x = Series(), SeriesGuide(), torch.randn(5, 3)
    assert dgm.encode(guide, x, num=2)["u"].shape == (2, 3, 5)
    assert dgm.reconstruct(model, guide, x, num=2)["x"].shape == (3, 5)


def test_encode_and_reconstruct_leave_seed_and_modes_alone():
    model = LinearGaussian()
    guide, x = ExactGuide(model), model.data(3)
    before = torch.get_rng_state()
    first = dgm.encode(guide, x)["z"]
    dgm.reconstruct(model, guide, x)
    assert torch.equal(dgm.encode(guide, x)["z"], first)
    assert not torch.equal(dgm.encode(guide, x, seed=1)["z"], first)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    assert guide.training


@pytest.mark.parametrize("call", [dgm.encode, dgm.active_units])
def test_a_model_in_place_of_the_guide_is_refused(call):
    model, _, x = linear_gaussian()
    with pytest.raises(
        ValueError,
        match=r"expected a program that draws latents, .*observes \['x'\]: is it the model\?",
    ):
        call(model, x)


def test_a_guide_may_have_factors():
    def weighed(_, x):
        with dgm.data_plate(x):
            pyro.sample("z", dist.Normal(x, 1.0).to_event(1))
            pyro.factor("prejudice", torch.zeros(len(x)), has_rsample=False)

    assert dgm.encode(Written(weighed), torch.zeros(4, 2))["z"].shape == (1, 4, 2)


@pytest.mark.parametrize("call", [dgm.encode, dgm.active_units])
def test_one_datum_without_its_dim_is_refused_by_guides_with_networks(call):
    vae, x = toy_vae(), torch.randn(5, 3)
    with pytest.raises(
        ValueError,
        match=r"(?s)fail on a batch of shapes \[\(3,\)\].*Fix: x\[None\] for one datum",
    ):
        call(vae.guide, x[0])
    assert dgm.encode(vae.guide, x[0][None])["z"].shape[:2] == (1, 1)
    assert dgm.encode(GlobalMeanGuide(), torch.randn(5))["z"].shape == (1, 5), (
        "data that are numbers"
    )
