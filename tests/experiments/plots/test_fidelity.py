"""k-hat with its thresholds; ranks in a band that an exact guide leaves in one of a hundred pictures."""

import numpy as np
import pytest
import torch
from reports import pair

import pyro_dgm as dgm
from pyro_dgm.diagnostics import khat_threshold
from pyro_dgm.experiments.plots.fidelity import _band, _ecdf_difference


def test_every_datum_has_a_point_and_the_title_counts_those_above_the_threshold():
    model, guide = pair(spread=0.3)
    result = dgm.nll(model, guide, model.data(40), num=100)
    ax = dgm.plots.khat(result)
    num_bad = int((result.khat > khat_threshold(100)).sum())
    points = [len(line.get_xdata()) for line in ax.lines[:2]]
    assert points == [40 - num_bad, num_bad]
    assert f"k̂ above 0.50: {num_bad} of 40 data" in ax.get_title(loc="left")
    assert ax.lines[2].get_ydata() == pytest.approx([khat_threshold(100)] * 2)


def test_infinite_khat_stands_at_the_edge():
    model, guide = pair()
    result = dgm.nll(model, guide, model.data(10), num=5)
    assert not result.khat.isfinite().any()
    heights = np.concatenate([line.get_ydata() for line in dgm.plots.khat(result).lines[:2]])
    assert set(heights) <= {-0.5, 1.5}


def test_an_exact_guide_stays_in_the_band_and_a_wrong_one_leaves_it():
    model, guide = pair()
    exact = dgm.plots.calibration(dgm.sbc(model, guide, num_data=400))
    assert "0 of 4 statistics leave" in exact.get_title(loc="left")
    model, guide = pair(spread=0.5)
    wrong = dgm.plots.calibration(dgm.sbc(model, guide, num_data=400))
    assert {"z[0]", "z[1]"} <= {text.get_text() for text in wrong.get_legend().get_texts()}


def test_the_band_is_left_as_often_as_it_says():
    """2,000 samples of 100 uniform numbers at a level of 5 %: the standard error is 0.5 %."""
    u = np.sort(np.random.default_rng(0).random((2000, 100)), axis=1)
    steps = np.arange(101) / 100
    distance = np.maximum(steps[1:] - u, u - steps[:-1]).max(1)
    assert abs((distance > _band(100, 0.05)).mean() - 0.05) < 5 * 0.005


def test_the_difference_is_that_of_the_empirical_distribution():
    grid, difference = _ecdf_difference(np.array([0.2, 0.6]))
    assert grid.tolist() == [0, 0.2, 0.2, 0.6, 0.6, 1]
    assert difference.tolist() == pytest.approx([0, -0.2, 0.3, -0.1, 0.4, 0])


def test_coverage_by_reference_points_is_shown_as_well():
    model, guide = pair()
    dgm.plots.calibration(dgm.tarp(model, guide, num_data=100))
    assert torch.get_default_dtype() is torch.float64
