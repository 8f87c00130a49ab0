"""Sweeps in one process: trials, their comparison by validation, and what goes wrong."""

from __future__ import annotations

import json
from math import isnan

import numpy as np
import pytest
from tiny_experiment import EXPERIMENT, TRUST

import pyro_dgm as dgm
from pyro_dgm.experiments.cli.command_line import main
from pyro_dgm.files.errors import FileError
from pyro_dgm.files.locking import owned

pytestmark = pytest.mark.parametrize("dtype", ["float32"], indirect=True)
GRID = {"model.latent": [1, 2], "trainer.lr": "1e-3,1e-1"}


def sweep(out, over=None, **options):
    options = {"progress": False, "device": "cpu", "trust": TRUST, **options}
    return dgm.runs.sweep(EXPERIMENT, over=over or GRID, out=out, **options)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    return sweep(tmp_path_factory.mktemp("one") / "sweep")


def rows_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def without_time(rows):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def test_trials_are_ranked_by_the_best_validation_epoch(done):
    assert len(done.trials) == 4
    assert done.is_complete
    for folder, value in zip(done.folders, done.value, strict=True):
        assert value == min(row["val_nelbo"] for row in rows_of(folder))
    assert list(done.value) == sorted(done.value)
    assert done.best == done.folders[0]


@pytest.mark.slow
def test_of_several_seeds_the_mean_counts(tmp_path):
    found = sweep(tmp_path, {"trainer.lr": [1e-3, 1e-1]}, seeds=2)
    for folder, value, spread in zip(found.folders, found.value, found.between_seeds, strict=True):
        rows = rows_of(folder)
        best = [min(r["val_nelbo"] for r in rows if r["seed"] == seed) for seed in (0, 1)]
        assert value == pytest.approx(np.mean(best))
        assert spread == pytest.approx(np.std(best, ddof=1))
    assert dgm.load_run(found.best, TRUST).seeds == [0, 1]


def test_the_test_data_are_scored_of_the_best_trial_alone(done):
    assert not isnan(done.nll[0])
    assert np.isnan(done.nll[1:]).all()
    assert [(folder / "results.jsonl").exists() for folder in done.folders] == [True] + 3 * [False]


def test_the_best_trial_ends_as_a_fit_of_its_settings_does(done, tmp_path):
    settings = {"model": {"latent": 0}, "trainer": {"lr": 0}}
    settings["model"]["latent"] = done.settings[0]["model.latent"]
    settings["trainer"]["lr"] = done.settings[0]["trainer.lr"]
    options = {"progress": False, "device": "cpu", "trust": TRUST}
    run = dgm.runs.fit(EXPERIMENT, out=tmp_path / "run", **settings, **options)
    assert without_time(rows_of(run.folder)) == without_time(rows_of(done.best))
    assert [done.nll[0]] == [row["nll"] for row in run.own_results]
    names = [{path.name for path in folder.iterdir()} for folder in (run.folder, done.best)]
    assert names[1] - names[0] == {"trial.json"}
    assert names[0] - names[1] == set()


def test_every_trial_is_a_run(done):
    for folder, own in zip(done.folders, done.settings, strict=True):
        run = dgm.load_run(folder, TRUST)
        assert run.seeds == [0]
        assert run.experiment.settings.model.init_args.latent == own["model.latent"]


@pytest.mark.slow
def test_so_many_of_the_best_are_scored_and_can_be_compared(tmp_path):
    found = sweep(tmp_path, evaluate_best=2)
    assert [isnan(value) for value in found.nll] == [False, False, True, True]
    compared = dgm.runs.compare(*found.folders[:2], trust=TRUST)
    assert compared.nll.min() == min(found.nll[:2])


def test_none_is_scored_where_none_is_asked_for(tmp_path):
    assert np.isnan(sweep(tmp_path, evaluate_best=0).nll).all()


def test_the_same_call_again_does_nothing_twice(done):
    before = {path: path.read_bytes() for path in sorted(done.folder.rglob("*")) if path.is_file()}
    again = sweep(done.folder)
    assert str(again) == str(done)
    after = {path: path.read_bytes() for path in sorted(done.folder.rglob("*")) if path.is_file()}
    assert before == after


@pytest.mark.slow
def test_the_same_plan_in_another_folder_has_the_same_table(tmp_path):
    over = {"model.latent": "1..3", "trainer.lr": "1e-3..1e-1:log"}
    first, second = [sweep(tmp_path / name, over, num=3) for name in "ab"]
    assert first.settings == second.settings
    assert list(first.value) == list(second.value)
    assert first.nll[0] == second.nll[0]


