"""Tests of uniform numbers against SciPy's, and Holm's correction."""

from math import sqrt

import pytest
import torch
from conftest import in_float64
from scipy.stats import chi2, kstest, norm, wilcoxon

from pyro_dgm.evaluation.posterior.uniformity import (
    above_half,
    chi2_tail,
    holm,
    kolmogorov,
    normal_scores,
    normal_tail,
    symmetric,
    unit_variance,
    zero_means,
)


@in_float64
def test_the_correction_is_holms():
    """p = 0.01, 0.04, 0.03 of three: 0.03, max(0.06, 0.03), and the last is at least the second."""
    p = torch.tensor([0.01, 0.04, 0.03])
    torch.testing.assert_close(holm(p), torch.tensor([0.03, 0.06, 0.06]))


@in_float64
def test_weights_share_the_level():
    """p / w = 0.01, 0.02, 0.03 of weights 2, 1, 1: 4 · 0.01, 2 · 0.02, 1 · 0.03, never falling."""
    found = holm(torch.tensor([0.02, 0.02, 0.03]), torch.tensor([2.0, 1.0, 1.0]))
    torch.testing.assert_close(found, torch.tensor([0.04, 0.04, 0.04]))


@pytest.mark.parametrize("num", [20, 1000])
def test_kolmogorovs_p_value_is_scipys(num):
    """The limiting law with Stephens' correction is within three percent of the exact one above 1e-4."""
    for power in (1.0, 1.05, 1.2):
        u = torch.rand(num, dtype=torch.float64) ** power
        exact = kstest(u, "uniform").pvalue
        assert kolmogorov(u) == pytest.approx(exact, rel=0.03 if num > 100 else 0.1, abs=1e-4)


@in_float64
def test_tails_are_scipys():
    for t in (0.0, 0.3, 4.0, 50.0, 400.0):
        assert normal_tail(t / 10) == pytest.approx(norm.sf(t / 10), rel=1e-10)
        for degrees in (1, 2, 9):
            assert chi2_tail(t, degrees) == pytest.approx(chi2.sf(t, degrees), rel=1e-8)


@in_float64
def test_signed_ranks_are_scipys_with_ties():
    u = torch.rand(400) ** 1.1
    for values in (u, (u * 20).round() / 20 + 0.001):
        exact = wilcoxon(values - 0.5, method="approx", correction=False).pvalue
        assert symmetric(values) == pytest.approx(exact, rel=1e-6)


@in_float64
def test_the_variance_of_scores_is_tested_by_its_exact_law():
    u = torch.rand(20)
    total = norm.ppf(u.numpy()).__pow__(2).sum()
    exact = 2 * min(chi2.sf(total, 20), chi2.cdf(total, 20))
    assert unit_variance(u) == pytest.approx(exact, rel=1e-8)
    assert unit_variance(0.25 + torch.rand(100) / 2) < 1e-10


@in_float64
def test_zero_means_has_its_level_for_dependent_columns():
    """2,000 repeats at 200 rows of correlated normals: 5 % within five standard errors."""
    y = torch.randn(2000, 200, 3) + torch.randn(2000, 200, 1)
    p = torch.tensor([zero_means(rows) for rows in y])
    share = (p < 0.05).double().mean().item()
    assert abs(share - 0.05) < 5 * sqrt(0.05 * 0.95 / 2000)
    assert zero_means(y[0] + 0.8) < 1e-4


@in_float64
def test_scores_are_normal_quantiles_and_ends_are_finite():
    u = torch.tensor([0.0, 0.025, 0.5, 1.0])
    scores = normal_scores(u)
    assert scores.isfinite().all()
    torch.testing.assert_close(scores[1:3], torch.tensor([norm.ppf(0.025), 0.0]))
    assert above_half(torch.full((100,), 0.6)) == pytest.approx(norm.sf(10 * norm.ppf(0.6)))
