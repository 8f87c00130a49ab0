"""The maximum mean discrepancy against closed forms, and its p-values under the null."""

from math import sqrt

import pytest
import torch
from conftest import in_float64
from scipy.stats import kstest

import pyro_dgm as dgm
from pyro_dgm.evaluation.samples import pools as samples
from pyro_dgm.evaluation.samples.pools import relabellings
from pyro_dgm.evaluation.samples.twosample import _statistics


def by_hand(x, y, h):
    """The unbiased estimate, pair after pair."""

    def k(a, b):
        return (-(a - b).square().sum() / (2 * h**2)).exp().item()

    xx = sum(k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j) / (
        len(x) * (len(x) - 1)
    )
    yy = sum(k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j) / (
        len(y) * (len(y) - 1)
    )
    xy = sum(k(a, b) for a in x for b in y) / (len(x) * len(y))
    return xx + yy - 2 * xy


@in_float64
def test_the_statistic_is_the_sum_over_pairs():
    x, y = torch.randn(7, 2), torch.randn(4, 2) + 0.5
    found = dgm.mmd(real=x, fake=y, bandwidth=0.8, num_permutations=1)
    assert found.value == pytest.approx(by_hand(x, y, 0.8), abs=1e-12)
    assert found.bandwidth == 0.8


@in_float64
def test_every_relabelling_is_the_statistic_of_the_relabelled_samples():
    pooled = torch.randn(11, 2)
    labels = relabellings(7, 4, 5, pooled.device)
    for row, value in zip(labels.bool(), _statistics(pooled, labels, 1.0)[0], strict=True):
        assert row.sum() == 7
        assert value.item() == pytest.approx(by_hand(pooled[row], pooled[~row], 1.0), abs=1e-12)


@in_float64
def test_it_is_unbiased_for_the_closed_form_of_two_normals():
    r"""$k$ is $\sqrt{2\pi}\,h$ times a normal density, so each mean is a normal density; 300 pairs of samples."""
    h, shift = 1.3, 0.7

    def mean_kernel(difference):
        total = h**2 + 2.0
        return h / sqrt(total) * torch.tensor(-(difference**2) / (2 * total)).exp().item()

    exact = 2 * mean_kernel(0.0) - 2 * mean_kernel(shift)
    samples = [(torch.randn(15, 1), torch.randn(10, 1) + shift) for _ in range(300)]
    found = torch.tensor(
        [dgm.mmd(real=x, fake=y, bandwidth=h, num_permutations=1).value for x, y in samples]
    )
    assert abs(found.mean() - exact) < 5 * found.std() / sqrt(300)


def test_p_values_are_uniform_if_the_laws_agree():
    """400 pairs of samples, unequal in size and heavy-tailed; Kolmogorov's test at one in ten thousand."""
    p = [
        dgm.mmd(
            real=torch.randn(20, 3).exp(), fake=torch.randn(13, 3).exp(), num_permutations=199
        ).p_value
        for _ in range(400)
    ]
    assert kstest(p, "uniform").pvalue > 1e-4
    share = sum(value <= 0.05 for value in p) / 400
    assert abs(share - 0.05) < 5 * sqrt(0.05 * 0.95 / 400)


@pytest.mark.parametrize("change", [lambda x: x + 0.3, lambda x: 0.7 * x])
def test_a_shift_and_a_change_of_scale_are_found(change):
    found = dgm.mmd(
        real=torch.randn(400, 2), fake=change(torch.randn(400, 2)), num_permutations=199
    )
    assert found.p_value == 1 / 200
    assert found.value > 0


@in_float64
def test_the_default_bandwidth_is_the_median_distance_and_moves_with_the_unit():
    x, y = torch.randn(9, 2), torch.randn(8, 2)
    found = dgm.mmd(real=x, fake=y)
    distances = torch.pdist(torch.cat([x, y]))
    assert found.bandwidth == pytest.approx(distances.median().item())
    again = dgm.mmd(real=1e3 * x, fake=1e3 * y)
    assert again.value == pytest.approx(found.value)
    assert again.p_value == found.p_value


