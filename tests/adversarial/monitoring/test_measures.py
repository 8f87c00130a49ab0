"""What is measured of a game, where its value is known."""

from __future__ import annotations

from math import exp, sqrt

import pyro.distributions as dist
import pytest
import torch

from pyro_dgm.adversarial.monitoring.measures import (
    critic_balance,
    quantile,
    ratio_identities,
    spread,
)
from pyro_dgm.datasets import ring


def test_the_ratio_of_the_densities_keeps_both_identities():
    """log r = ½ − x between N(0, 1) and N(1, 1)."""
    x, y = torch.randn(100_000), torch.randn(100_000) + 1
    for found in ratio_identities(0.5 - x, 0.5 - y):
        assert abs(found.value - 1) < 5 * found.stderr
        assert found.stderr == pytest.approx(sqrt((exp(1) - 1) / 100_000), rel=0.2)  # Var r = e − 1


def test_another_ratio_breaks_the_identities():
    x, y = torch.randn(10_000), torch.randn(10_000) + 1
    forward, backward = ratio_identities(1.5 - x, 1.5 - y)
    assert forward.value == pytest.approx(exp(1), rel=0.1)
    assert backward.value == pytest.approx(exp(-1), rel=0.1)


def test_balance_is_the_probability_of_the_right_order():
    """P(x > y) = Φ(d / √2) for two normals d apart; 0.5 for d = 0."""
    for d in (0.0, 1.0, 2.0):
        found = critic_balance(torch.randn(20_000) + d, torch.randn(30_000))
        exact = dist.Normal(0.0, 1.0).cdf(torch.tensor(d / sqrt(2))).item()
        assert abs(found.value - exact) < 5 * found.stderr
        assert 0 < found.stderr < 0.004


def test_balance_counts_ties_half_and_all_pairs():
    x, y = torch.randint(4, (30,)), torch.randint(5, (20,))
    pairs = (x[:, None] > y).double() + (x[:, None] == y).double() / 2
    assert critic_balance(x, y).value == pytest.approx(pairs.mean().item())


def test_spread_of_equal_laws_is_ideal():
    found = spread(real=torch.randn(500, 3), fake=torch.randn(500, 3))
    assert abs(found.spread - 1) < 0.1
    assert abs(found.duplicates) < 0.03
    assert found.coverage > 0.93  # 1 − 2⁻⁵ = 0.97 in expectation


def test_spread_scales_with_the_fakes():
    x = torch.randn(100, 2)
    assert spread(real=x, fake=3 * x).spread == pytest.approx(3.0)


def test_repeated_fakes_are_duplicates_and_missing_modes_are_not_covered():
    real = ring().sample(400)
    half = real[real[:, 1] > 0.1]
    few = half[:4].repeat(100, 1)
    assert spread(real=real, fake=few).duplicates > 0.98
    assert (
        spread(
            real=real, fake=half[torch.randint(len(half), (400,))] + 0.01 * torch.randn(400, 2)
        ).coverage
        < 0.6
    )


def test_one_point_repeated_is_like_itself():
    found = spread(real=torch.ones(10, 2), fake=torch.ones(10, 2))
    assert (found.spread, found.duplicates, found.coverage) == (1.0, 0.0, 1.0)


def test_the_spread_is_a_row_of_a_table():
    table = spread(real=torch.ones(10, 2), fake=torch.ones(10, 2)).to_dataframe()
    assert list(table.columns) == ["spread", "duplicates", "coverage"]
    assert table.loc[0].tolist() == [1.0, 0.0, 1.0]


def test_a_quantile_with_too_few_draws_beyond_it_has_no_error():
    """Of 20 draws one is expected below the 5 % quantile, and the least lies above it in 36 cases of 100."""
    values = torch.randn(20)
    assert quantile(values, 0.05).stderr != quantile(values, 0.05).stderr
    assert quantile(values, 0.25).stderr > 0


@pytest.mark.parametrize(("level", "num"), [(0.25, 20), (0.5, 20), (0.05, 200)])
def test_an_interval_of_a_quantile_holds_the_truth_about_as_often_as_it_says(level, num):
    """1,000 repetitions: a standard error of 0.007; order statistics round by another 0.015."""
    truth = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(level)).item()
    covered = 0
    for values in torch.randn(1000, num):
        low, high = quantile(values, level).interval()
        covered += low <= truth <= high
    assert abs(covered / 1000 - 0.95) < 5 * 0.007 + 0.015
