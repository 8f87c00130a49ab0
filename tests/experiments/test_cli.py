"""The command line, from flags to the run directory and back."""

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
import torch
import yaml

from pyro_dgm.experiments.cli.command_line import main

SMALL = [
    "--model.network.hidden=[16]",
    "--model.latent=2",
    "--epochs=2",
    "--evaluation.num=20",
    "--evaluation.limit=30",
    "--device=cpu",
    "--quiet",
]
FILES = {
    "config.yaml",
    "environment.json",
    "metrics.jsonl",
    "results.jsonl",
    "checkpoints/seed-0.pt",
    "checkpoints/seed-0.pt.1",
    "weights/seed-0.safetensors",
    "scores/seed-0.npz",
    "digests.json",
    "samples.png",
    "reconstructions.png",
    "learning_curve.png",
    "posterior.nc",
}


pytestmark = pytest.mark.parametrize(
    "dtype", ["float32"], indirect=True
)  # torch's own default, as on a command line


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder, printed = tmp_path_factory.mktemp("runs") / "run", io.StringIO()
    with contextlib.redirect_stdout(printed):
        main(["fit", *SMALL, f"--out={folder}"])
    return folder, printed.getvalue()


@pytest.fixture
def run(trained, tmp_path):
    """A copy, for each test to change, and what was printed."""
    shutil.copytree(trained[0], tmp_path / "run")
    return tmp_path / "run", trained[1]


def test_fit_writes_the_run_directory_and_prints_the_table(run):
    folder, printed = run
    assert {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} == FILES
    for name in (
        "-ELBO",
        "NLL",
        "bits/dim",
        "effective sample size",
        "KL",
        "seconds",
        "parameters",
    ):
        assert name in printed
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    (results,) = records(folder)
    assert results["nll"] <= results["nelbo"]
    assert results["bits_per_dim"] == pytest.approx(results["nll"] / 64 / np.log(2))


def test_the_posterior_opens_in_arviz(run):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        import arviz

    posterior = arviz.from_netcdf(run[0] / "posterior.nc")
    assert dict(posterior.posterior["z"].sizes) == {
        "chain": 4,
        "draw": 50,
        "datum": 100,
        "latent": 2,
    }
    assert posterior.observed_data["x"].dims == ("datum", "pixel")


def records(folder):
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def test_evaluate_repeats_the_figures_of_fit_in_a_row_of_its_own(run, capsys):
    folder, _ = run
    main(["evaluate", str(folder), "--num=20", "--limit=30", "--device=cpu"])
    first, second = records(folder)
    assert (first["command"], second["command"]) == ("fit", "evaluate")
    assert first["nll"] == second["nll"]
    assert "NLL" in capsys.readouterr().out


def test_a_coarser_evaluation_leaves_the_result_of_the_run_alone(run):
    folder, _ = run
    (before,) = records(folder)
    main(["evaluate", str(folder), "--num=2", "--limit=5", "--seed=3", "--device=cpu"])
    first, found = records(folder)
    assert first == before
    assert (found["num"], found["limit"], found["noise"], found["num_test"]) == (2, 5, 3, 5)
    assert {"version", "time", "digest", "weights"} < set(found)


def test_a_picture_of_sample_leaves_that_of_fit_alone(run):
    folder, _ = run
    before = (folder / "samples.png").read_bytes()
    main(["sample", str(folder), "--num=3", "--device=cpu"])
    assert (folder / "samples.png").read_bytes() == before
    assert (folder / "sample.png").exists()


def test_the_seconds_are_those_of_all_epochs_of_a_resumed_run(run):
    folder, _ = run
    main(["resume", str(folder), "--epochs=3"])
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert records(folder)[-1]["seconds"] == sum(row["seconds"] for row in rows)


def test_sample_writes_as_many_data_as_asked(run):
    folder, _ = run
    main(["sample", str(folder), "--num=7", "--device=cpu"])
    samples = np.load(folder / "samples.npy")
    assert samples.shape == (7, 64)
    assert set(np.unique(samples)) <= set(range(17))


