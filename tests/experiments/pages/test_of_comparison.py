"""Runs side by side: what is told apart by data and seeds, and what is not."""

from __future__ import annotations

from math import hypot, sqrt
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pages import Page, assert_offline
from trained_runs import TrainedRuns, few_digits, train_run, without

from pyro_dgm.experiments.pages.differences import differences_of
from pyro_dgm.experiments.pages.of_comparison import comparison_page

SECTIONS = [
    "Result",
    "Paired differences",
    "What to do next",
    "Stacking weights",
    "What differs",
    "Learning curves",
    "Samples",
    "Runs",
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    folder, data = tmp_path_factory.mktemp("compared"), few_digits(60)
    trained = {
        "small <a>": train_run(folder / "a", data, epochs=2, latent=2),
        "large": train_run(folder / "b", data, epochs=4, latent=6),
    }
    torch.set_default_dtype(before)
    return trained


def test_the_page_holds_every_section_and_is_offline(runs):
    (runs["large"].folder / "report.html").write_text("")
    text = comparison_page(TrainedRuns(runs), folder=runs["large"].folder.parent, num_samples=9)
    page = Page(text)
    assert_offline(text)
    assert page.headings == SECTIONS
    assert "Not shown" not in page.text
    assert len(page.alts) == 2 + 2 + 2
    assert "small &lt;a&gt;" in text
    assert 'href="b/report.html"' in text
    assert "model.latent" in page.text


def test_what_can_not_be_compared_is_said_in_a_line(runs):
    large = runs["large"]
    short = {
        seed: {name: v[:9] for name, v in own.items()} for seed, own in large.per_datum.items()
    }
    changed = {**runs, "large": without(large, per_datum=short)}
    text = comparison_page(TrainedRuns(changed), num_samples=4)
    assert text.count("Not shown: paired: expected the NLL of two or more runs on the same") == 2
    unknown = {**runs, "large": without(large, results=[], per_datum={})}
    assert "no seed has been evaluated" in comparison_page(TrainedRuns(unknown), num_samples=4)


def test_one_run_is_refused(runs):
    with pytest.raises(ValueError, match=r"two or more runs, got \['large'\].*compare_runs"):
        comparison_page(TrainedRuns({"large": runs["large"]}))


def run_of(nll_of_seeds, noise, error=0.2):
    """A run whose seeds have exact means, and per-datum values about them."""
    results = [
        {"seed": seed, "nll": nll, "nll_kind": "upper bound in expectation", "nll_measure": "mass"}
        for seed, nll in enumerate(nll_of_seeds)
    ]
    per_datum = {
        seed: {"nll": nll + noise, "nll_stderr": np.full(len(noise), error)}
        for seed, nll in enumerate(nll_of_seeds)
    }
    return SimpleNamespace(
        seeds=list(range(len(results))), results=results, per_datum=per_datum, folder="runs/x"
    )


def test_a_difference_has_the_errors_of_data_and_seeds_and_its_slack():
    rng = np.random.default_rng(0)
    common, own = 10 * rng.standard_normal(50), rng.standard_normal(50)
    best = run_of([90.0, 91.0, 92.0], common)
    other = run_of([95.0, 96.0, 97.0, 98.0], common + own - own.mean())
    (found,) = differences_of({"best": best, "other": other})
    assert (found.best, found.name) == ("best", "other")
    assert found.value == pytest.approx(96.5 - 91)
    assert found.stderr == pytest.approx(own.std(ddof=1) / sqrt(50))
    expected = hypot(1 / sqrt(3), np.std([95, 96, 97, 98], ddof=1) / sqrt(4))
    assert found.stderr_of_seeds == pytest.approx(expected)
    assert found.slack == pytest.approx(0.2**2 / 2)
    assert found.verdict == "yes"


def test_a_difference_within_the_spread_of_seeds_or_of_one_seed_is_none():
    zeros = np.zeros(20)
    wide = {"a": run_of([90.0, 94.0, 98.0], zeros), "b": run_of([91.0, 95.0, 99.0], zeros)}
    assert [found.verdict for found in differences_of(wide)] == ["no"]
    single = {"a": run_of([90.0], zeros), "b": run_of([99.0, 99.1], zeros)}
    assert [found.verdict for found in differences_of(single)] == ["unknown: one seed"]


def test_data_without_a_reliable_error_are_left_out_of_the_slack():
    runs = {"a": run_of([90.0, 91.0], np.zeros(4)), "b": run_of([95.0, 96.0], np.zeros(4))}
    for own in runs["b"].per_datum.values():
        own["nll_stderr"][:3] = np.nan
    assert differences_of(runs)[0].slack == pytest.approx(0.02)
