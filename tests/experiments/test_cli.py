"""The command line, from flags to the run directory and back."""

import json
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
import yaml

from pyro_dgm.experiments.cli import main
from pyro_dgm.files.errors import FileError
from pyro_dgm.files.manifest import Manifest

SMALL = [
    "--vae.hidden=16",
    "--vae.latent=2",
    "--epochs=2",
    "--num=20",
    "--limit=30",
    "--device=cpu",
]
FILES = {
    "config.yaml",
    "metrics.jsonl",
    "weights.safetensors",
    "checkpoint.pt",
    "checkpoint.pt.1",
    "digests.json",
    "results.jsonl",
    "results.json",
    "samples.png",
    "reconstructions.png",
    "learning_curve.png",
    "posterior.nc",
}


pytestmark = pytest.mark.parametrize(
    "dtype", ["float32"], indirect=True
)  # torch's own default, as on a command line


@pytest.fixture
def run(tmp_path, capsys):
    main(["fit", *SMALL, f"--out={tmp_path / 'run'}"])
    return tmp_path / "run", capsys.readouterr().out


def test_fit_writes_the_run_directory_and_prints_the_table(run):
    folder, printed = run
    assert {p.name for p in folder.iterdir()} == FILES
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
    results = json.loads((folder / "results.json").read_text())
    assert results["nll"] <= results["nelbo"]
    assert results["bits_per_dim"] == pytest.approx(results["nll"] / 64 / np.log(2))


