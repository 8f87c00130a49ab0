"""Every part of a VAE in the sizes of every kind of data; the compositions that were published are the same modules."""

import pyro.distributions as dist
import pytest
import torch
from experiments.recipes.synthetic import KINDS, synthetic
from torch import nn

from pyro_dgm import ELBO, MixturePrior, VampPrior
from pyro_dgm.experiments.recipes import encoders, families, layers, likelihoods, priors
from pyro_dgm.experiments.recipes.adversarial import Adversarial
from pyro_dgm.experiments.recipes.compositions import binary_vae, levels_vae
from pyro_dgm.experiments.recipes.density import Density
from pyro_dgm.experiments.recipes.networks import Convolutional, Dense, PlanesToRows
from pyro_dgm.experiments.recipes.slots import Given
from pyro_dgm.experiments.recipes.units import (
    FITTING,
    LocationScale,
    Standardize,
    train_units,
    typical_rows,
    unit_layer,
)
from pyro_dgm.experiments.recipes.vae import VAE, Generator
from pyro_dgm.programs.likelihoods import categories, colour, continuous, counts, discretized

DENSE, CONVOLUTIONAL = Dense([8]), Convolutional([4, 6], features=8)
DIGITS = VAE(
    16,
    Dense([512]),
    priors.FlowPrior(layers=2),
    likelihoods.DiscretizedLogistic(min_scale=0.3),
    encoders.FlowPosterior(layers=2, features=256),
)
MNIST = VAE(40, Dense([300, 300], gated=True))
PRIORS = (
    priors.Standard(),
    priors.Mixture(3),
    priors.Vamp(5),
    priors.FlowPrior(),
    priors.FlowPrior(conditional=False),
    priors.FlowPrior(layers.SplineCoupling(), hidden=(8,), base=priors.Mixture(3)),
    priors.FlowPrior(layers.SplineMAF(), hidden=(8,)),
    priors.FlowPrior(layers.RealNVP(), layers=3, hidden=(8,)),
)
ENCODERS = (
    encoders.Diagonal(floor=0.05),
    encoders.FullRank(),
    encoders.LowRank(rank=1),
    encoders.FlowPosterior(hidden=(8,), features=6),
    encoders.FlowPosterior(layers.SplineIAF(), hidden=(8,), features=6),
    encoders.FlowPosterior(layers.Planar(), hidden=(), features=6),
    encoders.FlowPosterior(layers.Sylvester(num_units=2), hidden=(), features=6),
)
LIKELIHOODS = (
    ("binary", families.Bernoulli()),
    ("levels", likelihoods.DiscretizedLogistic(bounded=True)),
    ("levels", likelihoods.DiscretizedNormal()),
    ("levels", likelihoods.DiscretizedLogisticMixture(components=2)),
    ("bytes", likelihoods.ColourLogisticMixture(components=2)),
    ("levels", likelihoods.Categorical()),
    ("levels", families.Binomial()),
    ("counts", families.Binomial(total_count=40)),
    ("counts", families.Poisson()),
    ("counts", families.NegativeBinomial()),
    ("counts", families.ZeroInflatedPoisson()),
    ("counts", families.ZeroInflatedNegativeBinomial()),
    ("real", likelihoods.Normal(scale=0.5)),
    ("real", likelihoods.Laplace()),
    ("real", likelihoods.StudentT()),
)
NETWORKS = pytest.mark.parametrize("network", [DENSE, CONVOLUTIONAL], ids=["dense", "conv"])
CONTEXT = pytest.mark.parametrize("num_context", [0, 3], ids=["plain", "conditional"])


def assert_trains(recipe, data):
    """The programs keep the contract, and a step would move every parameter by something finite."""
    programs = recipe.build(data)
    objective = ELBO(programs.model, programs.guide)
    batch = tuple(part[:10] for part in data.split("train"))
    objective.preflight(*batch)
    loss = objective(*batch)
    assert loss.isfinite()
    loss.backward()
    still = [name for name, p in programs.named_parameters() if p.grad is None]
    assert still == []
    assert all(p.grad.isfinite().all() for p in programs.parameters())
    return programs


def seeded(build):
    torch.manual_seed(0)
    return build()


