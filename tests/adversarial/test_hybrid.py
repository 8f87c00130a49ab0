"""A bound and a game on one decoder: one optimizer for all that they share, and the step of SVI where λ is 0."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from toys import same_toy_vae

import pyro_dgm as dgm
from pyro_dgm.inference.process.states import fork_rng

over = pytest.mark.parametrize
GD = partial(torch.optim.SGD, lr=0.01)


def data(num=10):
    with fork_rng(seed=11):
        return torch.randn(num, 3)


def build(vae=None, objective=dgm.ELBO, **options):
    """A trainer whose weights are always the same."""
    vae = vae or same_toy_vae()
    with fork_rng(seed=1):
        critic = dgm.mlp(3, 8, 1)
    return dgm.HybridTrainer(objective(vae.model, vae.guide), critic, **options)


def fit(trainer, epochs=1, val=None, **options):
    return trainer.fit(data(), val, epochs=epochs, batch_size=4, progress=False, **options)


def weights(module):
    return [p.detach().clone() for p in module.parameters()]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


PLAYS = {
    "alternating": dgm.gan.Alternating(dgm.gan.Player(optimizer=GD), dgm.gan.Player(optimizer=GD)),
    "simultaneous": dgm.gan.Simultaneous(
        dgm.gan.Player(optimizer=GD), dgm.gan.Player(optimizer=GD)
    ),
}
each_play = over("play", PLAYS.values(), ids=PLAYS)


# One optimizer -------------------------------------------------------------------------------------------------------


@each_play
def test_no_parameter_has_two_optimizers_and_each_has_one(play):
    vae = same_toy_vae()
    trainer = build(vae, play=play)
    held = [
        [id(p) for group in side.optimizer.param_groups for p in group["params"]]
        for side in (trainer._generator, trainer._critic)
    ]
    assert sorted(held[0]) == sorted(id(p) for p in vae.parameters())
    assert sorted(held[1]) == sorted(id(p) for p in trainer.critic.parameters())
    assert not set(held[0]) & set(held[1])


@over("objective", [dgm.ELBO, partial(dgm.IWELBO, num_particles=3)], ids=["elbo", "iwelbo"])
def test_without_weight_a_step_of_model_and_guide_is_that_of_svi(objective):
    """Under Adam and one seed, bit for bit, three steps in a row."""
    adam = partial(torch.optim.Adam, lr=0.01)
    plain, vae = same_toy_vae(), same_toy_vae()
    hybrid = build(
        vae, objective, weight=0.0, play=dgm.gan.Alternating(dgm.gan.Player(optimizer=adam))
    )
    svi = dgm.SVITrainer(objective(plain.model, plain.guide), adam)
    for seed in range(3):
        for step in (hybrid.generator_step, svi.step):
            with fork_rng(seed=seed):
                step(data())
    assert same(weights(plain), weights(vae))
    assert not same(weights(vae), weights(same_toy_vae()))


def test_the_gradient_is_the_sum_of_both():
    """−ELBO + λ times the game's loss, by plain autograd under one seed and plain gradient descent."""
    weight, vae, other = 0.7, same_toy_vae(), same_toy_vae()
    trainer = build(vae, weight=weight, play=PLAYS["alternating"])
    gan = dgm.GANTrainer(other.generator, trainer.critic)
    with fork_rng(seed=3):
        trainer.generator_step(data())
    with fork_rng(seed=3):
        loss = dgm.ELBO(other.model, other.guide)(data())
        loss = loss + weight * nn.functional.softplus(-gan.critic(gan.fakes(data()))).mean()
    loss.backward()
    expected = [p.detach() - 0.01 * p.grad for p in other.parameters()]
    torch.testing.assert_close(weights(vae), expected)


def test_both_at_once_is_from_the_same_weights():
    vae, other = same_toy_vae(), same_toy_vae()
    trainer = build(vae, weight=0.7, penalties=(), play=PLAYS["simultaneous"])
    critic = weights(trainer.critic)
    with fork_rng(seed=3):
        trainer.step(data())
    assert not same(critic, weights(trainer.critic))
    again = build(other, weight=0.7, penalties=(), play=PLAYS["alternating"])
    with fork_rng(seed=3):
        again.generator_step(data())
    torch.testing.assert_close(weights(vae), weights(other))


# What a step touches -------------------------------------------------------------------------------------------------


