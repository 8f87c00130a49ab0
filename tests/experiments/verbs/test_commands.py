"""Verbs that are built from their signatures: by name, by place, quiet, and as JSON."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from tiny_experiment import EXPERIMENT, TRUST

import pyro_dgm as dgm
from pyro_dgm.experiments.cli.command_line import VERBS, main

pytestmark = pytest.mark.parametrize("dtype", ["float32"], indirect=True)
OPTIONS = {"progress": False, "device": "cpu", "trust": TRUST, "epochs": 1}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    out = tmp_path_factory.mktemp("commands")
    runs = [
        dgm.runs.fit(EXPERIMENT, out=out / name, seeds=[seed], **OPTIONS)
        for name, seed in [("a", 0), ("b", 1)]
    ]
    return [str(run.folder) for run in runs]


def said_by(capsys, *words):
    main(list(words))
    printed = capsys.readouterr()
    assert printed.err == ""
    return printed.out


def test_runs_are_compared_by_their_places(folders, capsys):
    expected = dgm.runs.compare(*folders, trust=TRUST)
    printed = said_by(capsys, "compare", *folders, "--trust=tiny_experiment")
    assert printed.rstrip() == str(expected).rstrip()


def test_a_table_is_rows_of_json(folders, capsys):
    printed = said_by(capsys, "compare", *folders, "--trust=tiny_experiment", "--json")
    assert {json.loads(line)["run"] for line in printed.splitlines()} == {"a", "b"}


def test_an_evaluation_is_quiet_and_json(folders, capsys):
    words = [
        "evaluate",
        folders[0],
        "--num=20",
        "--trust=tiny_experiment",
        "--device=cpu",
        "--json",
    ]
    assert json.loads(said_by(capsys, *words))["num_draws"] == 20


def test_recipes_lists_the_catalogue(capsys):
    printed = said_by(capsys, "recipes")
    assert "digits" in printed
    rows = [json.loads(line) for line in said_by(capsys, "recipes", "--json").splitlines()]
    assert [row["name"] for row in rows] == dgm.runs.recipes().names


def test_every_verb_has_help_on_one_screen(capsys):
    for verb in VERBS:
        with suppress(SystemExit):
            main([verb, "--help"])
        assert 5 <= len(capsys.readouterr().out.splitlines()) <= 50, verb