def test_the_recorded_configuration_repeats_the_run(run, tmp_path):
    folder, _ = run
    main(["fit", str(folder / "config.yaml"), f"--out={tmp_path / 'again'}", "--device=cpu"])
    assert records(folder)[0]["nll"] == records(tmp_path / "again")[0]["nll"]


@pytest.mark.slow
def test_two_epochs_and_two_more_are_four(run, tmp_path):
    folder, _ = run
    main(["resume", str(folder), "--epochs=4", "--device=cpu"])
    main(["fit", *SMALL, "--epochs=4", f"--out={tmp_path / 'four'}"])
    assert records(folder)[-1]["nll"] == records(tmp_path / "four")[0]["nll"]
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 4


def test_constructors_are_the_schema(tmp_path):
    config = {
        "model": {
            "class_path": "Composition",
            "init_args": {
                "vae": {
                    "class_path": "pyro_dgm.VAE",
                    "init_args": {
                        "prior": {
                            "class_path": "pyro_dgm.Flow",
                            "init_args": {
                                "base": {
                                    "class_path": "pyro_dgm.StandardNormal",
                                    "init_args": {"dim": 2},
                                },
                                "bijectors": {
                                    "class_path": "pyro_dgm.realnvp",
                                    "init_args": {"dim": 2, "layers": 2},
                                },
                            },
                        },
                        "likelihood": {
                            "class_path": "pyro_dgm.DiscretizedLogistic",
                            "init_args": {
                                "net": {
                                    "class_path": "pyro_dgm.MLP",
                                    "init_args": {"sizes": [2, 8, 128]},
                                },
                                "levels": 17,
                            },
                        },
                        "encoder": {
                            "class_path": "pyro_dgm.Conditional",
                            "init_args": {
                                "family": "pyro.distributions.Normal",
                                "net": {
                                    "class_path": "pyro_dgm.GatedMLP",
                                    "init_args": {"sizes": [64, 8, 4]},
                                },
                            },
                        },
                    },
                }
            },
        },
        "objective": {
            "class_path": "pyro_dgm.ELBO",
            "init_args": {
                "beta": {
                    "z": {"class_path": "pyro_dgm.LinearWarmup", "init_args": {"num_steps": 10}}
                }
            },
        },
        "epochs": 1,
        "evaluation": {"num": 10, "limit": 10},
    }
    path = tmp_path / "whole.yaml"
    path.write_text(yaml.safe_dump(config))
    main(["fit", str(path), f"--out={tmp_path / 'run'}", "--device=cpu"])
    recorded = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (
        recorded["model"]["init_args"]["vae"]["init_args"]["prior"]["class_path"] == "pyro_dgm.Flow"
    )
    assert recorded["data"]["class_path"].endswith("Digits")


