"""Update rules, exactly: on the Dirac-GAN one step is a linear map whose spectral radius is known."""

from __future__ import annotations

from functools import partial

import pyro
import pytest
import torch
from toys import Dirac, Slope

import pyro_dgm as dgm

H = 0.1
over = pytest.mark.parametrize


def sgd(lr=H):
    return dgm.gan.Player(optimizer=partial(torch.optim.SGD, lr=lr))


def dirac(theta, psi, play, gamma=0.0, game=None):
    penalties = (dgm.R1(gamma),) if gamma else ()
    return dgm.GANTrainer(Dirac(theta), Slope(psi), game or dgm.NonSaturating(), penalties, play)


def moved(trainer, data=None):
    trainer.step(torch.zeros(4, 1) if data is None else data)
    return torch.stack([trainer.generator.theta.detach()[0], trainer.critic.psi.detach()])


def jacobian(play, gamma, game=None, size=1e-5):
    """Of one step at the equilibrium (0, 0), by central differences."""

    def after(theta, psi):
        return moved(dirac(theta.item(), psi.item(), play, gamma, game))

    columns = [(after(*(size * e)) - after(*(-size * e))) / (2 * size) for e in torch.eye(2)]
    return torch.stack(columns, 1)


def radius(matrix):
    return torch.linalg.eigvals(matrix).abs().max().item()


def simultaneous(gamma):
    """θ + h ψ / 2, ψ − h (θ / 2 + γ ψ)."""
    return torch.tensor([[1.0, H / 2], [-H / 2, 1 - H * gamma]])


def alternating(gamma, n=1):
    """The critic n times, then the generator at the new slope."""
    critic = torch.tensor([[1.0, 0.0], [-H / 2, 1 - H * gamma]])
    return torch.tensor([[1.0, H / 2], [0.0, 1.0]]) @ torch.linalg.matrix_power(critic, n)


@over("game", [dgm.NonSaturating(), dgm.gan.Minimax()], ids=["non_saturating", "minimax"])
@over(("gamma", "expected"), [(0.0, 1.00125), (0.5, 0.976), (1.0, 0.95)])
def test_simultaneous_steps_have_the_spectral_radius_of_theory(gamma, expected, game):
    """|1 + hλ| with λ = (−γ ± √(γ² − 1)) / 2: without a penalty the game spirals out."""
    # On the axes the step is linear for any size; only so a double eigenvalue (γ = 1) comes out to more than 1e-6.
    found = jacobian(dgm.gan.Simultaneous(sgd(), sgd()), gamma, game, size=1.0)
    torch.testing.assert_close(found, simultaneous(gamma), rtol=0, atol=1e-15)
    lam = (-gamma + (torch.tensor(gamma**2 - 1).to(torch.complex128)).sqrt()) / 2
    assert radius(found) == pytest.approx((1 + H * lam).abs().item(), abs=1e-6)
    assert radius(found) == pytest.approx(expected, abs=5e-5)


@over(("gamma", "expected"), [(0.0, 1.0), (0.5, 0.95**0.5), (1.0, 0.96)])
def test_alternating_steps_have_the_spectral_radius_of_theory(gamma, expected):
    """Without a penalty the game circles for ever, √(1 − hγ) where the eigenvalues are complex."""
    found = jacobian(dgm.gan.Alternating(sgd(), sgd()), gamma)
    torch.testing.assert_close(found, alternating(gamma), rtol=0, atol=1e-8)
    assert radius(found) == pytest.approx(expected, abs=1e-6)


@over(
    "play",
    [dgm.gan.Simultaneous(sgd(), sgd()), dgm.gan.Alternating(sgd(), sgd())],
    ids=["simultaneous", "alternating"],
)
def test_one_step_is_the_linear_map_in_a_game_of_linear_losses(play):
    """Wasserstein with R1: no equilibrium to be near to, the map is linear everywhere."""
    gamma, start = 0.5, torch.tensor([0.7, -1.3])
    both = torch.tensor([[1.0, H], [-H, 1 - H * gamma]])
    critic, generator = (
        torch.tensor([[1.0, 0.0], [-H, 1 - H * gamma]]),
        torch.tensor([[1.0, H], [0.0, 1.0]]),
    )
    step = both if isinstance(play, dgm.gan.Simultaneous) else generator @ critic
    trainer = dirac(*start.tolist(), play, gamma, dgm.gan.Wasserstein())
    for _ in range(3):
        start = step @ start
        torch.testing.assert_close(moved(trainer), start)