@pytest.mark.parametrize(
    ("recipe", "composition", "kind", "shape"),
    [(DIGITS, levels_vae, "levels", (8, 8)), (MNIST, binary_vae, "binary", (28, 28))],
    ids=["digits", "mnist"],
)
def test_the_recipe_is_the_published_composition_weight_for_weight(
    recipe, composition, kind, shape
):
    data = synthetic(kind, shape)
    data.levels = 17 if kind == "levels" else 2
    of_recipe, published = seeded(lambda: recipe.build(data)), seeded(composition)
    ours, theirs = of_recipe.state_dict(), published.state_dict()
    assert {n: t.shape for n, t in ours.items()} == {n: t.shape for n, t in theirs.items()}
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    losses = [
        seeded(lambda vae=vae: ELBO(vae.model, vae.guide)(data.train))
        for vae in (of_recipe, published)
    ]
    assert torch.equal(*losses)


@NETWORKS
@CONTEXT
@pytest.mark.parametrize("kind", KINDS)
def test_the_default_model_trains_on_every_kind_of_images(kind, num_context, network):
    assert_trains(VAE(3, network), synthetic(kind, (3, 4, 4), num_context))


@CONTEXT
@pytest.mark.parametrize("kind", KINDS)
def test_the_default_model_trains_on_every_kind_of_tables(kind, num_context):
    assert_trains(VAE(3, DENSE), synthetic(kind, (6,), num_context))


@CONTEXT
@pytest.mark.parametrize("prior", PRIORS, ids=str)
def test_every_prior_trains(prior, num_context):
    assert_trains(VAE(3, DENSE, prior), synthetic("levels", (2, 2), num_context))


@NETWORKS
@CONTEXT
@pytest.mark.parametrize("encoder", ENCODERS, ids=str)
def test_every_encoder_trains(encoder, num_context, network):
    assert_trains(VAE(3, network, encoder=encoder), synthetic("counts", (4, 4), num_context))


@NETWORKS
@CONTEXT
@pytest.mark.parametrize(("kind", "likelihood"), LIKELIHOODS, ids=str)
def test_every_likelihood_trains(kind, likelihood, num_context, network):
    assert_trains(VAE(3, network, likelihood=likelihood), synthetic(kind, (3, 4, 4), num_context))


@CONTEXT
@pytest.mark.parametrize(
    "dequantizer", [None, encoders.Uniform(), encoders.FlowNoise(hidden=(8,), features=6)], ids=str
)
def test_a_dequantizer_asks_for_a_density(dequantizer, num_context):
    data = synthetic("levels", (4, 4), num_context)
    vae = assert_trains(VAE(3, DENSE, dequantizer=dequantizer), data)
    is_density = isinstance(vae.generator.likelihood, LocationScale)
    assert is_density == (dequantizer is not None)


@pytest.mark.parametrize(
    ("kind", "family"),
    [
        ("binary", categories.Bernoulli),
        ("levels", discretized.DiscretizedLogistic),
        ("bytes", discretized.DiscretizedLogistic),
        ("counts", counts.NegativeBinomial),
    ],
)
def test_the_likelihood_of_integers_is_chosen_by_their_kind(kind, family):
    assert type(VAE(3, DENSE).build(synthetic(kind)).generator.likelihood) is family


def test_the_likelihood_of_real_numbers_is_a_normal_in_their_unit():
    data = synthetic("real", (6,), num=4000)
    likelihood = VAE(3, DENSE).build(data).generator.likelihood
    assert type(likelihood.standardized) is continuous.Normal
    drawn = likelihood(torch.zeros(3))
    torch.testing.assert_close(likelihood.loc, data.train.mean(0))
    expected = data.train.std(0, correction=0)  # one σ, which starts at 1 in this unit
    torch.testing.assert_close(drawn.base_dist.scale, expected)


def test_a_location_scale_family_has_the_density_of_a_change_of_units():
    loc, scale = torch.randn(4), torch.rand(4) + 0.5
    net = nn.Linear(2, 3 * 4)
    likelihood = LocationScale(continuous.StudentT(net), loc, scale)
    z, x = torch.randn(5, 2), torch.randn(5, 4)
    expected = continuous.StudentT(net)(z).log_prob((x - loc) / scale) - scale.log().sum()
    torch.testing.assert_close(likelihood(z).log_prob(x), expected)