def test_the_posterior_opens_in_arviz(run):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        import arviz

    posterior = arviz.from_netcdf(run[0] / "posterior.nc")
    assert dict(posterior.posterior["z"].sizes) == {
        "chain": 1,
        "draw": 200,
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
    before = (folder / "results.json").read_bytes()
    main(["evaluate", str(folder), "--num=2", "--limit=5", "--seed=3", "--device=cpu"])
    assert (folder / "results.json").read_bytes() == before
    found = records(folder)[1]
    assert (found["num"], found["limit"], found["seed"], found["num_test"]) == (2, 5, 3, 5)
    assert {"version", "time", "digest"} < set(found)


def test_a_picture_of_sample_leaves_that_of_fit_alone(run):
    folder, _ = run
    before = (folder / "samples.png").read_bytes()
    main(["sample", str(folder), "--num=3", "--device=cpu"])
    assert (folder / "samples.png").read_bytes() == before
    assert (folder / "sample.png").exists()


def test_the_seconds_are_those_of_all_epochs_of_a_resumed_run(run):
    folder, _ = run
    main(["fit", f"--out={folder}", "--resume=true", "--epochs=3"])
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    results = json.loads((folder / "results.json").read_text())
    assert results["seconds"] == sum(row["seconds"] for row in rows)


def test_sample_writes_as_many_data_as_asked(run):
    folder, _ = run
    main(["sample", str(folder), "--num=7", "--device=cpu"])
    samples = np.load(folder / "samples.npy")
    assert samples.shape == (7, 64)
    assert set(np.unique(samples)) <= set(range(17))


def test_the_recorded_configuration_repeats_the_run(run, tmp_path):
    folder, _ = run
    main(["fit", f"--config={folder / 'config.yaml'}", f"--out={tmp_path / 'again'}"])
    first, second = (
        json.loads((f / "results.json").read_text())["nll"] for f in (folder, tmp_path / "again")
    )
    assert first == second


def test_two_epochs_and_two_more_are_four(run, tmp_path):
    folder, _ = run
    main(["fit", f"--config={folder / 'config.yaml'}", "--resume=true", "--epochs=4"])
    main(["fit", *SMALL, "--epochs=4", f"--out={tmp_path / 'four'}"])
    first, second = (
        json.loads((f / "results.json").read_text())["nll"] for f in (folder, tmp_path / "four")
    )
    assert first == second
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 4


def test_constructors_are_the_schema(tmp_path):
    config = {
        "vae": {
            "class_path": "pyro_dgm.VAE",
            "init_args": {
                "prior": {
                    "class_path": "pyro_dgm.Flow",
                    "init_args": {
                        "base": {"class_path": "pyro_dgm.StandardNormal", "init_args": {"dim": 2}},
                        "bijectors": {
                            "class_path": "pyro_dgm.realnvp",
                            "init_args": {"dim": 2, "layers": 2},
                        },
                    },
                },
                "likelihood": {
                    "class_path": "pyro_dgm.DiscretizedLogistic",
                    "init_args": {
                        "net": {"class_path": "pyro_dgm.MLP", "init_args": {"sizes": [2, 8, 128]}},
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
        "num": 10,
        "limit": 10,
        "device": "cpu",
    }
    path = tmp_path / "whole.yaml"
    path.write_text(yaml.safe_dump(config))
    main(["fit", f"--config={path}", f"--out={tmp_path / 'run'}"])
    recorded = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert recorded["vae"]["init_args"]["prior"]["class_path"] == "pyro_dgm.Flow"
    assert recorded["data"]["class_path"].endswith("Digits")


def test_settings_of_the_default_recipe_do_not_leak_into_another(capsys):
    with pytest.raises(SystemExit):
        main(
            ["fit", "--vae=pyro_dgm.experiments.recipes.compositions.binary_vae", "--print_config"]
        )
    recorded = yaml.safe_load(capsys.readouterr().out)
    assert recorded["vae"]["init_args"] == {"dim": 784, "latent": 40, "hidden": 300}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "nowhere"], "nowhere/config.yaml: expected a run directory with config.yaml"),
        (["fit", "--data=Idx", "--data.folder=nowhere"], "expected train-images-idx3-ubyte"),
        (["fit", "--config=nowhere.yaml"], "nowhere.yaml"),
        (["fit", "--device=abacus"], "expected a device of this machine, got --device=abacus"),
        (["fit", "--epochs=0"], "epochs: expected at least 1, got 0"),
        (["fit", "--num=0"], "num: expected at least 1, got 0"),
        (["fit", "--limit=0"], "limit: expected at least 2 test data, for a standard error, got 0"),
        (["fit", "--vae.layers=-1"], "vae: "),
        (["fit", "--trainer.lr=-1"], "trainer: SVITrainer: expected lr >= 0, got -1"),
        (
            ["fit", "--resume=true", "--out=nowhere"],
            "expected a checkpoint to resume, got none in nowhere. Fix",
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
    "a model of other data": [
        "--vae=pyro_dgm.experiments.recipes.compositions.binary_vae",
        "--vae.dim=64",
    ],
    "a model that diverges in its first epoch": ["--trainer.lr=1e30", "--trainer.ema=null"],
    "a trainer that can't be built": ["--trainer.lr=-1"],
}


@pytest.mark.parametrize("flags", REFUSED.values(), ids=REFUSED)
def test_a_refused_fit_leaves_nothing_and_runs_once_it_is_mended(flags, tmp_path):
    out = tmp_path / "run"
    common = ["fit", "--epochs=1", "--num=5", "--limit=5", "--device=cpu", f"--out={out}"]
    with pytest.raises(SystemExit):
        main([*common, *flags])
    assert not out.exists()
    out.mkdir()
    with pytest.raises(SystemExit):
        main([*common, *flags])
    assert list(out.iterdir()) == []


def test_the_table_is_printed_before_anything_is_written_at_the_end(tmp_path, capsys, monkeypatch):
    write = Manifest.write

    def write_but_no_weights(manifest, name, content):
        if name == "weights.safetensors":
            raise FileError(manifest.folder / name, "room on the disk", "none", "free some space")
        write(manifest, name, content)

    monkeypatch.setattr(Manifest, "write", write_but_no_weights)
    with pytest.raises(SystemExit):
        main(["fit", *SMALL, f"--out={tmp_path / 'run'}"])
    printed = capsys.readouterr()
    assert "expected room on the disk, got none" in printed.err
    assert "-ELBO" in printed.out


def test_a_run_is_not_overwritten(run):
    with pytest.raises(SystemExit):
        main(["fit", *SMALL, f"--out={run[0]}"])


def test_the_package_is_a_command_too():
    done = subprocess.run(
        [sys.executable, "-m", "pyro_dgm", "--help"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0
    assert "fit" in done.stdout


def test_a_run_without_weights_says_how_to_finish_it(run, capsys):
    (run[0] / "weights.safetensors").unlink()
    with pytest.raises(SystemExit):
        main(["sample", str(run[0])])
    assert "its training did not end. Fix: --resume=true" in capsys.readouterr().err


@pytest.mark.slow
def test_torchrun_trains_one_run_of_which_rank_zero_writes_the_files(tmp_path):
    """The figures are those that one process has on the weights of the run."""
    folder = tmp_path / "run"
    command = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "--"]
    command += ["pyro_dgm", "fit", *SMALL, "--num=30", "--limit=70", f"--out={folder}"]
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
    results = json.loads((folder / "results.json").read_text())
    main(["evaluate", str(folder), "--num=30", "--limit=70"])
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert [row["command"] for row in rows] == ["fit", "evaluate"]
    assert rows[1]["nll"] == pytest.approx(results["nll"], rel=1e-6)
    epochs = (folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["epoch"] for row in epochs] == list(range(1, len(epochs) + 1))


def test_a_finished_run_is_resumed_into_its_evaluation(run, capsys):
    folder = run[0]
    before = json.loads((folder / "results.json").read_text())
    for name in ("results.json", "posterior.nc"):
        (folder / name).unlink()
    main(["fit", f"--out={folder}", "--resume=true"])
    assert json.loads((folder / "results.json").read_text())["nll"] == before["nll"]
    assert (folder / "posterior.nc").exists()


def test_fewer_epochs_than_the_run_has_are_refused(run, capsys):
    with pytest.raises(SystemExit):
        main(["fit", f"--out={run[0]}", "--resume=true", "--epochs=1"])
    assert "expected more epochs than the 2 of the run, got 1" in capsys.readouterr().err


def test_a_resume_with_another_model_is_refused_and_leaves_the_run_alone(run, capsys):
    before = (run[0] / "config.yaml").read_text()
    with pytest.raises(SystemExit):
        main(["fit", f"--out={run[0]}", "--resume=true", "--epochs=3", "--vae.latent=3"])
    assert "expected the run's own vae to resume it" in capsys.readouterr().err
    assert (run[0] / "config.yaml").read_text() == before


@pytest.mark.parametrize("apart", [False, True])
def test_a_resume_needs_no_flag_twice(run, apart):
    flags = [f"--out={run[0]}", "--resume=true", "--epochs=3"]
    main(["fit", *(part for flag in flags for part in (flag.split("=") if apart else [flag]))])
    assert yaml.safe_load((run[0] / "config.yaml").read_text())["vae"]["init_args"]["latent"] == 2


def test_the_table_says_how_many_draws_k_hat_needs(run, capsys):
    main(["evaluate", str(run[0]), "--num=20", "--limit=5", "--device=cpu"])
    main(["evaluate", str(run[0]), "--num=21", "--limit=5", "--device=cpu"])
    few, enough = capsys.readouterr().out.split("-ELBO")[-2:]
    assert "k-hat                  needs 21 draws or more (--num), got 20" in few
    assert "data with k-hat > 0.24" in enough


def test_abbreviated_flags_are_refused():
    with pytest.raises(SystemExit):
        main(["fit", "--epoch=1"])


def test_a_resume_without_its_checkpoint_names_the_one_before(run, capsys):
    folder, _ = run
    (folder / "checkpoint.pt").unlink()
    with pytest.raises(SystemExit):
        main(["fit", f"--out={folder}", "--resume=true", "--epochs=3"])
    said = capsys.readouterr().err
    assert "checkpoint.pt: expected the checkpoint of the run, got none" in said
    before = folder / "checkpoint.pt.1"
    assert f"Fix: go on from the one before it, {before}: mv {before} " in said


@pytest.mark.parametrize("flag", ["--trainer.lr=0.5", "--seed=3", "--batch_size=50"])
def test_a_resume_with_other_settings_is_refused(flag, run, capsys):
    with pytest.raises(SystemExit):
        main(["fit", f"--out={run[0]}", "--resume=true", "--epochs=3", flag])
    name = flag.removeprefix("--").split("=")[0].split(".")[0]
    assert f"expected the run's own {name} to resume it" in capsys.readouterr().err


def test_the_configuration_of_a_resumed_run_begins_another_run_anew(run, tmp_path):
    folder, _ = run
    main(["fit", f"--out={folder}", "--resume=true", "--epochs=3"])
    other = tmp_path / "other"
    main(["fit", f"--config={folder / 'config.yaml'}", f"--out={other}"])
    rows = (other / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["epoch"] for row in rows] == [1, 2, 3]
