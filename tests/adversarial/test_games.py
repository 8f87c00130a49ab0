"""Games: losses, gradients and best values in closed form or by quadrature."""

from __future__ import annotations

from math import exp, log, sqrt

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

import pyro_dgm as dgm

CLASSIFIERS = {"minimax": dgm.gan.Minimax(), "non_saturating": dgm.NonSaturating()}
DIVERGENCES = {
    "kl": dgm.gan.KL(),
    "reverse_kl": dgm.gan.ReverseKL(),
    "pearson": dgm.gan.Pearson(),
    "squared_hellinger": dgm.gan.SquaredHellinger(),
    "jensen_shannon": dgm.gan.JensenShannon(),
    "gan": dgm.gan.GANDivergence(),
}
# The critic that is best at log r; games that know the ratio must find it again.
BEST = {
    **{name: (game, lambda log_r: log_r) for name, game in CLASSIFIERS.items()},
    "least_squares": (dgm.gan.LeastSquares(), torch.sigmoid),
    "paired_relativistic": (dgm.PairedRelativistic(), lambda log_r: log_r + 0.7),
    "kl": (dgm.gan.FDivergence(dgm.gan.KL()), lambda log_r: log_r + 1),
    "reverse_kl": (dgm.gan.FDivergence(dgm.gan.ReverseKL()), lambda log_r: log_r),
    "pearson": (dgm.gan.FDivergence(dgm.gan.Pearson()), lambda log_r: 2 * log_r.expm1()),
    "squared_hellinger": (dgm.gan.FDivergence(dgm.gan.SquaredHellinger()), lambda log_r: log_r / 2),
    "jensen_shannon": (dgm.gan.FDivergence(dgm.gan.JensenShannon()), lambda log_r: log_r),
    "gan": (dgm.gan.FDivergence(dgm.gan.GANDivergence()), lambda log_r: log_r),
}
GAMES = {
    **{name: game for name, (game, _) in BEST.items()},
    "hinge": dgm.gan.Hinge(),
    "wasserstein": dgm.gan.Wasserstein(),
}

# m, s, JSD and TV of N(0, 1) and N(m, s²), in nats, by quadrature.
TABLE = [
    (0.0, 1.0, 0.0, 0.0),
    (0.5, 1.0, 0.030311, 0.19741),
    (1.0, 1.0, 0.111421, 0.38292),
    (2.0, 1.0, 0.336831, 0.68269),
    (4.0, 1.0, 0.632720, 0.95450),
    (0.0, 2.0, 0.092733, 0.32267),
    (1.0, 0.5, 0.223984, 0.54661),
]
table = pytest.mark.parametrize(("m", "s", "jsd", "tv"), TABLE)
over = pytest.mark.parametrize


class Laws:
    """π = N(0, 1) and p = N(m, s²): their ratio, quantiles that stand for draws, and a grid for integrals."""

    def __init__(self, m: float, s: float, num: int = 400_000):
        self.pi, self.p = Normal(0.0, 1.0), Normal(torch.tensor(m), torch.tensor(s))
        share = (torch.arange(num) + 0.5) / num
        self.real, self.fake = self.pi.icdf(share), self.p.icdf(share)
        self.x = torch.linspace(-30, 30, 60_001)

    def log_r(self, x: Tensor) -> Tensor:
        return self.pi.log_prob(x) - self.p.log_prob(x)

    def integral(self, values: Tensor) -> float:
        return torch.trapezoid(values, self.x).item()


# Closed forms --------------------------------------------------------------------------------------------------------


def test_games_say_whether_their_critic_is_a_log_ratio():
    """The attribute and the method agree for every game."""
    for name, game in GAMES.items():
        if game.is_log_ratio:
            game.log_ratio(torch.tensor([0.5]), torch.zeros(3) if game.ratio_reads_fake else None)
        else:
            with pytest.raises(ValueError, match="log density ratio"):
                game.log_ratio(torch.tensor([0.5]), torch.zeros(3))
        assert game.is_log_ratio == (name in BEST)


