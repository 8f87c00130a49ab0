"""The adversarial trainer: what a step moves and leaves alone, counts, resuming, and any program as generator."""

from __future__ import annotations

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from cases import BareModel
from pyro.infer import SVI, Trace_ELBO
from torch import nn
from torch.nn.functional import one_hot, softplus
from toys import same_toy_vae

import pyro_dgm as dgm
from pyro_dgm.gan import Move
from pyro_dgm.inference.process.states import fork_rng

over = pytest.mark.parametrize


def data(num=10):
    with fork_rng(seed=11):
        return torch.randn(num, 3)


def build(seed=1, critic=None, **options):
    """A trainer whose weights are a function of the seed."""
    generator = same_toy_vae(seed).generator
    with fork_rng(seed=seed):
        critic = critic or dgm.mlp(3, 8, 1)
    return dgm.GANTrainer(generator, critic, **options)


def fit(trainer, train=None, val=None, epochs=1, **options):
    train = data() if train is None else train
    return trainer.fit(train, val, epochs=epochs, **{"batch_size": 4, "progress": False, **options})


def weights(module):
    return [p.detach().clone() for p in module.parameters()]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


# What a step touches -------------------------------------------------------------------------------------------------

GAMES = [
    dgm.gan.Minimax(),
    dgm.NonSaturating(),
    dgm.gan.LeastSquares(),
    dgm.gan.Hinge(),
    dgm.gan.Wasserstein(),
    dgm.PairedRelativistic(),
    dgm.gan.FDivergence(dgm.gan.KL()),
]
each_game = over("game", GAMES, ids=lambda game: repr(game))


@each_game
def test_a_critic_step_moves_the_critic_and_leaves_no_gradient_anywhere(game):
    trainer = build(game=game)
    generator, critic = weights(trainer.generator), weights(trainer.critic)
    trainer.critic_step(data())
    assert same(generator, weights(trainer.generator))
    assert not same(critic, weights(trainer.critic))
    assert all(p.grad is None for p in trainer.module.parameters())


@each_game
def test_a_generator_step_moves_the_generator_and_leaves_no_gradient_anywhere(game):
    trainer = build(game=game)
    generator, critic = weights(trainer.generator), weights(trainer.critic)
    trainer.generator_step(data())
    assert not same(generator, weights(trainer.generator))
    assert same(critic, weights(trainer.critic))
    assert all(p.grad is None for p in trainer.module.parameters())


def test_backward_gives_gradients_to_one_side_alone():
    """Before the move, where a leak would show."""
    trainer = build()
    trainer.fakes.inspect(data())
    trainer._moves.backend(Move.CRITIC, eager=True).backward(data())
    assert all(p.grad is None for p in trainer.generator.parameters())
    assert all(p.grad is not None for p in trainer.critic.parameters())
    trainer._critic.forget()
    trainer._moves.backend(Move.GENERATOR, eager=True).backward(data())
    assert all(p.grad is None for p in trainer.critic.parameters())
    assert any(p.grad is not None for p in trainer.generator.parameters())


def pyro_svi(vae):
    svi = SVI(vae.model, vae.guide, pyro.optim.SGD({"lr": 0.01}), Trace_ELBO())
    return lambda x: svi.step(x)


def our_svi(vae):
    trainer = dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide), partial(torch.optim.SGD, lr=0.01))
    return lambda x: trainer.step(x)


@over("make", [pyro_svi, our_svi])
@over("play", [dgm.gan.Alternating(), dgm.gan.Simultaneous()], ids=["alternating", "simultaneous"])
def test_a_step_of_svi_after_one_of_the_game_equals_the_step_alone(make, play):
    """From the same weights: nothing of the critic is left in the decoder that both train."""
    first, second = same_toy_vae(), same_toy_vae()
    dgm.GANTrainer(first.generator, dgm.mlp(3, 8, 1), play=play).step(data())
    second.load_state_dict(first.state_dict())
    for vae in (first, second):
        with fork_rng(seed=5):
            make(vae)(data())
    assert same(weights(first), weights(second))
    assert not same(weights(first), weights(same_toy_vae()))