def test_settings_of_the_default_experiment_do_not_leak_into_another_model(capsys):
    main(["fit", "--model=Density", "--print_config"])
    recorded = yaml.safe_load(capsys.readouterr().out)
    assert recorded["model"]["class_path"].endswith(".Density")
    assert "latent" not in recorded["model"]["init_args"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "nowhere"], "nowhere/config.yaml: expected a run directory with config.yaml"),
        (["fit", "--data=Idx", "--data.folder=nowhere"], "expected train-images-idx3-ubyte"),
        (["fit", "nowhere.yaml"], "nowhere.yaml"),
        (["fit", "--device=abacus"], "expected a device of this machine, got --device=abacus"),
        (["fit", "--epochs=0"], "fit: expected epochs >= 1, got 0. Fix: --epochs=100"),
        (["fit", "--evaluation.num=0"], "expected num >= 1, got 0"),
        (
            ["fit", "--evaluation.limit=0"],
            "limit: expected at least 2 test data, for a standard error, got 0",
        ),
        (["fit", "--model.latent=-1"], "fit: model.latent: StandardNormal: expected dim >= 1"),
        (["fit", "--trainer.lr=-1"], "fit: trainer.lr: SVITrainer: expected lr > 0, got -1"),
        (
            ["resume", "nowhere"],
            "nowhere: expected a run directory with config.yaml, got no folder. Fix",
        ),
    ],
)
def test_a_mistake_ends_in_one_message_and_no_traceback(
    arguments, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert "Traceback" not in printed


REFUSED = {
    "a model of other data": ["--model.likelihood=Bernoulli"],
    "a model that diverges in its first epoch": ["--trainer.lr=1e30", "--trainer.ema=null"],
    "a trainer that can't be built": ["--trainer.lr=-1"],
}


@pytest.mark.parametrize("flags", REFUSED.values(), ids=REFUSED)
def test_a_refused_fit_leaves_nothing_and_runs_once_it_is_mended(flags, tmp_path):
    out = tmp_path / "run"
    common = ["fit", "--epochs=1", "--evaluation.num=5", "--device=cpu", f"--out={out}"]
    with pytest.raises(SystemExit):
        main([*common, *flags])
    assert not out.exists()
    out.mkdir()
    with pytest.raises(SystemExit):
        main([*common, *flags])
    assert list(out.iterdir()) == []


def test_a_run_is_not_overwritten(run):
    with pytest.raises(SystemExit):
        main(["fit", *SMALL, f"--out={run[0]}"])


@pytest.mark.slow
def test_the_package_is_a_command_too():
    done = subprocess.run(
        [sys.executable, "-m", "pyro_dgm", "--help"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0
    assert "fit" in done.stdout


def test_a_run_without_weights_says_how_to_finish_it(run, capsys):
    (run[0] / "weights" / "seed-0.safetensors").unlink()
    with pytest.raises(SystemExit):
        main(["sample", str(run[0])])
    said = capsys.readouterr().err
    assert "none: its training did not end" in said
    assert f"Fix: pyro-dgm resume {run[0]}" in said


@pytest.mark.slow
def test_torchrun_trains_one_run_of_which_rank_zero_writes_the_files(tmp_path):
    """The figures are those that one process has on the weights of the run."""
    folder = tmp_path / "run"
    command = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "--"]
    command += [
        "pyro_dgm",
        "fit",
        *SMALL,
        "--evaluation.num=30",
        "--evaluation.limit=70",
        f"--out={folder}",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("-ELBO") == done.stdout.count("Run directory") == 1
    assert (folder / "posterior.nc").exists()
    main(["evaluate", str(folder), "--num=30", "--limit=70"])
    rows = records(folder)
    assert [row["command"] for row in rows] == ["fit", "evaluate"]
    assert rows[1]["nll"] == pytest.approx(rows[0]["nll"], rel=1e-6)
    epochs = (folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["epoch"] for row in epochs] == list(range(1, len(epochs) + 1))


def test_a_finished_run_is_resumed_into_its_evaluation_alone(run):
    folder = run[0]
    before = records(folder)
    (folder / "posterior.nc").unlink()
    main(["resume", str(folder)])
    assert records(folder) == before  # the same weights, evaluated in the same way
    assert (folder / "posterior.nc").exists()


def test_a_run_that_was_stopped_before_its_evaluation_is_evaluated(run):
    folder = run[0]
    (before,) = records(folder)
    (folder / "results.jsonl").unlink()
    main(["resume", str(folder)])
    assert records(folder)[0]["nll"] == before["nll"]


def test_fewer_epochs_than_the_run_has_are_refused(run, capsys):
    with pytest.raises(SystemExit):
        main(["resume", str(run[0]), "--epochs=1"])
    assert "expected more epochs than the 2 of the run, got 1" in capsys.readouterr().err


def test_the_table_says_how_many_draws_k_hat_needs(run, capsys):
    main(["evaluate", str(run[0]), "--num=20", "--limit=5", "--device=cpu"])
    main(["evaluate", str(run[0]), "--num=21", "--limit=5", "--device=cpu"])
    few, enough = capsys.readouterr().out.split("-ELBO")[-2:]
    assert "k-hat                      needs 21 draws or more (--num), got 20" in few
    assert "data with k-hat > 0.24" in enough


def test_abbreviated_flags_are_refused():
    with pytest.raises(SystemExit):
        main(["fit", "--epoch=1"])


def test_a_resume_without_its_checkpoint_names_the_one_before(run, capsys):
    folder, _ = run
    (folder / "checkpoints" / "seed-0.pt").unlink()
    with pytest.raises(SystemExit):
        main(["resume", str(folder), "--epochs=3"])
    said = capsys.readouterr().err
    assert "seed-0.pt: expected the checkpoint of the run, got none" in said
    before = folder / "checkpoints" / "seed-0.pt.1"
    assert f"Fix: go on from the one before it, {before}: mv {before} " in said


def test_a_resume_takes_no_other_settings(run, capsys):
    with pytest.raises(SystemExit):
        main(["resume", str(run[0]), "--epochs=3", "--batch_size=50"])
    assert "expected one of its flags, got --batch_size" in capsys.readouterr().err


@pytest.mark.slow
def test_the_configuration_of_a_resumed_run_begins_another_run_anew(run, tmp_path):
    folder, _ = run
    main(["resume", str(folder), "--epochs=3"])
    other = tmp_path / "other"
    main(["fit", str(folder / "config.yaml"), f"--out={other}"])
    rows = (other / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["epoch"] for row in rows] == [1, 2, 3]


# -- several seeds -----------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    folder, printed = tmp_path_factory.mktemp("runs") / "seeds", io.StringIO()
    with contextlib.redirect_stdout(printed):
        main(["fit", *SMALL, "--seeds=3", f"--out={folder}"])
    return folder, printed.getvalue()


@pytest.mark.slow
def test_each_of_several_seeds_is_as_if_alone(seeds, tmp_path):
    main(["fit", *SMALL, "--seeds=[1]", f"--out={tmp_path / 'one'}"])
    together = {row["seed"]: row["nll"] for row in records(seeds[0])}
    (alone,) = records(tmp_path / "one")
    assert list(together) == [0, 1, 2]
    assert together[1] == pytest.approx(alone["nll"], rel=1e-4)


def test_the_table_of_several_seeds_shows_their_spread(seeds):
    rows = records(seeds[0])
    values = [row["nll"] for row in rows]
    assert f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}" in seeds[1]


def test_seeds_are_chains_of_the_posterior(seeds):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        import arviz

    posterior = arviz.from_netcdf(seeds[0] / "posterior.nc")
    assert posterior.posterior["z"].sizes["chain"] == 3
    assert posterior.posterior["seed"].values.tolist() == [0, 1, 2]


@pytest.mark.slow
def test_seeds_that_were_stopped_at_other_epochs_go_on_to_the_same_end(seeds, tmp_path):
    folder = tmp_path / "stopped"
    shutil.copytree(seeds[0], folder)
    one = folder / "checkpoints" / "seed-1.pt"
    one.unlink()
    (folder / "checkpoints" / "seed-1.pt.1").rename(one)  # an epoch before the others
    (folder / "results.jsonl").unlink()
    main(["resume", str(folder)])
    again = {row["seed"]: row["nll"] for row in records(folder)}
    straight = {row["seed"]: row["nll"] for row in records(seeds[0])}
    assert again == pytest.approx(straight, rel=1e-4)


@pytest.mark.slow
def test_json_is_a_row_for_each_seed_and_nothing_else(tmp_path, capsys):
    main(["fit", *SMALL, "--seeds=2", "--json", f"--out={tmp_path / 'run'}"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["seed"] for row in rows] == [0, 1]


def test_what_a_run_was_made_with_is_written(run):
    found = json.loads((run[0] / "environment.json").read_text())
    assert found["packages"]["torch"] == torch.__version__
    assert found["data"]["num"] == {"train": 1347, "val": 150, "test": 300}
    assert len(found["data"]["fingerprint"]) == 64


@pytest.mark.slow
def test_a_request_to_end_leaves_a_checkpoint_and_says_how_to_go_on(tmp_path):
    folder = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "pyro_dgm",
        "fit",
        *SMALL,
        "--epochs=100000",
        f"--out={folder}",
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not (folder / "checkpoints" / "seed-0.pt").exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 143
    assert said.strip() == f"pyro-dgm fit: stopped. Go on: pyro-dgm resume {folder}"