@pytest.mark.parametrize("shift", [0.0, 0.8])
def test_the_standard_error_is_the_spread_over_samples(shift):
    """200 pairs of samples; with no difference it may be too large by up to a half, but not too small."""
    pairs = [(torch.randn(50, 2), torch.randn(30, 2) + shift) for _ in range(200)]
    found = [dgm.mmd(real=x, fake=y, bandwidth=1.5, num_permutations=99) for x, y in pairs]
    spread = torch.tensor([f.value for f in found]).std()
    claimed = torch.tensor([f.stderr for f in found]).square().mean().sqrt()
    assert 0.8 < claimed / spread < (1.2 if shift else 1.6)


@in_float64
def test_blocks_of_any_size_give_the_same_numbers(monkeypatch):
    x, y = torch.randn(9, 2), torch.randn(8, 2)
    whole = dgm.mmd(real=x, fake=y, num_permutations=50)
    monkeypatch.setattr(samples, "BLOCK", 40)
    blocks = dgm.mmd(real=x, fake=y, num_permutations=50)
    assert (blocks.value, blocks.stderr) == (
        pytest.approx(whole.value),
        pytest.approx(whole.stderr),
    )
    assert blocks.p_value == whole.p_value


def test_the_bandwidth_of_a_large_sample_comes_from_a_random_part_of_it(monkeypatch):
    x, y = torch.randn(400, 2), torch.randn(400, 2)
    whole = dgm.mmd(real=x, fake=y, num_permutations=1).bandwidth
    monkeypatch.setattr("pyro_dgm.evaluation.samples.twosample.MEDIAN_OF", 200)
    part = dgm.mmd(real=x, fake=y, num_permutations=1).bandwidth
    assert part != whole
    assert part == pytest.approx(whole, rel=0.15)


def test_ties_are_counted_as_large():
    """Every relabelling of one value and its copies gives the same number: p = 1."""
    x = torch.ones(6, 1)
    assert dgm.mmd(real=x, fake=x, bandwidth=1.0).p_value == 1.0


def test_levels_most_of_which_are_equal_have_a_bandwidth():
    x = torch.zeros(30, 1)
    x[0] = 1.0
    assert dgm.mmd(real=x, fake=torch.zeros(30, 1)).bandwidth > 0


def test_events_of_any_shape_are_compared_as_vectors():
    x, y = torch.randn(8, 2, 3), torch.randn(9, 2, 3)
    assert dgm.mmd(real=x, fake=y) == dgm.mmd(real=x.flatten(1), fake=y.flatten(1))


def test_it_is_seeded_and_leaves_the_random_state_alone():
    x, y = torch.randn(10, 2), torch.randn(10, 2)
    before = torch.get_rng_state()
    first = dgm.mmd(real=x, fake=y, num_permutations=50)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(2)
    assert dgm.mmd(real=x, fake=y, num_permutations=50) == first
    assert dgm.mmd(real=x, fake=y, num_permutations=50, seed=1).value == first.value
    assert "(10 real, 10 fake, 50 permutations)" in str(first)


def test_what_is_no_pair_of_samples_is_refused():
    with pytest.raises(ValueError, match=r"mmd: expected two samples .* got \(5, 2\), \(5, 3\)"):
        dgm.mmd(real=torch.randn(5, 2), fake=torch.randn(5, 3))
    with pytest.raises(ValueError, match="mmd: expected two samples"):
        dgm.mmd(real=torch.randn(1, 2), fake=torch.randn(5, 2))
    with pytest.raises(ValueError, match="mmd: expected points that differ"):
        dgm.mmd(real=torch.ones(3, 2), fake=torch.ones(3, 2))
    with pytest.raises(ValueError, match="num_permutations: expected at least 1, got 0"):
        dgm.mmd(real=torch.randn(5, 2), fake=torch.randn(5, 2), num_permutations=0)


@pytest.mark.parametrize("bandwidth", [0.0, -1.0, float("nan"), float("inf")])
def test_a_bandwidth_that_is_no_length_is_refused(bandwidth):
    with pytest.raises(
        ValueError, match="mmd: expected a finite bandwidth above 0, got .* Fix: None, the median"
    ):
        dgm.mmd(real=torch.randn(5, 2), fake=torch.randn(5, 2), bandwidth=bandwidth)