def test_each_step_is_that_of_autograd_by_hand():
    """The relativistic game, whose generator reads real data, with a penalty and plain gradient descent."""
    play = dgm.gan.Alternating(*(dgm.gan.Player(optimizer=partial(torch.optim.SGD, lr=0.1)),) * 2)
    trainer = build(game=dgm.PairedRelativistic(), penalties=(dgm.R1(0.5),), play=play)
    other, x = build(), data()
    generator, critic = list(other.generator.parameters()), list(other.critic.parameters())
    with fork_rng(seed=3):
        trainer.step(x)
    with fork_rng(seed=3):
        fake, leaf = other.fakes(x), x.clone().requires_grad_()
        real = other.critic(leaf)
        (slope,) = torch.autograd.grad(real.sum(), leaf, create_graph=True)
        loss = (
            softplus(other.critic(fake.detach()) - real).mean()
            + 0.25 * slope.square().sum(1).mean()
        )
        move(critic, loss)
        move(generator, softplus(other.critic(x) - other.critic(other.fakes(x))).mean())
    torch.testing.assert_close(weights(trainer.module), weights(other.module))


def move(parameters, loss):
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                parameter -= 0.1 * gradient


def test_a_penalty_at_the_data_costs_no_further_pass_of_the_critic():
    calls = []
    net = dgm.mlp(3, 8, 1)
    trainer = build(
        critic=Called(net, lambda x: calls.append(x) or net(x)),
        penalties=(dgm.R1(1.0), dgm.R2(1.0)),
    )
    trainer.critic_step(data())
    assert len(calls) == 2


# Counts and averages -------------------------------------------------------------------------------------------------


def test_steps_of_both_sides_are_counted_over_epochs():
    trainer = build(play=dgm.gan.Alternating(n_critic=2))
    fit(trainer, epochs=3)
    assert (trainer.num_steps, trainer.num_critic_steps, trainer.num_generator_steps) == (9, 9, 4)


def test_the_average_is_of_the_generator_and_takes_in_its_own_steps():
    trainer = build(play=dgm.gan.Alternating(n_critic=2), ema=0.5)
    expected = weights(trainer.generator)
    fit(trainer, dgm.Batches(data(4), 4, shuffle=False), epochs=4)
    other = build(play=dgm.gan.Alternating(n_critic=2))
    for t in range(1, 3):
        fit(other, dgm.Batches(data(4), 4, shuffle=False), epochs=2)
        d = min(0.5, (1 + t) / (10 + t))
        expected = [
            d * e + (1 - d) * w for e, w in zip(expected, weights(other.generator), strict=True)
        ]
    torch.testing.assert_close(weights(trainer.generator), expected)
    assert same(weights(trainer.critic), weights(other.critic))


def test_the_history_has_both_losses_and_the_penalties():
    trainer = build(penalties=(dgm.R1(1.0), dgm.R2(1.0), dgm.gan.GradientPenalty()))
    history = fit(trainer, val=data(7), epochs=2)
    terms = ["critic", "generator", "r1", "r2", "gp"]
    assert history.names == [
        "epoch",
        *(f"train_{n}" for n in terms),
        *(f"val_{n}" for n in terms),
        "seconds",
    ]
    assert trainer.best == {}


def test_a_term_can_be_monitored():
    trainer = build()
    history = fit(trainer, val=data(7), epochs=4, monitor="val_generator")
    assert trainer.best["value"] == min(history.column("val_generator"))


def test_evaluation_moves_nothing():
    trainer = build()
    before, seed = weights(trainer.module), torch.get_rng_state()
    row = trainer.evaluate(data())
    assert list(row) == ["critic", "generator", "r1"]
    assert same(before, weights(trainer.module))
    assert torch.equal(seed, torch.get_rng_state())


# Resuming ------------------------------------------------------------------------------------------------------------

EVERYTHING = {
    "game": dgm.PairedRelativistic(),
    "penalties": (dgm.R1(0.1), dgm.gan.GradientPenalty(0.3)),
    "play": dgm.gan.Alternating(dgm.gan.Player(1e-2), dgm.gan.Player(2e-2, clip=0.5), n_critic=2),
    "ema": 0.9,
    "noise": True,
}
RUNS = {
    "plain": {},
    "everything": EVERYTHING,
    "simultaneous": {"play": dgm.gan.Simultaneous(), "ema": 0.9},
}