def test_real_inputs_are_standardized_by_the_training_data_and_keep_that_in_the_state_dict():
    data = synthetic("real", (3,))
    data.train[:, 1] = 7.0  # a column without a spread keeps its unit
    unit = unit_layer(data)
    assert isinstance(unit, Standardize)
    seen = unit(data.train)
    torch.testing.assert_close(seen.mean(0), torch.zeros(3), atol=1e-12, rtol=0)
    expected = torch.tensor([1.0, 0.0, 1.0])
    torch.testing.assert_close(seen.std(0, correction=0), expected, atol=1e-12, rtol=0)
    assert set(unit.state_dict()) == {"loc", "scale"}


@pytest.mark.parametrize(
    ("kind", "high"), [("levels", lambda x: x / 2 - 1), ("counts", torch.log1p)]
)
def test_integers_are_rescaled_by_their_range_or_their_logarithm(kind, high):
    data = synthetic(kind)
    torch.testing.assert_close(unit_layer(data)(data.train), high(data.train))


def test_planes_become_rows_channel_by_channel_with_components_side_by_side():
    planes = torch.arange(2 * 3 * 4 * 5.0).reshape(6, 4, 5)  # P = 2, K = 3
    rows = PlanesToRows(2, 3)(planes).reshape(2, 4, 5, 3)
    for plane in range(2):
        for component in range(3):
            assert torch.equal(rows[plane, :, :, component], planes[3 * plane + component])


def test_a_colour_likelihood_of_rows_is_that_of_images():
    data = synthetic("bytes", (3, 2, 2))
    likelihood = likelihoods.ColourLogisticMixture(2).build(3, data, CONVOLUTIONAL)
    assert isinstance(likelihood.images, colour.ColourLogisticMixture)
    z, rows = torch.randn(7, 3), data.train[:7].double()
    expected = likelihood.images(z).log_prob(rows.reshape(7, 3, 2, 2))
    torch.testing.assert_close(likelihood(z).log_prob(rows), expected)
    assert likelihood(z).sample((2,)).shape == (2, 7, 12)
    assert likelihood(z).expand((4, 7)).log_prob(rows).shape == (4, 7)
    assert likelihood(z).support.is_discrete


def test_a_vampprior_shares_the_encoder_of_the_guide_and_starts_at_training_data():
    data = synthetic("levels")
    vae = VAE(3, DENSE, priors.Vamp(5)).build(data)
    assert isinstance(vae.generator.prior, VampPrior)
    assert vae.generator.prior.encoder is vae.guide.encoder
    torch.testing.assert_close(vae.generator.prior.pseudo_inputs, data.train[:5])


def test_rows_that_are_binarized_are_seen_as_intensities():
    data = synthetic("bytes")
    data.levels, data.dynamic = 2, True
    assert torch.equal(typical_rows(data, 4), data.train[:4] / 255)


def test_the_latents_of_a_conditional_prior_depend_on_the_context_and_those_of_an_unconditional_one_do_not():
    data = synthetic("levels", num_context=3)
    x, *context = data.split("train")
    z = torch.randn(len(x), 3)
    for conditional in (True, False):
        prior = priors.FlowPrior(hidden=(8,), conditional=conditional).build(3, data, lambda: None)
        for parameter in prior.parameters():
            nn.init.normal_(parameter)
        other = [c.flip(0) for c in context]
        moved = prior(*other).log_prob(z) - prior(*context).log_prob(z)
        assert bool((moved.abs() > 1e-6).any()) == conditional


@NETWORKS
@CONTEXT
@pytest.mark.parametrize("kind", KINDS)
def test_data_with_missing_numbers_train(kind, num_context, network):
    data = synthetic(kind, (3, 4, 4), num_context, has_mask=True)
    assert_trains(VAE(3, network), data)


@CONTEXT
@pytest.mark.parametrize("prior", PRIORS, ids=str)
def test_every_prior_is_told_the_context_and_not_what_is_missing(prior, num_context):
    data = synthetic("levels", (2, 2), num_context, has_mask=True)
    vae = assert_trains(VAE(3, DENSE, prior), data)
    *context, mask = data.context["train"]
    z = torch.randn(len(mask), 3)
    of_mask = vae.generator.prior(*context, mask).log_prob(z)
    of_other = vae.generator.prior(*context, ~mask).log_prob(z)
    torch.testing.assert_close(of_mask, of_other, rtol=0, atol=0)
    assert vae.model(None, *context, mask).shape[-1] == 4


