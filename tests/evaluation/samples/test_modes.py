"""Mode coverage of samplers whose faults are known; floors and ceilings by enumeration and simulation."""

from itertools import product
from math import exp, isnan, log, sqrt

import pytest
import torch
from conftest import in_float64

import pyro_dgm as dgm
from pyro_dgm.evaluation.estimate import Share
from pyro_dgm.evaluation.samples.modes import expected_kl

CENTRES = torch.tensor(list(product(range(5), range(5)))).double()


def perfect(num_modes, num=2500):
    return CENTRES[torch.randint(num_modes, (num,))] + 0.05 * torch.randn(num, 2).double()


@pytest.mark.parametrize(("num_modes", "floor"), [(8, 0.0014), (25, 0.0049)])
def test_a_perfect_sampler_has_the_printed_floor_and_ceiling(num_modes, floor):
    """100 samplers of 2,500 samples; mean and claimed errors."""
    found = [
        dgm.mode_coverage(fake=perfect(num_modes), centres=CENTRES[:num_modes], sd=0.05)
        for _ in range(100)
    ]
    kl = torch.tensor([f.reverse_kl.value for f in found])
    share = torch.tensor([f.high_quality.value for f in found])
    assert all(f.captured == num_modes for f in found)
    assert found[0].ceiling == pytest.approx(1 - exp(-4.5))
    assert found[0].floor == pytest.approx(floor, abs=5e-5)
    assert abs(kl.mean() - found[0].floor) < 5 * kl.std() / 10
    assert abs(share.mean() - found[0].ceiling) < 5 * share.std() / 10
    claimed = torch.tensor([f.reverse_kl.stderr for f in found]).square().mean().sqrt()
    assert 0.7 < claimed / kl.std() < 1.5
    assert f"of {num_modes} modes" in str(found[0])
    assert "perfect 98.89%" in str(found[0])


@in_float64
def test_the_floor_is_the_sum_over_all_histograms():
    """Three modes, four samples: 81 equally probable assignments."""
    total = 0.0
    for drawn in product(range(3), repeat=4):
        share = torch.bincount(torch.tensor(drawn), minlength=3) / 4
        total += (torch.special.xlogy(share, share).sum().item() + log(3)) / 81
    assert expected_kl(3, 4) == pytest.approx(total, rel=1e-12)
    assert expected_kl(1, 10) == 0.0
    assert isnan(expected_kl(5, 0))


def test_the_floor_counts_the_high_quality_samples_alone():
    """100 samplers with equal shares, four fifths of whose 400 samples lie far from every mode."""
    far = CENTRES[:1].expand(320, 2) - 5
    fakes = [torch.cat([perfect(8, 80), far]) for _ in range(100)]
    found = [dgm.mode_coverage(fake=fake, centres=CENTRES[:8], sd=0.05) for fake in fakes]
    kl, floor = (
        torch.tensor(v) for v in zip(*((f.reverse_kl.value, f.floor) for f in found), strict=True)
    )
    assert found[0].floor == expected_kl(8, int(found[0].counts.sum()))
    assert floor.mean() > 0.04  # 7 / 160; of 400 samples it would be 0.009
    assert abs(kl.mean() - floor.mean()) < 5 * kl.std() / 10


def test_one_mode_costs_log_m():
    found = dgm.mode_coverage(fake=perfect(1), centres=CENTRES, sd=0.05)
    assert found.captured == 1
    assert found.reverse_kl.value == pytest.approx(log(25))


def test_samples_in_between_are_of_low_quality_and_capture_nothing():
    found = dgm.mode_coverage(fake=CENTRES + 0.5, centres=CENTRES, sd=0.05)
    assert (found.captured, found.high_quality.value) == (0, 0.0)
    assert isnan(found.reverse_kl.value)
    assert isnan(found.floor)


def test_three_sigma_is_still_of_high_quality():
    fake = torch.tensor([[0.1875], [0.25]])
    found = dgm.mode_coverage(fake=fake, centres=torch.zeros(1, 1), sd=0.0625)
    assert found.counts.tolist() == [1]
    assert found.high_quality == Share(0.5, sqrt(0.125), degrees=1)


def test_skewed_shares_have_the_spread_that_is_claimed():
    """200 samplers that prefer one of two modes by 9 to 1."""
    modes = [(torch.rand(300, 1) < 0.1).double() for _ in range(200)]
    found = [
        dgm.mode_coverage(fake=m, centres=torch.tensor([[0.0], [1.0]]), sd=0.1).reverse_kl
        for m in modes
    ]
    spread = torch.tensor([f.value for f in found]).std()
    assert torch.tensor([f.stderr for f in found]).mean() / spread == pytest.approx(1.0, abs=0.25)


def test_a_mode_without_width_and_other_shapes_are_refused():
    with pytest.raises(ValueError, match="mode_coverage: expected sd > 0, got 0. Fix: sd="):
        dgm.mode_coverage(fake=CENTRES, centres=CENTRES, sd=0)
    with pytest.raises(
        ValueError, match=r"mode_coverage: expected two samples .* got \(25, 2\), \(4, 3\)"
    ):
        dgm.mode_coverage(fake=torch.randn(4, 3), centres=CENTRES, sd=1.0)


def test_labels_of_a_classifier_count_like_samples_at_the_modes():
    drawn = torch.randint(25, (2500,))
    by_label, by_place = (
        dgm.diagnostics.label_coverage(labels=drawn.numpy(), num_modes=25),
        dgm.mode_coverage(fake=CENTRES[drawn], centres=CENTRES, sd=0.05),
    )
    assert torch.equal(by_label.counts, by_place.counts)
    assert by_label.reverse_kl == by_place.reverse_kl
    assert (by_label.high_quality.value, by_label.ceiling) == (1.0, 1.0)
    assert by_label.floor == expected_kl(25, 2500)


@pytest.mark.parametrize("labels", [[], [0, 4], [-1]])
def test_labels_beyond_the_classes_are_refused(labels):
    with pytest.raises(
        ValueError, match=r"label_coverage: expected labels 0, …, 3, got .*Fix: num_modes=M"
    ):
        dgm.diagnostics.label_coverage(labels=labels, num_modes=4)


def test_the_centres_are_named_and_labels_are_numbers():
    with pytest.raises(ValueError, match="mode_coverage: centres: expected finite values, got 50"):
        dgm.mode_coverage(fake=CENTRES, centres=CENTRES * torch.nan, sd=1.0)
    with pytest.raises(TypeError, match="label_coverage: labels: expected real numbers .*Fix: "):
        dgm.diagnostics.label_coverage(labels=["cat"], num_modes=4)


def test_a_coverage_is_a_table_of_one_row():
    found = dgm.mode_coverage(fake=CENTRES[:3], centres=CENTRES, sd=1.0)
    row = found.to_dataframe().iloc[0]
    assert (row["captured"], row["num_modes"], row["num"]) == (3, 25, 3)
    assert row["reverse_kl_stderr"] == found.reverse_kl.stderr
    assert row["floor"] == found.floor