def test_a_critic_step_leaves_no_gradient_in_the_pair():
    vae = same_toy_vae()
    trainer = build(vae)
    before, critic = weights(vae), weights(trainer.critic)
    trainer.critic_step(data())
    assert same(before, weights(vae))
    assert not same(critic, weights(trainer.critic))
    assert all(p.grad is None for p in trainer.module.parameters())


def test_a_step_of_the_pair_leaves_no_gradient_in_the_critic():
    vae = same_toy_vae()
    trainer = build(vae)
    before, critic = weights(vae), weights(trainer.critic)
    trainer.generator_step(data())
    assert not any(torch.equal(a, b) for a, b in zip(before, weights(vae), strict=True))
    assert same(critic, weights(trainer.critic))
    assert all(p.grad is None for p in trainer.module.parameters())


@each_play
def test_a_step_of_svi_after_one_of_the_hybrid_equals_the_step_alone(play):
    first, second = same_toy_vae(), same_toy_vae()
    build(first, play=play).step(data())
    second.load_state_dict(first.state_dict())
    for vae in (first, second):
        with fork_rng(seed=5):
            dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide), GD).step(data())
    assert same(weights(first), weights(second))


# The loop ------------------------------------------------------------------------------------------------------------


def test_the_history_has_the_terms_of_both_and_the_best_bound_is_kept():
    trainer = build(weight=0.3, play=dgm.gan.Alternating(n_critic=2))
    history = fit(trainer, epochs=4, val=data())
    terms = {"loss", "nelbo", "rec[x]", "kl[z]", "critic", "generator", "r1"}
    assert {name.removeprefix("val_") for name in history.names if name.startswith("val_")} == terms
    for row in history.rows:
        assert row["val_loss"] == pytest.approx(row["val_nelbo"] + 0.3 * row["val_generator"])
    assert trainer.best["metric"] == "val_nelbo"
    assert (trainer.num_critic_steps, trainer.num_generator_steps) == (12, 6)


def test_schedules_move_with_the_pair():
    vae = same_toy_vae()
    beta = dgm.LinearWarmup(100)
    objective = dgm.ELBO(vae.model, vae.guide, beta={"z": beta})
    trainer = dgm.HybridTrainer(objective, dgm.mlp(3, 8, 1), play=dgm.gan.Alternating(n_critic=2))
    fit(trainer, epochs=4)
    assert trainer.num_generator_steps == 6
    assert beta().item() == pytest.approx(0.06)


@each_play
def test_a_run_that_is_resumed_equals_one_that_never_stopped(play, tmp_path):
    whole, first, second = build(play=play), build(play=play), build(same_toy_vae(9), play=play)
    fit(whole, epochs=4)
    fit(first, epochs=2, checkpoint=tmp_path / "hybrid.pt")
    second.resume(tmp_path / "hybrid.pt")
    fit(second, epochs=2)
    assert same(weights(whole.module), weights(second.module))


def test_a_density_plays_by_its_draws():
    """The exact likelihood of a flow, and a critic of its samples: Flow-GAN."""
    model = dgm.DensityModel(dgm.Flow(dgm.StandardNormal(3), dgm.realnvp(3, 2, hidden=(8,))))
    trainer = dgm.HybridTrainer(dgm.ELBO(model, dgm.EmptyGuide()), dgm.mlp(3, 8, 1), noise=True)
    before = weights(model)
    fit(trainer, epochs=2)
    assert not same(before, weights(model))


# Refused -------------------------------------------------------------------------------------------------------------


def test_a_model_in_place_of_a_bound_is_refused():
    with pytest.raises(
        TypeError,
        match=r"a bound to train .* got LatentVariableModel. Fix: HybridTrainer\(ELBO\(model",
    ):
        dgm.HybridTrainer(same_toy_vae().generator, dgm.mlp(3, 1))


def test_a_checkpoint_of_another_weight_is_refused(tmp_path):
    fit(build(), checkpoint=tmp_path / "hybrid.pt")
    with pytest.raises(
        ValueError, match=r"expected a checkpoint of the game .*'weight': '2.0'.*'weight': '1.0'"
    ):
        build(weight=2.0).resume(tmp_path / "hybrid.pt")


def test_a_negative_weight_is_refused():
    with pytest.raises(ValueError, match="expected weight >= 0, got -1"):
        build(weight=-1.0)


