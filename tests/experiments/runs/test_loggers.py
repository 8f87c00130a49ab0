"""Loggers are told of steps, epochs and results, and can't end a run."""

from __future__ import annotations

import json
import sys

import pytest
import yaml
from tiny_experiment import EXPERIMENT, TRUST

import pyro_dgm as dgm
from pyro_dgm.experiments.cli.command_line import main
from pyro_dgm.inference.training.running import RunningMeans
from pyro_dgm.runs import Logger, PrintEvery

pytestmark = pytest.mark.parametrize("dtype", ["float32"], indirect=True)
OPTIONS = {"progress": False, "device": "cpu", "trust": TRUST}


class Notes(Logger):
    """Writes everything down."""

    def __init__(self):
        self.begun, self.steps, self.epochs, self.ended = [], [], [], []

    def begin(self, folder, config):
        self.begun.append((folder, config))

    def step(self, seed, num_step, terms):
        self.steps.append((seed, num_step, terms))

    def epoch(self, seed, row):
        self.epochs.append((seed, row))

    def end(self, results):
        self.ended.append(results)


class OnlyEpochs(Logger):
    """Has one method."""

    def __init__(self):
        self.epochs = []

    def epoch(self, seed, row):
        self.epochs.append(row["epoch"])


class Broken(Logger):
    """Fails at every call."""

    def epoch(self, seed, row):
        raise KeyError("broken")


def fit(out, **options):
    return dgm.runs.fit(EXPERIMENT, out=out, **{**OPTIONS, **options})


@pytest.mark.parametrize("seeds", [[4], pytest.param([4, 2], marks=pytest.mark.slow)])
def test_a_logger_is_told_of_all_that_happens(tmp_path, seeds):
    notes = Notes()
    run = fit(tmp_path / "run", loggers=[notes], seeds=seeds)
    ((folder, config),) = notes.begun
    assert folder == run.folder
    assert config == yaml.safe_load((folder / "config.yaml").read_text())
    for seed in seeds:
        own = [(num, terms) for of, num, terms in notes.steps if of == seed]
        assert [num for num, _ in own] == [1, 2, 3, 4, 5, 6]
        rows = [row for of, row in notes.epochs if of == seed]
        assert [row["epoch"] for row in rows] == [1, 2]
        for epoch, row in enumerate(rows):
            losses = [terms["loss"] for _, terms in own[3 * epoch : 3 * epoch + 3]]
            assert row["train_loss"] == pytest.approx(sum(losses) / 3, rel=1e-6)
    assert notes.ended == [run.own_results]


def test_a_run_with_a_logger_is_the_run_without_it(tmp_path):
    rows = []
    for loggers in ([], [Notes()]):
        run = fit(tmp_path / str(len(loggers)), loggers=loggers)
        history = run.history.to_dataframe().drop(columns="seconds")
        rows.append(history.to_dict())
    assert rows[0] == rows[1]


@pytest.mark.slow
def test_steps_of_a_resumed_run_are_counted_on(tmp_path):
    run, notes = fit(tmp_path / "run", epochs=1), Notes()
    resumed = dgm.runs.resume(run.folder, epochs=3, loggers=[notes], **OPTIONS)
    assert [num for _, num, _ in notes.steps] == [4, 5, 6, 7, 8, 9]
    assert resumed.history.num_epochs == 3


def test_nobody_reads_a_step_where_no_logger_takes_steps(tmp_path, monkeypatch):
    def refuse(self, on_step, num_steps):
        assert on_step is None
        return self

    monkeypatch.setattr(RunningMeans, "hand_over", refuse)
    logger = OnlyEpochs()
    fit(tmp_path / "run", loggers=[logger])
    assert logger.epochs == [1, 2]


def test_an_error_in_a_logger_is_a_warning_once_and_the_run_goes_on(tmp_path):
    notes = OnlyEpochs()
    with pytest.warns(UserWarning, match="logger Broken: .* got KeyError") as caught:
        run = fit(tmp_path / "run", loggers=[Broken(), notes])
    assert len([w for w in caught if "Broken" in str(w.message)]) == 1
    assert notes.epochs == [1, 2]
    assert run.own_results


def test_an_experiment_names_its_loggers_and_a_loaded_run_has_none(tmp_path, capsys):
    flags = ["--model=tiny_experiment.TinyVAE", "--data=tiny_experiment.TinyData"]
    flags += ["--epochs=2", "--evaluation.num=20", "--device=cpu", f"--out={tmp_path / 'run'}"]
    main(["fit", *flags, "--loggers=PrintEvery", "--loggers.epochs=2", "--json"])
    printed = capsys.readouterr()
    assert "seed 0  epoch 2" in printed.err
    assert "epoch 1" not in printed.err
    assert json.loads(printed.out)["seed"] == 0
    (logger,) = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["loggers"]
    assert logger["init_args"] == {"epochs": 2}
    assert "loggers" not in dgm.load_run(tmp_path / "run", TRUST).experiment.settings


@pytest.mark.parametrize("said", ["pyro_dgm.VAE", "NoLogger", "torch.nn.Linear"])
def test_what_is_no_logger_is_refused(tmp_path, said):
    with pytest.raises(ValueError, match="loggers"):
        dgm.runs.fit({**EXPERIMENT, "loggers": said}, out=tmp_path / "run", **OPTIONS)


def test_lines_need_an_epoch_or_more_between_them():
    with pytest.raises(ValueError, match="expected epochs of 1 or more"):
        PrintEvery(0)


def test_curves_are_written_for_tensorboard(tmp_path):
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = fit(tmp_path / "run", loggers=[dgm.runs.TensorBoard(steps=True)])
    found = reading.EventAccumulator(str(run.folder / "tensorboard" / "seed-0")).Reload()
    curve = [(event.step, event.value) for event in found.Scalars("epoch/val_nelbo")]
    expected = run.history["val_nelbo"][0]
    assert [step for step, _ in curve] == [1, 2]
    assert [value for _, value in curve] == pytest.approx(list(expected))
    assert [event.step for event in found.Scalars("step/loss")] == [1, 2, 3, 4, 5, 6]


def test_without_tensorboard_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match=r"pip install tensorboard\."):
        dgm.runs.TensorBoard()
