"""The log density ratio that a fitted critic knows, against that of two normal laws."""

from __future__ import annotations

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import pyro_dgm as dgm

over = pytest.mark.parametrize


class Moved(dgm.Program):
    r"""$p = \mathcal N(m, s^2)$."""

    def __init__(self, m: float, s: float):
        super().__init__()
        self.m, self.s = nn.Parameter(torch.tensor(m)), s

    def forward(self, x=None):
        with dgm.data_plate(x):
            return pyro.sample("x", dist.Normal(self.m.reshape(1), self.s).to_event(1), obs=x)


class Quadratic(nn.Module):
    r"""$C(x) = h(w_0 + w_1 x + w_2 x^2)$: it contains the best critic of a game whose h is right."""

    def __init__(self, head):
        super().__init__()
        self.w, self.head = nn.Parameter(torch.zeros(3)), head

    def forward(self, x):
        return self.head(torch.cat([torch.ones_like(x), x, x.square()], 1) @ self.w)


def same(v):
    return v


# The head that turns a log ratio into the best critic's output, up to what w can take on.
GAMES = {
    "non_saturating": (dgm.NonSaturating(), same),
    "minimax": (dgm.gan.Minimax(), same),
    "least_squares": (dgm.gan.LeastSquares(), torch.sigmoid),
    "paired_relativistic": (dgm.PairedRelativistic(), same),
    "kl": (dgm.gan.FDivergence(dgm.gan.KL()), same),
    "reverse_kl": (dgm.gan.FDivergence(dgm.gan.ReverseKL()), same),
    "pearson": (dgm.gan.FDivergence(dgm.gan.Pearson()), lambda v: 2 * v.expm1()),
    "squared_hellinger": (dgm.gan.FDivergence(dgm.gan.SquaredHellinger()), same),
    "jensen_shannon": (dgm.gan.FDivergence(dgm.gan.JensenShannon()), same),
    "gan": (dgm.gan.FDivergence(dgm.gan.GANDivergence()), same),
}


def log_ratio(x, m, s):
    return (dist.Normal(0.0, 1.0).log_prob(x) - dist.Normal(m, s).log_prob(x)).flatten()


@over(("m", "s"), [(0.5, 1.0), (0.3, 1.2)])
@over("name", GAMES)
def test_a_critic_fitted_by_its_game_knows_the_log_ratio(name, m, s):
    """Evenly spaced quantiles stand for draws, so that what is left is the fit's own error: 0.02 nats.

    The constant of `PairedRelativistic` comes from 40,000 draws of p: 5 standard errors of that log mean are 0.02.
    """
    game, head = GAMES[name]
    share = (torch.arange(40_000) + 0.5)[:, None] / 40_000
    real, fake = (dist.Normal(*p).icdf(share)[torch.randperm(40_000)] for p in ((0.0, 1.0), (m, s)))
    trainer = dgm.GANTrainer(Moved(m, s), Quadratic(head), game, noise=True)
    dgm.gan.LBFGSFit()(trainer.critic, game, (real,), (fake,))
    x = torch.linspace(-2, 2, 41)[:, None]
    assert (trainer.log_ratio(x, num=40_000) - log_ratio(x, m, s)).abs().max() < 0.04


def test_the_trainers_own_critic_steps_arrive_at_the_log_ratio():
    """The generator stays, at learning rate 0; the error of 20,000 data and of the last steps is below 0.1 nats."""
    still = dgm.gan.Player(optimizer=partial(torch.optim.SGD, lr=0.0))
    critic = dgm.gan.Player(optimizer=partial(torch.optim.SGD, lr=0.1))
    play = dgm.gan.Alternating(still, critic)
    trainer = dgm.GANTrainer(Moved(1.0, 1.0), Quadratic(same), penalties=(), play=play, noise=True)
    trainer.fit(torch.randn(20_000, 1), epochs=20, batch_size=1000, progress=False)
    assert trainer.generator.m.item() == 1.0
    x = torch.linspace(-1, 2, 31)[:, None]
    assert (trainer.log_ratio(x) - log_ratio(x, 1.0, 1.0)).abs().max() < 0.1