def test_losses_are_their_equations():
    real, fake = torch.randn(5), torch.randn(5)
    d_real, d_fake = real.sigmoid(), fake.sigmoid()
    classifier = -d_real.log().mean() - (1 - d_fake).log().mean()
    relativistic = (fake - real).sigmoid()
    expected = {
        "minimax": (classifier, (1 - d_fake).log().mean()),
        "non_saturating": (classifier, -d_fake.log().mean()),
        "least_squares": (((real - 1) ** 2 + fake**2).mean() / 2, ((fake - 1) ** 2).mean() / 2),
        "hinge": ((1 - real).clamp(0).mean() + (1 + fake).clamp(0).mean(), -fake.mean()),
        "wasserstein": (fake.mean() - real.mean(), -fake.mean()),
        "paired_relativistic": (-(1 - relativistic).log().mean(), -relativistic.log().mean()),
    }
    for name, losses in expected.items():
        torch.testing.assert_close(GAMES[name](real, fake), losses)
        torch.testing.assert_close(GAMES[name].critic_loss(real, fake), losses[0])
        torch.testing.assert_close(GAMES[name].generator_loss(fake, real), losses[1])


@over("of", DIVERGENCES.values(), ids=DIVERGENCES)
def test_the_game_of_a_divergence_is_its_bound(of):
    real, fake = torch.randn(5), torch.randn(5)
    critic_loss, generator_loss = dgm.gan.FDivergence(of)(real, fake)
    torch.testing.assert_close(critic_loss, of.conjugate(of.g(fake)).mean() - of.g(real).mean())
    torch.testing.assert_close(generator_loss, -of.conjugate(of.g(fake)).mean())


def test_the_game_of_the_gan_divergence_is_the_minimax_game():
    real, fake = torch.randn(5), torch.randn(5)
    torch.testing.assert_close(
        dgm.gan.FDivergence(dgm.gan.GANDivergence())(real, fake), dgm.gan.Minimax()(real, fake)
    )


@over("game", CLASSIFIERS.values(), ids=CLASSIFIERS)
def test_a_critic_that_says_one_half_everywhere_has_the_value_of_minus_two_log_two(game):
    zeros = torch.zeros(4)
    assert -game.critic_loss(zeros, zeros).item() == pytest.approx(-2 * log(2), abs=1e-15)


@over("name", BEST)
def test_the_equilibrium_is_the_critics_loss_at_a_ratio_of_one(name):
    game, best = BEST[name]
    c = best(torch.zeros(4))
    assert game.critic_loss(c, c).item() == pytest.approx(game.equilibrium, abs=1e-7)


def test_the_equilibria_of_games_without_a_ratio():
    assert (
        dgm.gan.Hinge().critic_loss(torch.zeros(3), torch.zeros(3)) == dgm.gan.Hinge().equilibrium
    )
    assert (
        dgm.gan.Wasserstein().critic_loss(torch.ones(3), torch.ones(3))
        == dgm.gan.Wasserstein().equilibrium
    )


# Gradients at extreme logits -----------------------------------------------------------------------------------------


def slopes(game: dgm.gan.Game, at: float) -> dict[str, float]:
    """Derivatives of both losses in one logit, in float32."""

    def logit() -> Tensor:
        return torch.tensor([at], dtype=torch.float32, requires_grad=True)

    real, fake, moved, fixed = logit(), logit(), logit(), torch.zeros(1, dtype=torch.float32)
    game.critic_loss(real, fixed).backward()
    game.critic_loss(fixed, fake).backward()
    game.generator_loss(moved, fixed).backward()
    return {"real": real.grad.item(), "fake": fake.grad.item(), "generator": moved.grad.item()}


def sigma(c: float) -> float:
    return 1 / (1 + exp(-c))