def test_n_critic_steps_of_the_critic_come_before_one_of_the_generator():
    trainer = dirac(
        0.3, 0.2, dgm.gan.Alternating(sgd(), sgd(), n_critic=3), 0.5, dgm.gan.Wasserstein()
    )
    counts, thetas = [], []
    for _ in range(7):
        thetas.append(moved(trainer)[0].item())
        counts.append((trainer.num_critic_steps, trainer.num_generator_steps))
    assert counts == [(1, 0), (2, 0), (3, 1), (4, 1), (5, 1), (6, 2), (7, 2)]
    assert thetas[0] == thetas[1] != thetas[2] == thetas[3]


def test_the_generator_moves_against_the_critic_that_has_moved_n_times():
    trainer = dirac(1e-4, 1e-4, dgm.gan.Alternating(sgd(), sgd(), n_critic=4), 0.5)
    for _ in range(4):
        found = moved(trainer)
    torch.testing.assert_close(
        found, alternating(0.5, n=4) @ torch.tensor([1e-4, 1e-4]), rtol=1e-6, atol=1e-12
    )


def test_learning_rates_are_separate_and_default_to_adam_with_its_betas():
    play = dgm.gan.Alternating(dgm.gan.Player(lr=1e-3), dgm.gan.Player(lr=5e-3))
    trainer = dirac(0.5, 0.5, play)
    first = moved(trainer)
    torch.testing.assert_close((first - 0.5).abs(), torch.tensor([1e-3, 5e-3]), rtol=1e-5, atol=0)
    (group,) = trainer._critic.optimizer.param_groups
    assert group["betas"] == (0.5, 0.99)


def test_gradients_are_clipped_side_by_side():
    play = dgm.gan.Simultaneous(
        sgd(1.0), dgm.gan.Player(optimizer=partial(torch.optim.SGD, lr=1.0), clip=0.01)
    )
    found = moved(dirac(100.0, 50.0, play, game=dgm.gan.Wasserstein()))
    torch.testing.assert_close(found, torch.tensor([150.0, 49.99]))


def test_no_critic_step_is_refused():
    with pytest.raises(ValueError, match=r"Alternating: expected n_critic >= 1, got 0"):
        dgm.gan.Alternating(n_critic=0)


def test_a_player_that_builds_no_torch_optimizer_raises():
    play = dgm.gan.Alternating(critic=dgm.gan.Player(optimizer=lambda p: pyro.optim.Adam({})))
    with pytest.raises(
        TypeError,
        match=r"a torch optimizer for the critic, got one that builds .*Fix: Player\(opti",
    ):
        dirac(0.0, 0.0, play)


@over(
    ("options", "message"),
    [
        ({"lr": -1.0}, "Player: expected lr > 0, got -1.0"),
        ({"lr": 0}, "Player: expected lr > 0, got 0. Fix: Player.lr=1e-3"),
        ({"lr": float("nan")}, "Player: expected lr > 0, got nan"),
        ({"clip": 0.0}, "Player: expected clip > 0, got 0.0. Fix: clip=None"),
    ],
)
def test_numbers_that_make_no_step_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        dgm.gan.Player(**options)


def test_an_optimizer_in_place_of_one_that_builds_it_is_refused():
    with pytest.raises(
        TypeError,
        match=r"a function that builds a torch optimizer .* got Adam. Fix: Player\(optimize",
    ):
        dgm.gan.Player(optimizer=torch.optim.Adam(Slope().parameters()))


def test_a_play_says_its_order_and_no_player():
    assert str(dgm.gan.Alternating(dgm.gan.Player(lr=3.0), n_critic=2)) == "Alternating(n_critic=2)"
    assert str(dgm.gan.Simultaneous()) == "Simultaneous()"


def test_a_side_without_parameters_to_train_raises():
    with pytest.raises(
        ValueError, match=r"expected a generator with parameters to train.*generator.requires_grad_"
    ):
        dgm.GANTrainer(Dirac(0.0).requires_grad_(False), Slope(0.0))


def test_a_play_is_a_plan_of_moves():
    alternating, move = dgm.gan.Alternating(n_critic=2), dgm.gan.Move
    assert alternating.plan(0) == (move.CRITIC,)
    assert alternating.plan(1) == (move.CRITIC, move.GENERATOR)
    assert dgm.gan.Simultaneous().plan(7) == (move.BOTH,)


def test_a_play_of_ones_own_says_its_plan():
    """The generator first, and twice."""

    class GeneratorFirst(dgm.gan.Play):
        def plan(self, num_critic_steps):
            return dgm.gan.Move.GENERATOR, dgm.gan.Move.GENERATOR, dgm.gan.Move.CRITIC

    trainer = dirac(0.3, 0.2, GeneratorFirst(sgd(), sgd()), game=dgm.gan.Wasserstein())
    theta, psi = moved(trainer).tolist()
    assert (trainer.num_critic_steps, trainer.num_generator_steps) == (1, 2)
    assert theta == pytest.approx(0.3 + 2 * H * 0.2)
    assert psi == pytest.approx(0.2 - H * theta)