def test_a_missing_number_is_not_scored_and_its_unit_is_that_of_the_observed_ones():
    data = synthetic("real", (6,), num_context=3, num=200, has_mask=True)
    mask = data.context["train"][-1]
    likelihood = VAE(3, DENSE).build(data).generator.likelihood
    z = torch.randn(200, 3)
    scored = likelihood(z, *data.context["train"])
    changed = data.train.where(mask, torch.tensor(99.0))
    assert torch.equal(scored.log_prob(data.train), scored.log_prob(changed))
    assert not torch.equal(scored.log_prob(data.train), scored.log_prob(data.train + 1))
    loc, scale = train_units(data)
    column = data.train[mask[:, 2], 2]
    torch.testing.assert_close(loc[2], column.mean())
    torch.testing.assert_close(scale[2], column.std(correction=0))


def test_a_given_part_is_taken_as_it_is_and_two_models_do_not_share_it():
    recipe = VAE(3, DENSE, Given(MixturePrior(3, 4)))
    one, other = (recipe.build(synthetic("levels")).generator.prior for _ in range(2))
    assert torch.equal(one.loc, other.loc)
    assert one.loc is not other.loc
    assert_trains(recipe, synthetic("levels"))


def test_a_generator_makes_data_in_their_unit_without_a_guide():
    data = synthetic("real", (6,), num_context=3)
    programs = Generator(2, DENSE).build(data)
    with torch.no_grad():
        made = programs.model(None, *data.context["train"])
    assert made.shape == data.train.shape
    assert (made.mean() - 100).abs() < 50
    assert programs.guide(data.train) is None


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: VAE(3, CONVOLUTIONAL).build(synthetic("real", (6,))),
            r"expected images for convolutions, got .*\(6,\).*Fix: --model.network=Dense",
        ),
        (
            lambda: VAE(3, likelihood=likelihoods.Categorical()).build(synthetic("counts")),
            "number of levels for Categorical, got counts data. Fix: --model.likelihood=NegativeBinomial",
        ),
        (
            lambda: VAE(3, likelihood=families.Binomial()).build(synthetic("real")),
            "number of trials, got data without levels. Fix: --model.likelihood.total_count",
        ),
        (
            lambda: Generator(3, prior=priors.Vamp()).build(synthetic("levels")),
            "needs no encoder.*Fix: --model.prior=Mixture",
        ),
        (
            lambda: VAE(3, prior=priors.FlowPrior(layers.ImageRealNVP())).build(synthetic("real")),
            r"expected images without a context .* got shape \(3,\).*Fix: RealNVP",
        ),
        (
            lambda: Generator(3).build(synthetic("levels", has_mask=True)),
            "Generator: expected data without missing numbers.*Fix: --model=VAE",
        ),
        (
            lambda: Density().build(synthetic("levels", has_mask=True)),
            "Density: expected data without missing numbers.*Fix: --model=VAE",
        ),
        (
            lambda: Adversarial().build(None, synthetic("levels", has_mask=True)),
            "adversarial: expected data without missing numbers.*Fix: --model=VAE",
        ),
        (
            lambda: VAE(3, prior=priors.FlowPrior(layers.Planar())).build(synthetic("real")),
            "prior: expected bijectors that go both ways",
        ),
    ],
    ids=[
        "convolutions",
        "levels",
        "trials",
        "encoder",
        "image flow",
        "masked generator",
        "masked density",
        "masked game",
        "one way",
    ],
)
def test_a_part_that_does_not_fit_the_data_is_refused_with_the_fix(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_a_context_that_is_no_matrix_is_refused_with_the_fix():
    data = synthetic("levels")
    data.context = {"train": (torch.zeros(24),)}
    with pytest.raises(ValueError, match=r"matrices \(N, C\), got \(24,\).*Fix: one_hot"):
        VAE(3).build(data)


def test_a_mass_under_a_dequantizer_is_refused():
    recipe = VAE(3, likelihood=families.Bernoulli(), dequantizer=encoders.Uniform())
    data = synthetic("binary")
    vae = recipe.build(data)
    with pytest.raises(ValueError, match="a mass function, which needs no noise"):
        vae.model(data.train)
    assert isinstance(vae.generator(data.train), torch.Tensor)
    assert isinstance(vae.guide.encoder(data.train).base_dist, dist.Normal)


@pytest.mark.parametrize("kind", FITTING)
def test_the_likelihood_that_messages_advise_is_the_one_that_is_chosen(kind):
    data = synthetic(kind.value)
    assert data.kind is kind
    assert type(likelihoods.choose(data)).__name__ == FITTING[kind]
