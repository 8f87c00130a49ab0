"""Experiments of other kinds than the digits: games, counts with a batch label, binary tables, densities."""

import json

import numpy as np
import pytest
import torch

from pyro_dgm.experiments.runs.run import load_run
from pyro_dgm.experiments.verbs.evaluating import evaluate
from pyro_dgm.experiments.verbs.fitting import fit, resume
from pyro_dgm.experiments.verbs.sampling import sample

pytestmark = pytest.mark.parametrize("dtype", ["float32"], indirect=True)

COMMON = {"epochs": 1, "device": "cpu", "progress": False}
SMALL = {"num": 20, "limit": 20}


def rows_of(folder):
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def test_a_game_is_judged_by_its_samples_beside_test_data(tmp_path):
    run = fit("ring_gan", seeds=2, evaluation={"limit": 60}, out=tmp_path / "run", **COMMON)
    for row in run.own_results:
        assert 0 <= row["c2st"] <= 1
        assert 0.2 < row["c2st_of_data"] < 0.8  # test data against test data
        assert "nll" not in row
    assert not (run.folder / "posterior.nc").exists()
    again = load_run(run.folder)
    assert not again.experiment.has_likelihood
    (row,) = evaluate(again, limit=60)[:1]
    assert row["c2st"] == run.own_results[0]["c2st"]  # seed 0 draws by seed 0 in both
    assert sample(again, num=7).shape == (7, 2)


@pytest.mark.slow
def test_a_game_is_resumed_to_the_end_of_one_that_was_not_stopped(tmp_path):
    options = {"evaluation": {"limit": 60}, "device": "cpu", "progress": False}
    straight = fit("ring_gan", seeds=2, epochs=2, out=tmp_path / "straight", **options)
    fit("ring_gan", seeds=2, epochs=1, out=tmp_path / "parts", **options)
    resumed = resume(tmp_path / "parts", epochs=2, device="cpu", progress=False)
    for one, other in zip(straight.programs.values(), resumed.programs.values(), strict=True):
        for name, tensor in one.state_dict().items():
            torch.testing.assert_close(other.state_dict()[name], tensor, rtol=1e-6, atol=1e-6)


def test_too_few_test_data_for_a_game_are_refused_before_it_is_played(tmp_path):
    with pytest.raises(ValueError, match="at least 24 test data to compare samples with, got 5"):
        fit("ring_gan", evaluation={"limit": 5}, out=tmp_path / "run", **COMMON)
    assert not (tmp_path / "run").exists()


def test_counts_with_a_batch_label_are_a_conditional_model(tmp_path):
    dice = np.random.default_rng(0)
    np.savez(tmp_path / "cells.npz", x=dice.poisson(3, (80, 5)), batch=dice.integers(0, 3, 80))
    run = fit(
        "counts",
        data=str(tmp_path / "cells.npz"),
        seeds=2,
        evaluation=SMALL,
        out=tmp_path / "run",
        **COMMON,
    )
    assert run.data.num_context == 3
    assert [row["nll_measure"] for row in run.own_results] == ["mass", "mass"]
    assert run.to_arviz(num=5, limit=4).posterior["z"].sizes["chain"] == 2
    assert sample(run, num=100).shape == (100, 5)  # more than there are test data


@pytest.mark.slow
def test_a_binary_table_is_read_from_a_csv(tmp_path):
    votes = (np.random.default_rng(0).random((60, 4)) < 0.3).astype(int)
    header = "a,b,c,d"
    np.savetxt(tmp_path / "votes.csv", votes, "%d", ",", header=header, comments="")
    run = fit(
        "binary_table",
        data=str(tmp_path / "votes.csv"),
        evaluation=SMALL,
        out=tmp_path / "run",
        **COMMON,
    )
    assert run.data.names == ["a", "b", "c", "d"]
    assert all(row["bits_per_dim"] > 0 for row in run.own_results)


def test_a_density_has_an_exact_likelihood_and_no_latents(tmp_path):
    x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    run = fit(
        model={"class_path": "Density", "init_args": {"layers": 1, "hidden": [8]}},
        data=str(tmp_path / "x.npy"),
        evaluation=SMALL,
        out=tmp_path / "run",
        **COMMON,
    )
    (row,) = run.own_results
    assert "exact" in row["nll_kind"]
    assert row["nll"] == pytest.approx(row["nelbo"])


def test_settings_of_python_are_those_of_a_file(tmp_path):
    run = fit(
        {"model": "VAE", "data": "Digits"},
        model={"latent": 3, "prior": {"class_path": "Mixture", "init_args": {"components": 2}}},
        seeds=[4],
        evaluation=SMALL,
        out=tmp_path / "run",
        **COMMON,
    )
    assert run.seeds == [4]
    assert rows_of(run.folder)[0]["seed"] == 4


@pytest.mark.slow
def test_evaluate_asks_further_questions_and_keeps_the_answers_apart(tmp_path):
    run = fit("digits", model={"latent": 2}, evaluation=SMALL, out=tmp_path / "run", **COMMON)
    (plain,) = evaluate(run, num=20, limit=20)
    (row,) = evaluate(run, num=20, limit=20, ais=3, surgery=True, check=False)
    assert row["nll"] == plain["nll"]
    assert row["ais_nll"] > 0
    parts = row["surgery_mutual_information"] + row["surgery_marginal_kl"]
    assert parts == pytest.approx(row["surgery_kl"], rel=1e-5)
    assert [r["command"] for r in rows_of(run.folder)] == ["fit", "evaluate", "evaluate"]
    (again,) = evaluate(run, num=20, limit=20, ais=3, surgery=True)
    assert again["time"] == row["time"]  # it was there already