def states(trainer):
    rows = [{n: v for n, v in row.items() if n != "seconds"} for row in trainer.history]
    ema = None if trainer.ema is None else [t.clone() for t in trainer.ema.average]
    of_sides = trainer.state.state_dict()["trainer"]
    del of_sides["rules"]
    return dict(trainer.module.state_dict()), trainer.state.last, of_sides, rows, ema


@over("options", RUNS.values(), ids=RUNS)
def test_a_run_that_is_resumed_equals_one_that_never_stopped(options, tmp_path):
    def make(seed):
        with fork_rng(seed=seed):
            critic = nn.Sequential(
                nn.Linear(3, 8), nn.Dropout(0.3), nn.SiLU(), dgm.nn.spectral_norm(nn.Linear(8, 1))
            )
        return build(seed, critic, **options)

    whole, first, second, third, stopped = make(1), make(1), make(99), make(99), make(1)
    file, step = tmp_path / "gan.pt", stopped.step
    fit(whole, val=data(7), epochs=5)
    fit(first, val=data(7), epochs=3, checkpoint=file)
    second.resume(file)
    fit(second, val=data(7), epochs=2)
    torch.testing.assert_close(states(whole), states(second), rtol=0, atol=0)
    assert second.num_critic_steps == 15

    def stopping(*batch):
        if stopped.num_steps == 8:  # of three an epoch
            raise KeyboardInterrupt
        return step(*batch)

    stopped.step = stopping
    with pytest.raises(KeyboardInterrupt):
        fit(stopped, val=data(7), epochs=5, checkpoint=file, checkpoint_every=2)
    third.resume(file)
    assert third.num_steps == 8
    fit(third, val=data(7), epochs=5 - third.num_epochs)
    torch.testing.assert_close(states(whole), states(third), rtol=0, atol=0)


# Any program ---------------------------------------------------------------------------------------------------------


def improves(trainer, train, epochs=1):
    """Train on data whose mean is 3, and see the generator go there."""
    start = trainer.fakes(*train).mean().item()
    fit(trainer, train, epochs=epochs, batch_size=64)
    return trainer.fakes(*train).mean().item() - start


def far(num=256, dim=4):
    return 3 + 0.1 * torch.randn(num, dim)


PLAY = dgm.gan.Alternating(dgm.gan.Player(5e-3), dgm.gan.Player(5e-3))


def test_a_deterministic_decoder_trains():
    class Deterministic(dgm.Program):
        def __init__(self):
            super().__init__()
            self.net = dgm.mlp(2, 8, 4)

        def forward(self, x=None):
            with dgm.data_plate(x):
                z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
                return pyro.sample("x", dist.Delta(self.net(z)).to_event(1), obs=x)

    assert (
        improves(dgm.GANTrainer(Deterministic(), dgm.mlp(4, 16, 1), play=PLAY), (far(),), 20) > 0.2
    )


def test_a_flow_prior_trains():
    prior = dgm.Flow(dgm.StandardNormal(2), dgm.realnvp(2, 2, hidden=(8,)))
    model = dgm.LatentVariableModel(prior, dgm.Normal(dgm.mlp(2, 8, 4)))
    before = weights(prior)
    assert improves(dgm.GANTrainer(model, dgm.mlp(4, 16, 1), play=PLAY), (far(),), 20) > 0.2
    assert not same(before, weights(prior))


def test_a_strangers_bare_program_trains():
    assert (
        improves(
            dgm.GANTrainer(BareModel(), dgm.mlp(4, 16, 1), play=PLAY, noise=True), (far(),), 20
        )
        > 0.2
    )


def test_a_density_trains_by_its_draws():
    model = dgm.DensityModel(dgm.Flow(dgm.StandardNormal(4), dgm.realnvp(4, 2, hidden=(8,))))
    assert (
        improves(dgm.GANTrainer(model, dgm.mlp(4, 16, 1), play=PLAY, noise=True), (far(),), 20)
        > 0.2
    )


