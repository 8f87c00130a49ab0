"""Figures show the numbers that they are given."""

import subprocess
import sys
from math import sqrt

import pytest
import torch
from matplotlib.colors import to_hex
from scipy.stats import binom

import pyro_dgm as dgm
from pyro_dgm.evaluation.report.pictures import (
    BLUE,
    GREY,
    aggregate_figure,
    bound_figure,
    image_figure,
    khat_figure,
    rank_figure,
    unit_figure,
)


def heights(axes):
    return [patch.get_height() for patch in axes.patches]


def test_every_khat_is_counted_and_those_beyond_the_ends_in_the_outer_bars():
    khat = torch.tensor([-torch.inf, 0.1, 0.1, 0.9, torch.inf, torch.nan, 7.0, -3.0])
    (axes,) = khat_figure(khat, 0.7).axes
    found = heights(axes)
    assert sum(found) == pytest.approx(100)
    assert (found[0], found[-1]) == (25.0, 37.5)
    assert axes.lines[0].get_xdata()[0] == 0.7


def test_the_band_of_ranks_is_that_of_the_binomial_law():
    uniform = torch.rand(2000, 5, dtype=torch.float64)
    found = dgm.results.SBC(("a", "b", "c", "d", "e"), (uniform * 100).long(), uniform, 99)
    panels = rank_figure(found, [4, 0, 2, 1, 3]).axes
    assert [axes.get_title() for axes in panels[:5]] == ["e", "a", "c", "b", "d"]
    band, *bars = panels[0].patches
    low, high = (100 * q / 2000 for q in binom.interval(0.99, 2000, 1 / 20))
    assert band.get_y() == pytest.approx(low, abs=1e-9)
    assert band.get_y() + band.get_height() == pytest.approx(high, abs=1e-9)
    expected = torch.histc(uniform[:, 4], 20, 0, 1) / 20
    assert [bar.get_height() for bar in bars] == pytest.approx(expected.tolist())
    assert len(heights(panels[0])) == 21


def test_the_band_of_few_ranks_is_exact_where_no_normal_distribution_is_near():
    """Twenty data: no rank in a bar is well within the band, and five are not."""
    uniform = torch.rand(20, 1, dtype=torch.float64)
    found = dgm.results.SBC(("a",), (uniform * 100).long(), uniform, 99)
    band, *_ = rank_figure(found, [0]).axes[0].patches
    low, high = binom.interval(0.99, 20, 1 / 20)
    assert (low, high) == (0, 4)
    assert (band.get_y(), band.get_height()) == (0, 100 * 4 / 20)


def test_units_fall_and_idle_ones_are_grey():
    values, idle = torch.tensor([0.1, 3.0, 1.0]), torch.tensor([True, False, False])
    (axes,) = unit_figure(["a", "b", "c"], values, idle, "KL, nats").axes
    assert heights(axes) == pytest.approx([3.0, 1.0, 0.1])
    assert [to_hex(patch.get_facecolor()) for patch in axes.patches] == [BLUE, BLUE, GREY]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["b", "c", "a"]
    (axes,) = unit_figure(
        [""] * 50, torch.rand(50), torch.zeros(50, dtype=torch.bool), "KL, nats"
    ).axes
    assert len(heights(axes)) == 50


def test_bounds_are_points_over_the_diagonal_and_infinite_ones_are_left_out():
    per_datum, nelbo = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.5, 2.0, torch.inf])
    left, right = bound_figure(per_datum, nelbo).axes
    assert left.collections[0].get_offsets().tolist() == [[1.0, 1.5], [2.0, 2.0]]
    assert left.lines[0].get_slope() == 1
    assert sum(heights(right)) == 2
    left, _ = bound_figure(per_datum[2:], nelbo[2:]).axes
    assert len(left.collections[0].get_offsets()) == 0


def test_the_aggregate_is_shown_in_the_dims_that_differ_most():
    prior = torch.randn(500, 4)
    aggregate = torch.randn(500, 4) * torch.tensor([1.0, 1.0, 4.0, 1.0]) + torch.tensor(
        [0.0, 3.0, 0.0, 0.0]
    )
    (axes,) = aggregate_figure(aggregate, prior).axes
    assert {axes.get_xlabel(), axes.get_ylabel()} == {"z, dim 1", "z, dim 2"}
    assert [label.get_text() for label in axes.get_legend().get_texts()] == ["prior", "aggregate"]
    assert [len(points.get_offsets()) for points in axes.collections] == [500, 500]
    (axes,) = aggregate_figure(aggregate[:, :1], prior[:, :1]).axes
    assert axes.get_xlabel() == "z"
    width = axes.patches[0].get_width()
    assert sum(heights(axes)[:40]) * width == pytest.approx(1, abs=5 / sqrt(500))


@pytest.mark.parametrize(
    ("event", "shape", "drawn"), [((12,), (3, 4), (3, 4)), ((3, 2, 2), (3, 2, 2), (2, 2, 3))]
)
def test_images_are_drawn_in_order_on_one_scale(event, shape, drawn):
    images = torch.randint(256, (5, *event), dtype=torch.uint8)
    panels = image_figure(images, shape, list("abcde")).axes
    assert [axes.get_title() for axes in panels] == list("abcde")
    shown = torch.stack([torch.as_tensor(axes.images[0].get_array()) for axes in panels])
    assert shown.shape[1:] == drawn
    assert (shown.min(), shown.max()) == (0, 1)


@pytest.mark.slow
def test_pictures_leave_pyplot_alone():
    code = """
import sys, torch
from pyro_dgm.evaluation.report.pictures import khat_figure
khat_figure(torch.rand(9), 0.7)
sys.exit('matplotlib.pyplot' in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