@pytest.mark.slow
def test_a_trial_that_another_process_has_is_left_to_it(tmp_path):
    (tmp_path / "trial-001").mkdir()
    with owned(tmp_path / "trial-001"):
        found = sweep(tmp_path)
    assert sorted(found.trials) == [0, 2, 3]
    assert not found.is_complete
    assert np.isnan(found.nll).all()
    assert "1 of 4 trials have not ended" in str(found)
    rest = sweep(tmp_path)
    assert sorted(rest.trials) == [0, 1, 2, 3]
    assert not isnan(rest.nll[0])


def test_a_trial_that_fails_is_noted_and_the_others_go_on(tmp_path):
    found = sweep(tmp_path, {"model.fails": [True, False]})
    assert list(found.trials) == [1, 0]
    assert isnan(found.value[1])
    assert "trial-000 failed: model: fails: expected false" in str(found)
    assert found.best.name == "trial-001"


@pytest.mark.parametrize("seeds", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore:seed 0. fit. expected finite losses")
@pytest.mark.filterwarnings("ignore:seed 1. fit. expected finite losses")
def test_numbers_that_are_not_finite_are_a_failure(tmp_path, seeds):
    found = sweep(tmp_path, {"model.scale": [1.0, 1e38]}, seeds=seeds)
    assert list(found.errors) == [1]
    assert found.best.name == "trial-000"


def test_an_error_of_every_trial_ends_the_sweep(tmp_path):
    with pytest.raises(ValueError, match="expected a trial that ends well, got 2 that fail"):
        sweep(tmp_path, model={"fails": True}, over={"model.latent": [1, 2]})


@pytest.mark.parametrize(
    ("over", "match"),
    [
        ({"model.latnt": [1, 2]}, "latnt"),
        ({"model.latent": [1, "many"]}, "latent"),
        ({"trainer.lr": [1e-3, "fast"]}, "lr"),
        ({"objective": ["pyro_dgm.ELBO", "pyro_dgm.Nothing"]}, "Nothing"),
    ],
)
def test_a_wrong_value_is_refused_before_the_first_trial(tmp_path, over, match):
    with pytest.raises(ValueError, match=match):
        sweep(tmp_path / "sweep", over)
    assert not (tmp_path / "sweep").exists()


def test_another_sweep_in_the_folder_is_refused(done):
    with pytest.raises(FileError, match="a sweep with the same experiment"):
        sweep(done.folder, epochs=3)


def test_a_storage_is_optuna_s(tmp_path):
    with pytest.raises(ValueError, match="expected a database for Optuna"):
        sweep(tmp_path, storage="sqlite:///x.db")


def test_the_table_has_a_column_for_each_setting(done):
    table = done.to_dataframe()
    assert list(table) == [
        *["trial", "model.latent", "trainer.lr", "val_nelbo"],
        *["between_seeds", "nll", "nll_stderr", "folder"],
    ]
    assert sorted(zip(table["model.latent"], table["trainer.lr"], strict=True)) == [
        *[(1, 1e-3), (1, 1e-1)],
        *[(2, 1e-3), (2, 1e-1)],
    ]


def flags_of_tiny():
    flags = ["--model=tiny_experiment.TinyVAE", "--data=tiny_experiment.TinyData"]
    return [*flags, "--trainer.lr=0.01", "--epochs=1", "--evaluation.num=20", "--device=cpu"]


def test_the_command_line_says_the_same(tmp_path, capsys):
    out = tmp_path / "sweep"
    flags = [*flags_of_tiny(), "--over.model.latent=1,2", "--over.batch_size", "20,60"]
    main(["sweep", *flags, f"--out={out}", "--quiet"])
    printed = capsys.readouterr()
    assert printed.err == ""
    assert f"{out}/trial-00" in printed.out
    assert "pyro-dgm fit" in printed.out
    main(["sweep", *flags, f"--out={out}", "--json"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 4
    assert {row["batch_size"] for row in rows} == {20, 60}


@pytest.mark.parametrize(
    ("flags", "match"),
    [
        ([], "expected one setting or more"),
        (["--over.model.latent=1,2", "--num=many"], "num: expected a whole number"),
        (["--over.model.latent=1..2"], "--num=20"),
        (["--over.model.latent=1,2", "--numm=3"], "numm"),
    ],
)
def test_a_wrong_command_is_one_line_with_a_fix(tmp_path, capsys, flags, match):
    with pytest.raises(SystemExit):
        main(["sweep", *flags_of_tiny(), *flags, f"--out={tmp_path / 'sweep'}"])
    said = capsys.readouterr().err
    assert match in said
    assert "Fix:" in said
    assert "Traceback" not in said


def test_the_help_fits_on_a_screen(capsys):
    main(["sweep", "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 40
    assert any("--over.trainer.lr=1e-4..1e-2:log" in line for line in lines)
