"""Seeds stand beside their runs, and differences have their errors."""

from dataclasses import dataclass
from math import sqrt

import numpy as np
import pytest

import pyro_dgm as dgm


@dataclass
class Compared:
    names: list[str]
    difference: np.ndarray
    difference_stderr: np.ndarray


def test_every_run_but_the_best_has_its_difference_and_two_standard_errors():
    found = Compared(["a", "b", "c"], np.array([0.0, 1.5, 4.0]), np.array([0.0, 0.5, 0.25]))
    ax = dgm.plots.paired(found)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["b", "c"]
    assert ax.lines[0].get_xdata().tolist() == [1.5, 4.0]
    (bars,) = ax.collections
    ends = [segment[:, 0].tolist() for segment in bars.get_segments()]
    assert ends == [[0.5, 2.5], [3.5, 4.5]]
    assert "NLL less that of a" in ax.get_title(loc="left")
    assert "nats per datum" in ax.get_xlabel()


def test_every_seed_has_a_point_with_its_error():
    rows = [{"nll": 90.0, "nll_stderr": 0.5}, {"nll": 92.0, "nll_stderr": 0.5}]
    ax = dgm.plots.spread({"flow": rows, "plain": rows[:1], "none": []})
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["flow", "plain"]
    assert ax.patches[0].get_x() == pytest.approx(91 - sqrt(2))
    assert ax.patches[0].get_width() == pytest.approx(2 * sqrt(2))
    with pytest.raises(ValueError, match=r"got none of \['flow'\]"):
        dgm.plots.spread({"flow": []})
