"""Sweeps by Optuna: chosen by the trials before, in a storage that outlives its workers."""

from __future__ import annotations

import sys

import pytest
import torch
from tiny_experiment import EXPERIMENT, TRUST

import pyro_dgm as dgm
from pyro_dgm.experiments.sweeps.optuna_search import OptunaSearch
from pyro_dgm.experiments.sweeps.outcomes import Outcome
from pyro_dgm.experiments.sweeps.plan import Plan, agree
from pyro_dgm.experiments.sweeps.ranges import Range
from pyro_dgm.experiments.sweeps.search import next_trial
from pyro_dgm.files.errors import FileError

optuna = pytest.importorskip("optuna")
pytestmark = [
    pytest.mark.parametrize("dtype", ["float32"], indirect=True),
    pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning"),
]
SPACE = {"trainer.lr": Range(1e-3, 1.0, log=True), "model.latent": Range(1, 9), "epochs": [[1], 2]}
OVER = {"model.latent": "1..3", "trainer.lr": "1e-3..1e-1:log"}


def search_in(out, num=40, **options):
    plan = agree(Plan("", SPACE, num=num, is_adaptive=True, **options), out)
    return OptunaSearch(plan, out)


def sweep(out, **options):
    options = {"progress": False, "device": "cpu", "trust": TRUST, "evaluate_best": 0, **options}
    return dgm.runs.sweep(EXPERIMENT, over=OVER, out=out, optuna=True, epochs=1, **options)


def take_all(search, cost):
    """Settings of all trials, each told its cost."""
    found = []
    while True:
        with next_trial(search) as trial:
            if trial is None:
                return found
            found.append(trial.settings)
        search.tell(Outcome(trial.number, trial.settings, "val_nelbo", {"0": cost(trial.settings)}))


def test_settings_come_from_their_lists_and_ranges(tmp_path):
    for settings in take_all(search_in(tmp_path, num=12), lambda settings: 1.0):
        assert 1e-3 <= settings["trainer.lr"] <= 1.0
        assert settings["model.latent"] in range(1, 10)
        assert settings["epochs"] in ([1], 2)


def test_later_trials_are_better_than_random_ones(tmp_path):
    """The cost is |latent − 7|, of mean 22/9 and standard deviation 1.83 at random: of the last 20 trials far less."""
    found = take_all(search_in(tmp_path), lambda settings: abs(settings["model.latent"] - 7))
    costs = torch.tensor([abs(settings["model.latent"] - 7.0) for settings in found])
    assert costs[20:].mean() < 22 / 9 - 2.5 * 1.83 / 20**0.5


def test_trials_are_a_function_of_plan_and_seed(tmp_path):
    def cost(settings):
        return settings["trainer.lr"]

    first, again = [take_all(search_in(tmp_path / name, num=15), cost) for name in "ab"]
    other = take_all(search_in(tmp_path / "c", num=15, seed=1), cost)
    assert first == again
    assert first != other


def test_a_trial_whose_worker_has_died_is_gone_on_with_under_the_same_settings(tmp_path):
    with next_trial(search_in(tmp_path, num=2)) as lost:
        assert lost is not None  # its worker says nothing of it
    search = search_in(tmp_path, num=2)  # of another one
    with next_trial(search) as found:
        assert found == lost
        with next_trial(search_in(tmp_path, num=2)) as second:
            assert second.number == 1
            with next_trial(search_in(tmp_path, num=2)) as third:
                assert third is None


def test_a_trial_that_was_only_half_asked_for_is_replaced(tmp_path):
    search = search_in(tmp_path, num=1)
    search.study.ask()  # and its worker dies before it says for what
    with next_trial(search_in(tmp_path, num=1)) as found:
        assert found.number == 1
        assert set(found.settings) == set(SPACE)


def test_a_trial_that_has_ended_and_was_not_told_of_is_told(tmp_path):
    first = sweep(tmp_path, num=2)
    (name,) = optuna.get_all_study_names(storage_of(tmp_path))
    study = optuna.load_study(study_name=name, storage=storage_of(tmp_path))
    assert sorted(t.value for t in study.trials) == pytest.approx(sorted(first.value))
    (tmp_path / "optuna.log").write_bytes(without_last_line(tmp_path / "optuna.log"))
    again = sweep(tmp_path, num=2)
    assert list(again.value) == list(first.value)
    study = optuna.load_study(study_name=name, storage=storage_of(tmp_path))
    assert [t.state.name for t in study.trials] == ["COMPLETE", "COMPLETE"]


def storage_of(out):
    backend = optuna.storages.journal.JournalFileBackend(str(out / "optuna.log"))
    return optuna.storages.JournalStorage(backend)


def without_last_line(path):
    return b"".join(path.read_bytes().splitlines(keepends=True)[:-1])


@pytest.mark.slow
def test_a_database_is_shared_by_sweeps_in_several_folders(tmp_path):
    url = f"sqlite:///{tmp_path / 'sweeps.db'}"
    for name in "ab":
        found = sweep(tmp_path / name, num=2, storage=url)
        assert sorted(found.trials) == [0, 1]
        assert not (tmp_path / name / "optuna.log").exists()
    assert len(optuna.get_all_study_names(url)) == 2


def test_another_database_for_the_same_folder_is_refused(tmp_path):
    sweep(tmp_path / "a", num=1)
    with pytest.raises(FileError, match="storage"):
        sweep(tmp_path / "a", num=1, storage=f"sqlite:///{tmp_path / 'sweeps.db'}")


@pytest.mark.parametrize("url", ["nonsense", "sqlite:////no/such/folder/x.db", "nosuch://host/x"])
def test_a_storage_that_is_none_is_one_line_with_a_fix(tmp_path, url):
    with pytest.raises(ValueError, match=r"storage: expected the URL of a database.*Fix: "):
        sweep(tmp_path, num=1, storage=url)


def test_without_optuna_the_error_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r"pip install optuna\b"):
        sweep(tmp_path, num=1)
