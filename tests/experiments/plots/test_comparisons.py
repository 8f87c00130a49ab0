"""Differences are paired over the data, and seeds stand beside their runs."""

from math import sqrt

import pytest
import torch

import pyro_dgm as dgm
from pyro_dgm.results import GivenNLL


def test_differences_are_paired_over_the_data():
    common = 100 * torch.randn(50)
    noise = torch.randn(50)
    a = GivenNLL(common, measure="density")
    b = GivenNLL(common + 1 + 0.1 * noise, measure="density")
    found = dgm.plots.paired_differences({"b": b, "a": a})
    assert (found.best, found.names, found.num_data) == ("a", ("b",), 50)
    assert found.value[0] == pytest.approx((1 + 0.1 * noise).mean().item())
    assert found.stderr[0] == pytest.approx((0.1 * noise).std().item() / sqrt(50))


def test_the_picture_and_az_compare_agree():
    results = {"a": GivenNLL(torch.rand(40)), "b": GivenNLL(torch.rand(40) + 1)}
    found = dgm.plots.paired_differences(results)
    table = dgm.compare_elpd(results)
    assert found.value[0] == pytest.approx(-table.loc["b", "elpd_diff"] / 40)
    assert "nats per datum" in dgm.plots.paired(results).get_xlabel()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (GivenNLL(torch.rand(3)), "on the same data"),
        (GivenNLL(torch.rand(4), measure="density"), "measure"),
    ],
)
def test_what_can_not_be_compared_is_refused(other, message):
    with pytest.raises(ValueError, match=message):
        dgm.plots.paired({"a": GivenNLL(torch.rand(4), measure="mass"), "b": other})


def test_every_seed_has_a_point_with_its_error():
    rows = [{"nll": 90.0, "nll_stderr": 0.5}, {"nll": 92.0, "nll_stderr": 0.5}]
    ax = dgm.plots.spread({"flow": rows, "plain": rows[:1], "none": []})
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["flow", "plain"]
    assert ax.patches[0].get_x() == pytest.approx(91 - sqrt(2))
    assert ax.patches[0].get_width() == pytest.approx(2 * sqrt(2))
    with pytest.raises(ValueError, match=r"got none of \['flow'\]"):
        dgm.plots.spread({"flow": []})