SLOPES = {
    "minimax": lambda c: {"real": -sigma(-c), "fake": sigma(c), "generator": -sigma(c)},
    "non_saturating": lambda c: {"real": -sigma(-c), "fake": sigma(c), "generator": -sigma(-c)},
    "least_squares": lambda c: {"real": c - 1, "fake": c, "generator": c - 1},
    "hinge": lambda c: {"real": -float(c < 1), "fake": float(c > -1), "generator": -1.0},
    "wasserstein": lambda c: {"real": -1.0, "fake": 1.0, "generator": -1.0},
    "paired_relativistic": lambda c: {
        "real": -sigma(-c),
        "fake": sigma(c),
        "generator": -sigma(-c),
    },
    "kl": lambda c: {"real": -1.0, "fake": exp(c - 1), "generator": -exp(c - 1)},
    "reverse_kl": lambda c: {"real": -exp(-c), "fake": 1.0, "generator": -1.0},
    "pearson": lambda c: {"real": -1.0, "fake": c / 2 + 1, "generator": -c / 2 - 1},
    "squared_hellinger": lambda c: {"real": -exp(-c), "fake": exp(c), "generator": -exp(c)},
    "jensen_shannon": lambda c: {"real": -sigma(-c), "fake": sigma(c), "generator": -sigma(c)},
    "gan": lambda c: {"real": -sigma(-c), "fake": sigma(c), "generator": -sigma(c)},
}


@over("at", [-60.0, -20.0, 0.3, 20.0, 60.0])
@over("name", SLOPES)
def test_gradients_are_right_at_extreme_logits_in_float32(name, at):
    assert slopes(GAMES[name], at) == pytest.approx(SLOPES[name](at), rel=1e-5, abs=1e-37)


def test_the_non_saturating_generator_learns_from_a_fake_that_the_critic_is_sure_of_and_minimax_does_not():
    assert slopes(dgm.NonSaturating(), -60.0)["generator"] == -1
    assert slopes(dgm.gan.Minimax(), -60.0)["generator"] == pytest.approx(-exp(-60), rel=1e-5)


@over("at", [-60.0, 60.0])
@over("name", GAMES)
def test_losses_are_finite_at_extreme_logits_in_float32(name, at):
    c = torch.tensor([at], dtype=torch.float32)
    assert all(loss.isfinite() for loss in GAMES[name](c, c))


# Duality -------------------------------------------------------------------------------------------------------------


@table
def test_the_best_classifier_has_the_value_of_twice_jsd_minus_two_log_two(m, s, jsd, tv):
    laws = Laws(m, s)
    value = -dgm.gan.Minimax().critic_loss(laws.log_r(laws.real), laws.log_r(laws.fake)).item()
    assert value == pytest.approx(2 * jsd - 2 * log(2), abs=3e-5)


@table
def test_the_best_hinge_critic_has_the_loss_of_two_minus_twice_tv(m, s, jsd, tv):
    laws = Laws(m, s)
    loss = (
        dgm.gan.Hinge()
        .critic_loss(laws.log_r(laws.real).sign(), laws.log_r(laws.fake).sign())
        .item()
    )
    assert loss == pytest.approx(2 - 2 * tv, abs=3e-5)


@table
def test_the_best_least_squares_critic_has_the_loss_of_its_divergence(m, s, jsd, tv):
    laws = Laws(m, s)
    loss = (
        dgm.gan.LeastSquares()
        .critic_loss(laws.log_r(laws.real).sigmoid(), laws.log_r(laws.fake).sigmoid())
        .item()
    )
    pi, p = laws.pi.log_prob(laws.x).exp(), laws.p.log_prob(laws.x).exp()
    discrimination = laws.integral(((pi - p) ** 2 / (pi + p)).nan_to_num())
    assert loss == pytest.approx(1 / 4 - discrimination / 8, abs=1e-6)


