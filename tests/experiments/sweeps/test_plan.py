"""The trials of a plan, and how workers agree on it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pyro_dgm.experiments.sweeps.plan import PLAN, Plan, agree
from pyro_dgm.experiments.sweeps.ranges import Range
from pyro_dgm.files.errors import FileError

GRID = {"model.latent": [1, 2, 3], "trainer.lr": [0.1, 0.01]}
RANGES = {"model.latent": Range(1, 100), "trainer.lr": [0.1, 0.01]}


def test_lists_alone_are_every_combination_in_their_order():
    trials = Plan("", GRID).trials()
    assert [tuple(trial.values()) for trial in trials] == [
        *[(1, 0.1), (1, 0.01), (2, 0.1)],
        *[(2, 0.01), (3, 0.1), (3, 0.01)],
    ]


@pytest.mark.parametrize("space", [GRID, RANGES], ids=["lists", "ranges"])
def test_trials_are_a_function_of_plan_and_seed_and_more_leave_the_first_as_they_are(space):
    plan = Plan("", space, num=3, seed=1)
    assert plan.trials() == plan.trials()
    assert replace(plan, num=5).trials()[:3] == plan.trials()
    assert replace(plan, num=5, seed=2).trials() != replace(plan, num=5).trials()


def test_draws_of_lists_alone_are_each_combination_once():
    trials = Plan("", GRID, num=100).trials()
    assert len(trials) == 6
    assert len({tuple(trial.values()) for trial in trials}) == 6


@pytest.mark.parametrize(
    "plan", [lambda: Plan("", RANGES), lambda: Plan("", GRID, is_adaptive=True)]
)
def test_a_range_or_a_sampler_needs_a_number_of_trials(plan):
    with pytest.raises(ValueError, match=r"expected a number of trials.*Fix: --num=20"):
        plan()


def test_the_first_worker_writes_the_plan_and_the_next_one_has_it(tmp_path):
    first, second = agree(Plan("a", GRID), tmp_path), agree(Plan("a", GRID), tmp_path)
    assert first == second
    assert first.name.startswith(tmp_path.name)


def test_a_larger_number_of_trials_is_that_of_the_sweep_for_every_worker(tmp_path):
    agree(Plan("a", RANGES, num=3), tmp_path)
    assert agree(Plan("a", RANGES, num=8), tmp_path).num == 8
    assert agree(Plan("a", RANGES, num=3), tmp_path).num == 8


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (Plan("b", GRID, num=4), "experiment"),
        (Plan("a", {**GRID, "epochs": [1]}, num=4), "space|over"),
        (Plan("a", GRID, num=4, seed=1), "seed"),
        (Plan("a", GRID, num=4, is_adaptive=True), "is_adaptive"),
        (Plan("a", GRID), "num"),
    ],
)
def test_another_sweep_in_the_folder_is_refused_with_what_differs(tmp_path, other, what):
    agree(Plan("a", GRID, num=4), tmp_path)
    with pytest.raises(FileError, match=rf"a sweep with the same .*({what}).*Fix: .*--out=NEW"):
        agree(other, tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}"])
def test_a_damaged_plan_is_named(tmp_path, content):
    (tmp_path / PLAN).write_text(content)
    with pytest.raises(FileError, match=r"sweep\.json: expected the plan of a sweep"):
        agree(Plan("a", GRID), tmp_path)
