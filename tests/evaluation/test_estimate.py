"""A number and its standard error."""

from math import inf, sqrt

import pytest
import torch

import pyro_dgm as dgm
from pyro_dgm.evaluation.estimate import (
    Estimate,
    Share,
    estimate_columns,
    estimated,
    pooled_degrees,
    share_of,
    sum_of_independent,
)

REPEATS = 4000
COVERAGE_ERROR = sqrt(0.95 * 0.05 / REPEATS)  # 0.0034


def terms(num: int, generator: torch.Generator) -> torch.Tensor:
    """Draws `(num, 30)` around the means 0, …, 29 of thirty data, with unit noise."""
    return torch.arange(30.0) + torch.randn(num, 30, generator=generator)


def test_several_draws_give_the_standard_error_about_the_mean_of_these_data():
    """500 repetitions; the relative error of a standard deviation is 1/sqrt(1000) = 0.032."""
    generator = torch.Generator().manual_seed(0)
    found = [estimated(terms(3, generator)) for _ in range(500)]
    spread = torch.tensor([f.value for f in found]).std()
    stated = torch.tensor([f.stderr for f in found]).square().mean().sqrt()
    assert abs(stated / spread - 1) < 5 * 0.032
    assert abs(spread / (1 / 90) ** 0.5 - 1) < 5 * 0.032


def test_one_draw_for_each_datum_gives_an_upper_bound():
    found = estimated(terms(1, torch.Generator().manual_seed(0)))
    assert found.stderr > (1 / 30) ** 0.5


def test_the_error_of_a_single_number_is_unknown():
    found = estimated(torch.ones(1, 1))
    assert found.value == 1.0
    assert found.stderr != found.stderr


def test_it_prints_both():
    assert str(Estimate(2.0, 0.25)) == "2.000 ± 0.250"


def test_an_estimate_is_a_row_and_two_columns_of_its_owners_table():
    found = Estimate(0.5, 0.1)
    row = {"value": 0.5, "stderr": 0.1, "degrees": inf}
    assert found.to_dataframe().to_dict("records") == [row]
    assert estimate_columns({"auc": found, "num": 9}) == {"auc": 0.5, "auc_stderr": 0.1, "num": 9}


def share_covered(estimates, truth: float, level: float = 0.95) -> float:
    """How often the intervals hold the truth."""
    covered = [low <= truth <= high for low, high in (e.interval(level) for e in estimates)]
    return sum(covered) / len(covered)


@pytest.mark.parametrize("num", [2, 3, 5, 20])
def test_an_interval_of_few_data_holds_the_truth_as_often_as_it_says(num):
    """The normal quantile in place of Student's gives 0.70, 0.81, 0.88 and 0.935."""
    generator = torch.Generator().manual_seed(num)
    data = 3 + 2 * torch.randn(REPEATS, num, generator=generator)
    found = share_covered([estimated(x[None]) for x in data], truth=3)
    assert abs(found - 0.95) < 5 * COVERAGE_ERROR


def test_other_levels_hold_as_well():
    data = torch.randn(REPEATS, 3, generator=torch.Generator().manual_seed(0))
    found = share_covered([estimated(x[None]) for x in data], truth=0, level=0.5)
    assert abs(found - 0.5) < 5 * sqrt(0.25 / REPEATS)


def test_an_interval_of_several_draws_for_each_of_few_data_holds_the_truth():
    """Three draws for each of two data: four degrees of freedom, of which Welch's formula finds two to four."""
    noise = torch.randn(REPEATS, 3, 2, generator=torch.Generator().manual_seed(0))
    data = torch.tensor([0.0, 10.0]) + noise
    estimates = [estimated(x) for x in data]
    assert all(2 <= estimate.degrees <= 4 + 1e-9 for estimate in estimates)
    found = share_covered(estimates, truth=5)
    assert 0.95 - 5 * COVERAGE_ERROR < found < 0.98


def test_one_datum_that_alone_varies_gives_its_own_degrees_of_freedom():
    terms = torch.zeros(5, 4)
    terms[:, 0] = torch.arange(5.0)
    assert estimated(terms).degrees == pytest.approx(4)
    assert estimated(terms.fill_(1.0)) == Estimate(1.0, 0.0, degrees=16)


def test_the_sum_of_two_small_samples_of_unequal_spread_holds_the_truth():
    """Welch's interval; the normal quantile holds 0.90 of them."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(REPEATS, 5, generator=generator)
    y = 3 * torch.randn(REPEATS, 6, generator=generator)
    sums = [
        sum_of_independent(estimated(a[None]), estimated(b[None]))
        for a, b in zip(x, y, strict=True)
    ]
    found = share_covered(sums, truth=0)
    assert abs(found - 0.95) < 0.005 + 5 * COVERAGE_ERROR, "Welch is an approximation"


def test_degrees_of_a_sum_lie_between_the_smallest_and_the_sum():
    assert pooled_degrees([1.0, 1.0], [3, 3]) == pytest.approx(6)
    assert pooled_degrees([1.0, 1e-9], [3, 100]) == pytest.approx(3)
    assert pooled_degrees([1.0, 1.0], [inf, inf]) == inf
    assert pooled_degrees([0.0, 0.0], [3, 4]) == 7


def test_what_is_computed_of_an_estimate_keeps_its_degrees_of_freedom():
    found = Estimate(0.75, 0.1, degrees=4).scaled(-2, 1)
    assert (found.value, found.stderr, found.degrees) == (-0.5, 0.2, 4)
    assert dgm.results.GivenNLL(torch.tensor([1.0, 3.0])).estimate.degrees == 1


def test_a_single_number_has_no_interval_and_a_level_beyond_one_is_refused():
    low, high = estimated(torch.ones(1, 1)).interval()
    assert low != low
    assert high != high
    with pytest.raises(
        ValueError, match=r"level of confidence in \(0, 1\), got 95. Fix: level=0.95"
    ):
        Estimate(0.0, 1.0).interval(95)


@pytest.mark.parametrize("num", [2, 4, 10, 100])
def test_an_interval_of_a_share_holds_it_as_often_as_it_says(num):
    """By enumeration of all counts, on the mean over 0.1, …, 0.9: Student's holds 0.39, 0.70, 0.90 and 0.94."""
    shares = torch.linspace(0.1, 0.9, 81, dtype=torch.float64)
    counts = torch.arange(num + 1, dtype=torch.float64)
    masses = torch.distributions.Binomial(num, shares[:, None]).log_prob(counts).exp()
    ends = []
    for count in range(num + 1):
        is_true = (torch.arange(num) < count).double()
        ends.append(share_of(is_true).interval())
    low, high = torch.tensor(ends, dtype=torch.float64).T
    is_inside = (low <= shares[:, None]) & (shares[:, None] <= high)
    coverage = (masses * is_inside).sum(1)
    assert 0.93 < coverage.mean().item() < 0.99
    assert coverage.min().item() > 0.8


def test_what_is_computed_of_a_share_has_its_interval_mapped():
    share = Share(0.75, 0.1, degrees=9)
    low, high = share.interval()
    assert share.scaled(2, -1).interval() == pytest.approx((2 * low - 1, 2 * high - 1))
    assert share.scaled(2, -1).scaled(-1).interval() == pytest.approx((1 - 2 * high, 1 - 2 * low))
    with pytest.raises(ValueError, match=r"level of confidence in \(0, 1\), got 0"):
        share.interval(0)
