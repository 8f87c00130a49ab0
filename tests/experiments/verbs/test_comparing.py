"""Runs side by side: differences paired over the data, and the spread between seeds."""

import json

import numpy as np
import pytest

from pyro_dgm.experiments.runs.run import load_run
from pyro_dgm.experiments.verbs.comparing import compare
from pyro_dgm.experiments.verbs.evaluating import evaluate
from pyro_dgm.experiments.verbs.fitting import fit
from pyro_dgm.experiments.verbs.reporting import report

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("dtype", ["float32"], indirect=True)]

SMALL = {"latent": 2, "network": {"class_path": "Dense", "init_args": {"hidden": [8]}}}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three seeds, two seeds, and one."""
    parent = tmp_path_factory.mktemp("runs")
    for name, seeds, latent in (("a", 3, 2), ("b", 2, 4), ("c", 1, 4)):
        fit(
            "digits",
            epochs=1,
            seeds=seeds,
            model={**SMALL, "latent": latent},
            evaluation={"num": 25, "limit": 30},
            out=parent / name,
            device="cpu",
            progress=False,
        )
    return [parent / name for name in "abc"]


def test_the_best_is_first_and_every_figure_is_the_mean_of_its_seeds(runs):
    found = compare(*runs)
    assert list(found.nll) == sorted(found.nll)
    for row, name in enumerate(found.names):
        rows = load_run(runs["abc".index(name)]).own_results
        values = [row["nll"] for row in rows]
        assert found.nll[row] == pytest.approx(np.mean(values), rel=1e-6)
        assert found.num_seeds[row] == len(values)
        spread = np.std(values, ddof=1) if len(values) > 1 else np.nan
        assert found.between_seeds[row] == pytest.approx(spread, rel=1e-6, nan_ok=True)


def test_the_error_of_a_difference_is_paired_over_the_data_and_holds_both_spreads(runs):
    found = compare(runs[0], runs[1])
    best, other = (found.scores[name] for name in found.names)
    mean = {
        k: np.mean([s.per_datum.numpy() for s in v.values()], 0) for k, v in ((0, best), (1, other))
    }
    paired = mean[1] - mean[0]
    variance = paired.var(ddof=1) / len(paired)
    for scores in (best, other):
        of_seeds = np.array([score.mean for score in scores.values()])
        variance += of_seeds.var(ddof=1) / len(of_seeds)
    assert found.difference[1] == pytest.approx(paired.mean())
    assert found.difference_stderr[1] == pytest.approx(np.sqrt(variance))
    assert found.difference[0] == found.difference_stderr[0] == 0


def test_one_seed_is_said_to_say_nothing_of_the_spread(runs):
    assert "one seed says nothing of the spread between seeds" in str(compare(runs[1], runs[2]))
    assert "–" in str(compare(runs[1], runs[2]))


def test_bounds_that_may_be_loose_are_not_compared_without_a_word(runs):
    found = compare(runs[0], runs[1])
    assert found.unreliable.max() > 0.2
    assert "k-hat is high: these bounds may be loose" in str(found)


def test_the_table_of_arviz_is_that_of_the_first_seeds(runs):
    found = compare(runs[0], runs[1])
    table = found.elpd()
    for name in found.names:
        first = next(iter(found.scores[name].values()))
        assert table.loc[name, "elpd"] == pytest.approx(-float(first.per_datum.sum()), rel=1e-6)


def test_runs_of_other_test_data_are_refused(runs, tmp_path):
    with pytest.raises(ValueError, match="two or more runs, each once"):
        compare(runs[0])
    with pytest.raises(ValueError, match="two or more runs, each once"):
        compare(runs[0], runs[0])
    other = fit(
        "digits",
        epochs=1,
        model=SMALL,
        data={"num_val": 100},
        evaluation={"num": 25, "limit": 30},
        out=tmp_path / "other",
        device="cpu",
        progress=False,
    )
    with pytest.raises(
        ValueError, match="expected runs on the same data, got data with fingerprints"
    ):
        compare(runs[0], other)
    evaluate(runs[2], num=25, limit=20)
    with pytest.raises(ValueError, match="evaluated on the same test data"):
        compare(runs[0], runs[2])
    evaluate(runs[2], num=25, limit=30, seed=5)


def test_a_report_of_several_runs_is_one_page_beside_them(runs):
    path = report(*runs[:2])
    assert path == runs[0].parent / "comparison.html"
    page = path.read_text()
    assert "Paired differences" in page
    assert f"{compare(*runs[:2]).nll[0]:.2f}" in page


def test_a_report_of_one_run_stands_in_its_directory(runs):
    path = report(runs[0], num=30, limit=20)
    assert path == runs[0] / "report.html"
    assert "What to do next" in path.read_text()
    before = (runs[0] / "results.jsonl").read_text()
    assert [json.loads(line)["command"] for line in before.splitlines()] == ["fit"] * 3