def test_a_log_ratio_takes_the_context_and_leaves_no_trace():
    class OfContext(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(()))

        def forward(self, x, c):
            return self.w * (x + c)[:, 0]

    class Program(Moved):
        def forward(self, x=None, c=None):
            with pyro.plate("data", len(c), dim=-1):
                return pyro.sample("x", dist.Normal(self.m + c, 1.0).to_event(1), obs=x)

    trainer, before = (
        dgm.GANTrainer(Program(0.0, 1.0), OfContext(), noise=True),
        torch.get_rng_state(),
    )
    found = trainer.log_ratio(torch.ones(3, 1), torch.arange(3.0)[:, None])
    assert found.tolist() == [1.0, 2.0, 3.0]
    assert not found.requires_grad
    assert trainer.module.training
    assert torch.equal(torch.get_rng_state(), before)


def paired(ema):
    """The same run with and without an average: only what `fit` leaves in the generator differs."""
    torch.manual_seed(0)
    play = dgm.gan.Alternating(dgm.gan.Player(lr=0.1), dgm.gan.Player(lr=0.1))
    game = dgm.PairedRelativistic()
    trainer = dgm.GANTrainer(Moved(3.0, 1.0), Quadratic(same), game, play=play, ema=ema, noise=True)
    trainer.fit(torch.randn(64, 1), epochs=5, batch_size=16, progress=False)
    return trainer


def test_the_constant_is_that_of_the_last_weights_and_not_of_their_average():
    plain, averaged = paired(None), paired(0.9)
    before = averaged.generator.m.item()
    assert before != plain.generator.m.item()
    x = torch.linspace(-2, 2, 9)[:, None]
    assert torch.equal(averaged.log_ratio(x), plain.log_ratio(x))
    assert averaged.generator.m.item() == before
    averaged.generator.m.data.fill_(-1.0)  # a user's own weights are what is asked about
    assert not torch.equal(averaged.log_ratio(x), plain.log_ratio(x))


@over(
    "game",
    [dgm.NonSaturating(), dgm.PairedRelativistic()],
    ids=["non_saturating", "paired_relativistic"],
)
def test_a_log_ratio_has_the_gradient_of_the_critic_where_x_has_one(game):
    trainer = dgm.GANTrainer(Moved(1.0, 1.0), Quadratic(same), game, noise=True)
    trainer.critic.w.data.copy_(torch.tensor([0.3, -1.0, 0.5]))
    x = torch.randn(5, 1).requires_grad_()
    (slope,) = torch.autograd.grad(trainer.log_ratio(x).sum(), x)
    torch.testing.assert_close(slope, -1.0 + x.detach())
    with torch.no_grad():
        assert not trainer.log_ratio(x).requires_grad


def test_the_log_ratio_of_what_is_no_number_is_none():
    """Chains that leave the numbers ask there: it is for the sampler to refuse them."""
    trainer = dgm.GANTrainer(Moved(1.0, 1.0), Quadratic(same), noise=True)
    assert trainer.log_ratio(torch.tensor([[torch.nan], [0.0]])).isnan().tolist() == [True, False]


@over(("game", "reason"), [(dgm.gan.Hinge(), "sign"), (dgm.gan.Wasserstein(), "Kantorovich")])
def test_a_critic_that_is_no_log_ratio_says_why(game, reason):
    trainer = dgm.GANTrainer(Moved(0.0, 1.0), Quadratic(same), game, noise=True)
    with pytest.raises(
        ValueError, match=f"log density ratio.*{reason}.*Fix: fit a fresh critic with NonSaturating"
    ):
        trainer.log_ratio(torch.zeros(3, 1))