@pytest.mark.slow
def test_a_conditional_model_trains_and_shows_the_critic_its_labels():
    model = dgm.LatentVariableModel(
        dgm.StandardNormal(2), dgm.Normal(dgm.Concat(dgm.mlp(2 + 2, 16, 1)))
    )
    k = torch.randint(2, (512,))
    labels = one_hot(k, 2).to(torch.get_default_dtype())
    x = (2.0 * k - 1)[:, None] + 0.1 * torch.randn(512, 1)
    trainer = dgm.GANTrainer(model, dgm.Concat(dgm.mlp(1 + 2, 16, 1)), play=PLAY)
    trainer.fit((x, labels), epochs=60, batch_size=64, progress=False)
    with torch.no_grad():
        fake = trainer.fakes(x, labels)
    assert fake[k == 1].mean() > 0.4
    assert fake[k == 0].mean() < -0.4


def test_integer_data_get_their_noise_from_the_batches():
    seen = []

    def critic(x):
        seen.append(x.detach())
        return net(x)

    net = dgm.mlp(3, 8, 1)
    vae = dgm.VAE(
        dgm.StandardNormal(2),
        dgm.Normal(dgm.mlp(2, 6, 3)),
        dgm.Conditional(dist.Normal, dgm.mlp(3, 4)),
        dgm.UnitUniform(),
    )
    levels = torch.full((8, 3), 4)
    noisy = dgm.Batches(
        levels, 8, transform=lambda x: dgm.distributions.within_cell(x, torch.rand(x.shape))
    )
    trainer = dgm.GANTrainer(vae.generator, Called(net, critic), penalties=())
    fit(trainer, noisy, epochs=2)
    real = [x for x in seen if (x.floor() == 4).all()]
    assert len(real) >= 3
    assert not torch.equal(real[-1], real[-2])


class Called(nn.Module):
    """A module whose forward is a function that sees what comes in."""

    def __init__(self, net, function):
        super().__init__()
        self.net, self.function = net, function

    def forward(self, x):
        return self.function(x)


# Refused -------------------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_raises_with_its_step():
    trainer = build(play=dgm.gan.Alternating(critic=dgm.gan.Player(lr=1e300)))
    with pytest.raises(
        ValueError, match=r"expected finite losses, got non-finite generator at or .* before step 1"
    ):
        fit(trainer)


class Broken(nn.Module):
    """A critic that fails in some of its training calls.

    The first two ask whether it mixes data; then two are a critic's step, and one is a generator's.
    """

    def __init__(self, *failing):
        super().__init__()
        self.net, self.failing, self.calls = dgm.mlp(3, 8, 1), failing, 0

    def forward(self, x):
        self.calls += self.training
        return self.net(x) * (torch.nan if self.calls in self.failing else 1.0)


@over(("failing", "counts"), [(7, (2, 2)), (8, (3, 2))], ids=["critic", "generator"])
def test_steps_that_are_not_finite_can_be_passed_over(failing, counts):
    trainer = build(critic=Broken(failing))
    fit(trainer, max_skips=1)
    assert (trainer.num_steps, trainer.num_skipped) == (3, 1)
    assert (trainer.num_critic_steps, trainer.num_generator_steps) == counts
    assert all(p.isfinite().all() and p.grad is None for p in trainer.module.parameters())


def test_more_steps_that_are_not_finite_than_allowed_raise():
    trainer = build(critic=Broken(5, 7), play=dgm.gan.Simultaneous())
    with pytest.raises(
        ValueError, match=r"got non-finite critic, r1, gradient at .* before step 2"
    ):
        fit(trainer, max_skips=1)
    assert all(p.isfinite().all() for p in trainer.module.parameters())


def test_a_critic_that_shares_parameters_with_the_generator_is_refused():
    generator = same_toy_vae().generator
    with pytest.raises(
        ValueError, match=r"a critic with parameters of its own, got 2 that .*Fix: copy.deepcopy"
    ):
        dgm.GANTrainer(generator, nn.Sequential(generator.likelihood.net[0], nn.Linear(6, 1)))


def test_functions_are_refused():
    with pytest.raises(
        TypeError, match=r"expected the critic as an nn.Module, got function.*Fix: subclass Program"
    ):
        dgm.GANTrainer(same_toy_vae().generator, lambda x: x)


def test_two_penalties_of_one_name_are_refused():
    with pytest.raises(ValueError, match=r"penalties of different names, got \['r1', 'r1'\]"):
        build(penalties=(dgm.R1(1.0), dgm.R1(2.0)))


def test_patience_names_a_metric_that_exists():
    with pytest.raises(ValueError, match=r"patience needs a metric.*monitor='train_critic'"):
        fit(build(), val=data(), patience=2)


