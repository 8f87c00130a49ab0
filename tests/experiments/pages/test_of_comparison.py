"""Runs side by side: what is told apart by data and seeds, and what is not; from run directories."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pages import Page, assert_offline
from trained_runs import compared, few_digits, fit_small, train_run

from pyro_dgm.experiments.pages.of_comparison import comparison_page
from pyro_dgm.experiments.pages.of_run import run_page
from pyro_dgm.experiments.verbs.comparing import compare

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
def comparison(tmp_path_factory):
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    folder, data = tmp_path_factory.mktemp("compared"), few_digits(60)
    runs = {
        "a <b>": train_run(folder / "a", data, seeds=(0, 1), epochs=2, latent=2),
        "large": train_run(folder / "large", data, seeds=(0, 1), epochs=4, latent=6),
    }
    torch.set_default_dtype(before)
    return compared(runs)


def test_the_page_holds_every_section_and_is_offline(comparison):
    folder = comparison.runs["large"].folder
    (folder / "report.html").write_text("")
    text = comparison_page(comparison, folder=folder.parent, num_samples=9)
    page = Page(text)
    assert_offline(text)
    assert page.headings == SECTIONS
    assert "Not shown" not in page.text
    assert len(page.alts) == 2 + 2 + 2
    assert "a &lt;b&gt;" in text
    assert 'href="large/report.html"' in text
    assert "model.latent" in page.text
    assert f"{comparison.nll[0]:.2f} ± {comparison.between_seeds[0]:.2f}" in page.text


@pytest.mark.slow
def test_run_directories_have_pages(tmp_path):
    runs = [fit_small(tmp_path / name, latent, 2) for name, latent in (("a", 2), ("b", 4))]
    text = run_page(runs[0], num=40, limit=20, num_simulated=40, num_samples=9)
    assert_offline(text)
    page = Page(text)
    assert "latent: 2" in page.text
    assert "fingerprint" in page.text
    assert 'href="weights/seed-' in text
    text = comparison_page(compare(*runs), num_samples=4)
    assert_offline(text)
    assert Page(text).headings == SECTIONS
    assert "Not shown" not in text


def told(comparison, **changes) -> str:
    """The text of the page of a comparison with other numbers."""
    return Page(comparison_page(replace(comparison, **changes), num_samples=1)).text


def test_a_difference_beyond_all_errors_prefers_a_run(comparison):
    text = told(
        comparison,
        difference=np.array([0.0, 5.0]),
        difference_stderr=np.array([0.0, 1.0]),
        unreliable=np.zeros(2),
        slack=np.full(2, 0.1),
    )
    best, other = comparison.names
    assert (
        f"{other} lies 5.00 nats per datum above {best}, beyond the errors of data and seeds: "
        f"prefer {best}" in text
    )


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"difference_stderr": np.array([0.0, 4.0])}, "within two standard errors: more seeds"),
        ({"num_seeds": np.array([2, 1])}, "one seed can't tell whether another would"),
        ({"slack": np.array([0.1, 6.0])}, "less than the slack of its estimate, 6.00"),
        ({"unreliable": np.array([0.0, 0.4])}, "but k-hat is high for 40% of its data"),
    ],
)
def test_what_a_difference_does_not_exceed_is_said(comparison, changes, says):
    right = {
        "difference": np.array([0.0, 5.0]),
        "difference_stderr": np.array([0.0, 1.0]),
        "unreliable": np.zeros(2),
        "slack": np.full(2, 0.1),
    }
    text = told(comparison, **{**right, **changes})
    assert says in text
    assert "prefer" not in text.split("What to do next")[2].split("Stacking")[0].replace(
        "before one is preferred", ""
    )
