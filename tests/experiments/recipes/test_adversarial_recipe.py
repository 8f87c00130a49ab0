"""Games as a part of an experiment: on generators of recipes, on integers with noise, beside a bound."""

import warnings

import pytest
import torch
from experiments.recipes.synthetic import synthetic

from pyro_dgm import ELBO, R1, R2
from pyro_dgm.datasets import Ring
from pyro_dgm.experiments.recipes.adversarial import Adversarial
from pyro_dgm.experiments.recipes.encoders import Uniform
from pyro_dgm.experiments.recipes.networks import Convolutional, Dense
from pyro_dgm.experiments.recipes.vae import VAE, Generator
from pyro_dgm.gan import Alternating, GradientPenalty, Player, Wasserstein

SMALL = Dense([8])


def fit(adversarial, recipe, data, objective=None):
    programs = recipe.build(data)
    bound = objective and objective(programs.model, programs.guide)
    trainer = adversarial.build(programs, data, bound)
    before = [p.clone() for p in trainer.module.parameters()]
    batches = adversarial.batches(data, 12)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        history = trainer.fit(batches, epochs=1, progress=False)
    moved = [
        not torch.equal(p, q) for p, q in zip(before, trainer.module.parameters(), strict=True)
    ]
    assert all(moved)
    return trainer, history


@pytest.mark.parametrize("num_context", [0, 3], ids=["plain", "conditional"])
@pytest.mark.parametrize("kind", ["binary", "levels", "bytes", "counts", "real"])
def test_a_generator_plays_on_every_kind_of_data_without_a_warning(kind, num_context):
    data = synthetic(kind, (4, 4), num_context)
    fit(Adversarial(SMALL), Generator(2, SMALL), data)


def test_a_generator_of_images_plays_against_a_convolutional_critic():
    network = Convolutional([4, 6], features=8)
    fit(Adversarial(network), Generator(2, network), synthetic("bytes", (3, 4, 4)))


def test_the_generator_of_a_dequantized_vae_is_its_density():
    recipe = VAE(2, SMALL, dequantizer=Uniform())
    programs = recipe.build(synthetic("levels"))
    trainer = Adversarial(SMALL).build(programs, synthetic("levels"))
    assert trainer.generator is programs.generator


def test_settings_reach_the_trainer():
    play = Alternating(Player(lr=3e-4), Player(lr=4e-4), n_critic=2)
    penalties = [R1(0.5), R2(0.5)]
    adversarial = Adversarial(SMALL, Wasserstein(), penalties, play, ema=0.9, noise=True)
    trainer = adversarial.build(Generator(2, SMALL).build(Ring(num_train=50)), Ring(num_train=50))
    assert trainer.penalties == (R1(0.5), R2(0.5))
    assert (trainer.game, trainer.play, trainer.ema.decay) == (Wasserstein(), play, 0.9)
    assert trainer.fakes.noise


def test_one_penalty_needs_no_list():
    data = Ring(num_train=50)
    trainer = Adversarial(SMALL, penalties=GradientPenalty(2.0)).build(
        Generator(2, SMALL).build(data), data
    )
    assert trainer.penalties == (GradientPenalty(2.0),)


def test_beside_a_bound_the_data_stay_as_they_are_and_both_losses_are_told():
    data = synthetic("real", (6,))
    adversarial = Adversarial(SMALL, weight=0.5, bound=True)
    trainer, history = fit(adversarial, VAE(2, SMALL), data, ELBO)
    assert trainer.weight == 0.5
    assert {"train_critic", "train_generator", "train_nelbo", "train_loss"} <= set(history.rows[0])


@pytest.mark.parametrize("dynamic", [False, True])
def test_integers_get_noise_within_their_cell_unless_a_bound_scores_them(dynamic):
    data = synthetic("bytes")
    if dynamic:
        data.levels, data.dynamic = 2, True
    (noisy,) = next(iter(Adversarial().batches(data, 24).epoch()))
    assert not torch.equal(noisy, noisy.floor())
    assert noisy.floor().max() <= (1 if dynamic else 255)
    (plain,) = next(iter(Adversarial(bound=True).batches(data, 24).epoch()))
    assert torch.equal(plain.double(), plain.double().floor())


def test_a_bound_needs_an_objective():
    data = synthetic("real")
    programs = VAE(2, SMALL).build(data)
    with pytest.raises(ValueError, match="objective next to bound=True.*Fix: --objective=ELBO"):
        Adversarial(SMALL, bound=True).build(programs, data)


def test_a_ring_of_data_is_drawn_from_its_modes():
    data = Ring(num_train=4000, num_test=100)
    assert (data.train.shape, data.val.shape, data.test.shape) == ((4000, 2), (100, 2), (100, 2))
    distance = torch.cdist(data.train, data.modes.centres).min(1).values
    assert distance.max() < 6 * data.modes.sd
    assert torch.equal(data.train, Ring(num_train=4000, num_test=100).train)
