"""Penalties: exact for linear critics, per datum, with a gradient for the critic's weights alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import pyro_dgm as dgm
from pyro_dgm.adversarial.critics import Scores

EVENTS = [(1,), (4,), (2, 3), (1, 5, 5)]
PENALTIES = [dgm.R1(3.0), dgm.R2(3.0), dgm.gan.GradientPenalty(3.0)]
over = pytest.mark.parametrize


class Linear(nn.Module):
    """C(x) = w·x over events of any shape."""

    def __init__(self, *event: int, norm: float = 1.0):
        super().__init__()
        weight = torch.zeros(event)
        weight.view(-1)[-1] = norm
        self.weight = nn.Parameter(weight)

    def forward(self, x):
        return (x * self.weight).flatten(1).sum(1)


@over("event", EVENTS)
@over("num", [1, 2, 64])
@over("dtype", ["float32", "float64"], indirect=True)
def test_a_linear_critic_of_norm_one_costs_nothing_or_half_of_gamma(event, num, dtype):
    critic, real, fake = Linear(*event), torch.randn(num, *event), torch.randn(num, *event)
    assert dgm.gan.GradientPenalty(10.0)(critic, real, fake) == 0
    assert dgm.R1(3.0)(critic, real, fake) == 1.5
    assert dgm.R2(3.0)(critic, real, fake) == 1.5


def test_a_linear_critic_of_another_norm_costs_the_square():
    critic, x = Linear(4, norm=3.0), torch.randn(5, 4)
    assert dgm.gan.GradientPenalty(10.0)(critic, x, x) == 40
    assert dgm.R1(1.0)(critic, x, x) == 4.5


def test_penalties_are_means_over_data_and_look_at_their_own_points():
    def bowl(x):
        return x.square().sum(1) / 2  # its gradient is x

    real, fake = torch.randn(7, 3), torch.randn(7, 3)
    torch.testing.assert_close(dgm.R1(1.0)(bowl, real, fake), real.square().sum(1).mean() / 2)
    torch.testing.assert_close(dgm.R2(1.0)(bowl, real, fake), fake.square().sum(1).mean() / 2)
    torch.testing.assert_close(
        dgm.gan.GradientPenalty(1.0)(bowl, real, real), (real.norm(dim=1) - 1).square().mean()
    )


def test_interpolates_lie_on_the_way_from_fake_to_real_at_a_place_of_their_own():
    seen = []

    def critic(x):
        seen.append(x.detach())
        return x.flatten(1).sum(1)

    real, fake = torch.randn(50, 2, 3), torch.randn(50, 2, 3)
    dgm.gan.GradientPenalty()(critic, real, fake)
    share = ((seen[0] - fake) / (real - fake)).flatten(1)
    torch.testing.assert_close(share, share[:, :1].expand_as(share))
    assert share.min() >= 0
    assert share.max() <= 1
    assert len(share[:, 0].unique()) == 50


@over("penalty", PENALTIES, ids=lambda p: p.name)
def test_the_gradient_flows_to_the_weights(penalty):
    critic, x, y = Linear(2, 2, norm=2.0), torch.randn(6, 2, 2), torch.randn(6, 2, 2)
    penalty(critic, x, y).backward()
    weight = critic.weight.detach()
    expected = 3 * weight if penalty.name != "gp" else 2 * 3 * (2 - 1) * weight / 2
    torch.testing.assert_close(critic.weight.grad, expected)


@over("penalty", PENALTIES, ids=lambda p: p.name)
def test_points_that_have_a_gradient_already_cost_the_same(penalty):
    critic, x, y = (
        nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)),
        torch.randn(5, 3),
        torch.randn(5, 3),
    )
    costs = []
    for real, fake in ((x, y), (x.clone().requires_grad_(), 1.0 * y.clone().requires_grad_())):
        torch.manual_seed(0)
        costs.append(penalty(critic, real, fake))
    assert torch.equal(*costs)


@over("penalty", PENALTIES, ids=lambda p: p.name)
def test_the_gradient_of_a_deep_critic_is_that_of_differences(penalty):
    critic, x, y = (
        nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)),
        torch.randn(5, 3),
        torch.randn(5, 3),
    )
    weight = critic[0].weight

    def cost(shift):
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(0)
            weight[0, 0] += shift
            value = penalty(critic, x, y)
            weight[0, 0] -= shift
        return value.item()

    torch.manual_seed(0)
    penalty(critic, x, y).backward()
    assert weight.grad[0, 0].item() == pytest.approx((cost(1e-5) - cost(-1e-5)) / 2e-5, rel=1e-6)


def test_a_critic_without_slope_has_a_finite_gradient():
    critic, x = Linear(3, norm=0.0), torch.randn(4, 3)
    penalty = dgm.gan.GradientPenalty(10.0)(critic, x, x)
    penalty.backward()
    assert penalty == 10
    assert critic.weight.grad.isfinite().all()


def test_penalties_are_computed_in_float32_at_least():
    critic, x = Linear(3).float(), torch.randn(4, 3).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (
            dgm.R1(1.0)(lambda x: nn.functional.linear(x, critic.weight[None]), x, x).dtype
            == torch.float32
        )


@pytest.mark.parametrize("dtype", ["float32"], indirect=True)
@over("penalty", [dgm.R1(1.0), dgm.R2(1.0)], ids=lambda p: p.name)
def test_a_penalty_under_autocast_takes_a_pass_of_its_own_in_float32(penalty):
    """`Scores` has the bfloat16 pass of the loss at the very same tensor."""
    critic, x = (
        nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)),
        torch.randn(16, 3).requires_grad_(),
    )
    exact, expected = critic(x).flatten(), penalty(critic, x, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        score = Scores(critic)
        assert (
            0 < (score(x) - exact).abs().max() < 0.1
        )  # half precision, so that there is something to mistake
        assert torch.equal(penalty(score, x, x), expected)


@over(
    ("build", "name"),
    [
        (dgm.R1, "R1: expected gamma"),
        (dgm.R2, "R2: expected gamma"),
        (dgm.gan.GradientPenalty, "GradientPenalty: expected w"),
    ],
)
@over("value", [-1.0, float("nan")])
def test_a_negative_weight_is_refused(build, name, value):
    fix = rf"Fix: {build.__name__}\((gamma|weight)=1.0\), or no penalty"
    with pytest.raises(ValueError, match=f"{name}.* >= 0, got {value}. {fix}"):
        build(value)


@over(
    ("penalty", "text"),
    [
        (dgm.R1(3.0), "R1(gamma=3.0)"),
        (dgm.R2(3.0), "R2(gamma=3.0)"),
        (dgm.gan.GradientPenalty(), "GradientPenalty(weight=10.0)"),
    ],
)
def test_a_penalty_shows_its_weight(penalty, text):
    assert repr(penalty) == text


def test_penalties_score_without_gradients():
    critic, x = Linear(3), torch.randn(4, 3)
    with torch.no_grad():
        penalty = dgm.R1(1.0)(critic, x, x)
    assert penalty == 0.5
    assert not penalty.requires_grad