def test_a_critic_that_shares_parameters_with_the_pair_is_refused():
    vae = same_toy_vae()
    with pytest.raises(ValueError, match="expected a critic with parameters of its own"):
        dgm.HybridTrainer(dgm.ELBO(vae.model, vae.guide), vae.guide.encoder.net)


def test_a_deterministic_decoder_has_no_bound():
    model = dgm.LatentVariableModel(dgm.StandardNormal(2), dgm.Deterministic(dgm.mlp(2, 3)))
    with pytest.raises(ValueError, match="a Delta observation has no density"):
        fit(dgm.HybridTrainer(dgm.ELBO(model, same_toy_vae().guide), dgm.mlp(3, 1)))


@over(
    ("options", "error", "message"),
    [
        ({"bound": "elbo"}, TypeError, r"an objective over model and guide, got str. Fix: bound="),
        ({"bound": dgm.ELBO}, TypeError, r"got the class ELBO. Fix: bound=ELBO\(model, guide\)"),
        ({"weight": 0.5}, ValueError, r"a bound with weight=0.5, got none.*Fix: bound=ELBO\("),
    ],
)
def test_a_bound_that_is_none_and_a_weight_without_one_are_refused(options, error, message):
    with pytest.raises(error, match=f"GANTrainer: expected {message}|GANTrainer: .*{message}"):
        dgm.GANTrainer(same_toy_vae().generator, dgm.mlp(3, 8, 1), **options)


def test_a_bound_of_another_generator_is_refused():
    vae = same_toy_vae()
    with pytest.raises(
        ValueError,
        match=r"shares no parameter with it. Fix: GANTrainer\(bound.model, critic, bound",
    ):
        dgm.GANTrainer(
            same_toy_vae().generator, dgm.mlp(3, 8, 1), bound=dgm.ELBO(vae.model, vae.guide)
        )


# Composition ---------------------------------------------------------------------------------------------------------


def with_bound(vae, generator, **options):
    """The same trainer by its parts."""
    with fork_rng(seed=1):
        critic = dgm.mlp(3, 8, 1)
    return dgm.GANTrainer(generator, critic, bound=dgm.ELBO(vae.model, vae.guide), **options)


def test_the_hybrid_is_a_game_with_a_bound():
    one, other = same_toy_vae(), same_toy_vae()
    hybrid, parts = build(one, weight=0.3), with_bound(other, other.model, weight=0.3)
    assert type(hybrid) is dgm.GANTrainer
    for trainer in (hybrid, parts):
        fit(trainer, epochs=2, val=data())
    assert same(weights(hybrid.module), weights(parts.module))


def test_the_generator_may_be_another_program_of_the_same_decoder():
    vae = same_toy_vae()
    generator = dgm.LatentVariableModel(dgm.StandardNormal(2), vae.model.likelihood)
    trainer = with_bound(vae, generator, weight=0.3)
    before = weights(vae.guide)
    history = fit(trainer, epochs=2, val=data())
    assert trainer.best["metric"] == "val_nelbo"
    assert not any(torch.equal(a, b) for a, b in zip(before, weights(vae.guide), strict=True))
    for row in history.rows:
        assert row["val_loss"] == pytest.approx(row["val_nelbo"] + 0.3 * row["val_generator"])


def test_an_average_is_of_model_and_guide():
    vae = same_toy_vae()
    trainer = with_bound(vae, vae.model, ema=0.5)
    assert {id(p) for p in trainer.ema.parameters} == {id(p) for p in vae.parameters()}
    fit(trainer)
    torch.testing.assert_close([p.detach() for p in trainer.ema.parameters], trainer.ema.average)


def test_a_schedule_moves_with_each_step_of_the_generator_alone():
    """As in `SVITrainer.step`, without a loop around it."""
    vae, beta = same_toy_vae(), dgm.LinearWarmup(10)
    objective = dgm.ELBO(vae.model, vae.guide, beta={"z": beta})
    trainer = dgm.HybridTrainer(objective, dgm.mlp(3, 8, 1))
    trainer.critic_step(data())
    assert beta().item() == 0.0
    trainer.generator_step(data())
    assert beta().item() == pytest.approx(0.1)


def test_it_prints_its_bound():
    vae = same_toy_vae()
    assert repr(with_bound(vae, vae.model, weight=0.3)).endswith(
        "bound=ELBO, weight=0.3, compile=False)"
    )
