"""The index of oscillation, where its value is known."""

from __future__ import annotations

from math import exp, pi, sqrt

import pytest
import torch

import pyro_dgm as dgm

over = pytest.mark.parametrize
TIME = torch.arange(100.0)


@over("damping", [0.0, 0.01, 0.05])
def test_oscillation_is_the_share_of_a_swing_that_is_left_a_period_later(damping):
    found, period = dgm.gan.oscillation((TIME * 2 * pi / 20).sin() * (-damping * TIME).exp())
    assert found == pytest.approx(exp(-20 * damping), abs=0.05)
    assert period == 20.0


def test_a_growing_swing_has_index_one():
    found, period = dgm.gan.oscillation((TIME * 2 * pi / 16).cos() * (0.02 * TIME).exp())
    assert found == pytest.approx(1.0, abs=0.05)
    assert period == 16.0


def test_a_swing_on_a_trend_is_seen():
    assert dgm.gan.oscillation((TIME * 2 * pi / 20).sin() + 0.05 * TIME)[0] > 0.9


@over(
    "series",
    [
        torch.ones(100),
        TIME,
        (-TIME / 3).exp(),
        (-TIME / 30).exp(),
        TIME.log1p(),
        torch.zeros(2),
        torch.full((100,), 1e6) + 1e-11 * TIME.sin(),
    ],
    ids=["constant", "line", "fast decay", "slow decay", "logarithm", "short", "rounding"],
)
def test_what_arrives_does_not_oscillate(series):
    assert dgm.gan.oscillation(series)[0] == 0.0


@over(("length", "limit", "num", "share"), [(30, 0.5, 1000, 0.003), (100, 0.35, 300, 0.0003)])
def test_noise_stays_below_the_limit(length, limit, num, share):
    """The shares above it are those of 6,000 series."""
    indices = torch.tensor([dgm.gan.oscillation(torch.randn(length))[0] for _ in range(num)])
    stderr = sqrt(share / num)
    assert (indices >= limit).double().mean() < share + 5 * stderr