BROKEN_RULES = [
    ({"game": dgm.gan.Hinge}, r"expected a game, got the class Hinge. Fix: game=Hinge\(\)"),
    ({"game": "hinge"}, r"expected a game, got 'hinge'. Fix: game=NonSaturating\(\)"),
    ({"game": dgm.gan.KL()}, r"expected a game, got .*KL.*Fix: game=FDivergence\(.*KL"),
    ({"game": dgm.R1(1.0)}, r"expected a game, got R1\(gamma=1.0\). Fix: game="),
    (
        {"penalties": dgm.R1(1.0)},
        r"expected a sequence of penalties, got R1.*Fix: penalties=\(R1\(gamma=1.0\),\)",
    ),
    ({"penalties": 5}, r"expected penalties, got 5. Fix: penalties=\(R1"),
    ({"penalties": (dgm.gan.Hinge(),)}, r"expected penalties, got Hinge\(\). Fix: penalties=\(R1"),
    ({"play": 5}, r"expected a play, got 5. Fix: play=Alternating\(\)"),
    (
        {"play": dgm.gan.Alternating},
        r"expected a play, got the class Alternating. Fix: play=Alternating",
    ),
]


@over(("options", "message"), BROKEN_RULES)
def test_what_is_no_game_no_penalty_or_no_play_is_refused(options, message):
    with pytest.raises(TypeError, match=f"GANTrainer: {message}"):
        build(**options)


@each_game
def test_a_critic_that_ends_in_a_sigmoid_is_warned_of_where_the_game_takes_logits(game):
    critic = nn.Sequential(dgm.mlp(3, 8, 1), nn.Sequential(nn.Sigmoid(), nn.Flatten()))
    if isinstance(game, dgm.gan.LeastSquares):
        build(critic=critic, game=game)  # whose output is D itself; warnings are errors here
        return
    with pytest.warns(UserWarning, match=r"ends in nn.Sigmoid.*Fix: leave the last layer out"):
        build(critic=critic, game=game)


@over(
    ("options", "name"),
    [
        ({"game": dgm.gan.Hinge()}, "Hinge"),
        ({"penalties": (dgm.R1(2.0),)}, "'gamma': 2.0"),
        ({"penalties": ()}, "'penalties': ''"),
        ({"play": dgm.gan.Alternating(n_critic=2)}, "n_critic=2"),
        ({"noise": True}, "'noise': 'True'"),
    ],
)
def test_a_checkpoint_of_another_game_is_refused(options, name, tmp_path):
    fit(build(), checkpoint=tmp_path / "gan.pt")
    with pytest.raises(
        ValueError,
        match=rf"resume: expected a checkpoint of the game .*{name}.*Fix: the same game=",
    ):
        build(**options).resume(tmp_path / "gan.pt")


def test_a_class_in_place_of_a_critic_is_refused():
    with pytest.raises(TypeError, match=r"got the class Linear. Fix: an instance, such as Linear"):
        dgm.GANTrainer(same_toy_vae().generator, nn.Linear)


def test_a_vae_in_place_of_its_generator_is_refused():
    with pytest.raises(
        TypeError, match=r"one program, got VAE.*Fix: vae.generator in place of vae"
    ):
        dgm.GANTrainer(same_toy_vae(), dgm.mlp(3, 8, 1))


def test_a_divergence_in_place_of_a_game_gets_the_game_of_it():
    with pytest.raises(TypeError, match=r"the class KL. Fix: game=FDivergence\(KL\(\)\)"):
        build(game=dgm.gan.KL)


def test_a_trainer_prints_what_is_played():
    assert repr(build(ema=0.9)) == (
        "GANTrainer(LatentVariableModel, MLP, game=NonSaturating(), penalties=(R1(gamma=1.0),), "
        "play=Alternating(n_critic=1), ema=0.9, noise=False, bound=None, weight=1.0, "
        "compile=False)"
    )


@over("outside", [torch.no_grad, torch.inference_mode])
def test_fit_trains_where_gradients_are_switched_off(outside):
    whole, other = build(**EVERYTHING), build(**EVERYTHING)
    fit(whole, val=data(7), epochs=2)
    with outside():
        fit(other, val=data(7), epochs=2)
    torch.testing.assert_close(states(whole), states(other), rtol=0, atol=0)