def test_the_best_paired_critic_has_the_loss_of_its_divergence():
    """Of N(0, 1) and N(√2, 1): the two products lie 2 apart, whose JSD the table knows.

    The log ratio is 1 − √2 x, so that its differences over pairs are N(2, 4).
    """
    differences = Normal(2.0, 2.0).icdf((torch.arange(400_000) + 0.5) / 400_000)
    loss = dgm.PairedRelativistic().critic_loss(differences, torch.zeros(400_000)).item()
    assert loss == pytest.approx(log(2) - 0.336831, abs=2e-6)


@over("name", BEST)
def test_no_change_of_the_best_critic_lowers_its_loss(name):
    game, best = BEST[name]
    laws = Laws(0.5, 1.0, num=1500)
    pairs = torch.cartesian_prod(laws.real, laws.fake).T
    real, fake = (best(laws.log_r(x)) for x in pairs)
    for bump in (torch.sin, torch.tanh, torch.ones_like):
        size = torch.zeros((), requires_grad=True)
        loss = game.critic_loss(real + size * bump(pairs[0]), fake + size * bump(pairs[1]))
        (slope,) = torch.autograd.grad(loss, size, create_graph=True)
        (curvature,) = torch.autograd.grad(slope, size, allow_unused=True)
        assert slope.item() == pytest.approx(0, abs=1e-3)
        assert curvature.item() > -1e-9


# f-divergences -------------------------------------------------------------------------------------------------------

OF_TABLE = {(m, s): jsd for m, s, jsd, _ in TABLE}


def exact(name: str, m: float, s: float) -> float:
    """Closed forms for two normal distributions, the table where there is none."""
    variance, jsd = s**2, OF_TABLE[m, s]
    return {
        "kl": log(s) + (1 + m**2) / (2 * variance) - 1 / 2,
        "reverse_kl": -log(s) + (variance + m**2) / 2 - 1 / 2,
        "pearson": variance / sqrt(2 * variance - 1) * exp(m**2 / (2 * variance - 1)) - 1
        if variance > 0.5
        else 0.0,
        "squared_hellinger": 2
        - 2 * sqrt(2 * s / (1 + variance)) * exp(-(m**2) / 4 / (1 + variance)),
        "jensen_shannon": 2 * jsd,
        "gan": 2 * jsd - 2 * log(2),
    }[name]


@over(("m", "s"), [(0.0, 1.0), (0.5, 1.0), (1.0, 1.0), (0.0, 2.0)])
@over("name", DIVERGENCES)
def test_a_divergence_is_that_of_two_normal_laws_and_its_bound_is_tight_at_the_derivative(
    name, m, s
):
    of, laws = DIVERGENCES[name], Laws(m, s, num=2)
    x = laws.x[laws.x.abs() < 18]
    pi, p, r = laws.pi.log_prob(x).exp(), laws.p.log_prob(x).exp(), laws.log_r(x).exp()
    t = torch.func.vmap(torch.func.grad(of.f))(r)
    divergence = torch.trapezoid(p * of.f(r), x).item()
    assert divergence == pytest.approx(exact(name, m, s), abs=2e-6)
    assert torch.trapezoid(pi * t - p * of.conjugate(t), x).item() == pytest.approx(
        divergence, abs=1e-9
    )


@over("name", DIVERGENCES)
def test_the_output_that_knows_the_log_ratio_is_the_derivative(name):
    of, v = DIVERGENCES[name], torch.linspace(-1.5, 1.5, 13)
    derivative = torch.func.vmap(torch.func.grad(of.f))(of.log_ratio(v).exp())
    torch.testing.assert_close(of.g(v), derivative)


@over("name", DIVERGENCES)
def test_the_conjugate_in_one_piece_is_the_conjugate(name):
    of, v = DIVERGENCES[name], torch.linspace(-3, 3, 13)
    torch.testing.assert_close(of.conjugate_of(v), of.conjugate(of.g(v)))


@over("name", DIVERGENCES)
def test_the_conjugate_is_the_supremum_of_its_definition(name):
    of, u = DIVERGENCES[name], torch.logspace(-6, 6, 400_001)
    for v in (-1.0, 0.0, 0.8):
        t = of.g(torch.tensor(v))
        assert of.conjugate(t).item() == pytest.approx((u * t - of.f(u)).max().item(), abs=1e-6)


# Log ratios ----------------------------------------------------------------------------------------------------------


@over("name", BEST)
def test_a_game_reads_the_log_ratio_from_its_best_critic(name):
    game, best = BEST[name]
    laws = Laws(0.5, 1.0)
    found = game.log_ratio(best(laws.log_r(laws.x)), fake=best(laws.log_r(laws.fake)))
    near = laws.x.abs() < 5
    torch.testing.assert_close(found[near], laws.log_r(laws.x)[near], rtol=1e-6, atol=2e-5)


@over(("game", "reason"), [(dgm.gan.Hinge(), "sign"), (dgm.gan.Wasserstein(), "transport")])
def test_a_critic_that_is_no_log_ratio_says_why(game, reason):
    with pytest.raises(
        ValueError,
        match=rf"{type(game).__name__}: expected .* log density ratio.*{reason}.*Fix: fit",
    ):
        game.log_ratio(torch.zeros(2))


def test_outputs_that_are_no_ratio_have_an_infinite_log():
    torch.testing.assert_close(
        dgm.gan.LeastSquares().log_ratio(torch.tensor([-1.0, 2.0])), torch.tensor([-1.0, 1.0]) / 0
    )
    assert dgm.gan.FDivergence(dgm.gan.Pearson()).log_ratio(torch.tensor(-3.0)) == -torch.inf


def test_the_paired_game_asks_for_the_fakes():
    game = dgm.PairedRelativistic()
    with pytest.raises(
        ValueError, match=r"logits of fakes as well.*Fix: game.log_ratio\(logits, fake="
    ):
        game.log_ratio(torch.zeros(2))
    with pytest.raises(
        ValueError, match=r"one real logit for each fake one, got \(3,\) real ones and \(2,\) fakes"
    ):
        game.critic_loss(torch.zeros(3), torch.zeros(2))
    with pytest.raises(
        ValueError, match=r"got no real ones. Fix: game.generator_loss\(fake, real\)"
    ):
        game.generator_loss(torch.zeros(3))


# What is refused -----------------------------------------------------------------------------------------------------


@over(
    ("of", "got", "fix"),
    [
        (dgm.gan.KL, "the class KL", r"FDivergence\(KL\(\)\)"),
        (dgm.NonSaturating(), r"NonSaturating\(\)", r"game=NonSaturating\(\), which is a game al"),
        (dgm.NonSaturating, "the class NonSaturating", r"FDivergence\(KL\(\)\)"),
        ("kl", "'kl'", r"FDivergence\(KL\(\)\)"),
    ],
    ids=["class", "game", "class of games", "name"],
)
def test_what_is_no_divergence_is_refused(of, got, fix):
    with pytest.raises(
        TypeError, match=rf"FDivergence: expected a divergence, got {got}. Fix: {fix}"
    ):
        dgm.gan.FDivergence(of)


# Words ---------------------------------------------------------------------------------------------------------------


@over("name", GAMES)
def test_a_game_prints_its_equation_and_knows_its_divergence(name):
    game = GAMES[name]
    assert str(game).startswith(type(game).__name__)
    assert "critic" in str(game)
    assert "generator" in str(game)
    assert game.divergence


def test_games_are_values():
    assert (
        dgm.gan.FDivergence(dgm.gan.KL())
        == dgm.gan.FDivergence(dgm.gan.KL())
        != dgm.gan.FDivergence(dgm.gan.Pearson())
    )
    assert repr(dgm.gan.FDivergence(dgm.gan.KL())) == "FDivergence(of=KL())"
    assert repr(dgm.PairedRelativistic()) == "PairedRelativistic()"
    assert len({dgm.gan.Minimax(), dgm.gan.Minimax(), dgm.NonSaturating()}) == 2
