"""A configuration with one mistake: it runs, or its key is named; no callable of another kind is called."""

import contextlib
import io
import random
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from pyro_dgm.experiments.cli.command_line import main

pytestmark = [
    pytest.mark.slow,
    pytest.mark.parametrize("dtype", ["float32"], indirect=True),
]

NUM_MUTATIONS = 300
SONG = """
from pathlib import Path

def sing(*_, **__):
    (Path(__file__).parent / "sang").touch()

class Bird:
    def __init__(self, *_, **__):
        sing()
"""
RECIPE = {
    "model": {
        "class_path": "VAE",
        "init_args": {
            "latent": 2,
            "network": {"class_path": "Dense", "init_args": {"hidden": [8], "gated": False}},
            "prior": {"class_path": "FlowPrior", "init_args": {"layers": 1, "hidden": [8]}},
            "likelihood": {"class_path": "DiscretizedLogistic", "init_args": {"min_scale": 0.1}},
        },
    },
    "data": {
        "class_path": "pyro_dgm.datasets.Digits",
        "init_args": {"num_val": 50, "num_test": 1600},
    },
    "objective": {"class_path": "pyro_dgm.ELBO", "init_args": {"num_particles": 1}},
    "trainer": {
        "class_path": "pyro_dgm.SVITrainer",
        "init_args": {
            "lr": 0.001,
            "clip": 10.0,
            "ema": 0.9,
            "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.001}},
        },
    },
    "epochs": 1,
    "batch_size": 100,
    "patience": 5,
    "evaluation": {"num": 5, "limit": 5},
    "seeds": [0],
}
VALUES = (-1, 0, 1.5, 1, float("nan"), float("inf"), "many", "", None, True, [], [1], {}, {"a": 1})
CALLABLES = (
    "canary.sing",
    "canary.Bird",
    "os.system",
    "subprocess.Popen",
    "builtins.eval",
    "torch.load",
    "torch.hub.load",
    "pyro_dgm.save_weights",
    "pyro_dgm.nll",
    "torch.nn.Linear",
    "pyro_dgm.StandardNormal",
    "torch.optim.Adam",
    "pyro_dgm.nowhere.Nothing",
    "not a path",
    "..",
)
ADDED = ("hidden", "betas", "lr", "nothing")
NOT_NAMES = ("class_path", "init_args")
Key = tuple[str, ...]


def keys_of(plan: dict[str, Any], above: Key = ()) -> Iterator[Key]:
    """Every key of a configuration, as its path."""
    for name, value in plan.items():
        yield (*above, name)
        if isinstance(value, dict):
            yield from keys_of(value, (*above, name))


def outer_of(plan: dict[str, Any], key: Key) -> dict[str, Any]:
    for name in key[:-1]:
        plan = plan[name]
    return plan


# -- one mistake each ---------------------------------------------------------------------------------------
def take_another_value(plan: dict[str, Any], key: Key, dice: random.Random) -> None:
    outer_of(plan, key)[key[-1]] = dice.choice(VALUES)


def take_another_callable(plan: dict[str, Any], key: Key, dice: random.Random) -> None:
    path = dice.choice(CALLABLES)
    argument = {"args": "touch sang", "command": "touch sang"}
    choices = [path, {"class_path": path}, {"class_path": path, "init_args": argument}]
    outer_of(plan, key)[key[-1]] = dice.choice(choices)


def misspell(plan: dict[str, Any], key: Key, dice: random.Random) -> None:
    outer = outer_of(plan, key)
    outer[key[-1] + dice.choice("xyz")] = outer.pop(key[-1])


def leave_out(plan: dict[str, Any], key: Key, dice: random.Random) -> None:
    outer_of(plan, key).pop(key[-1])


def add_one(plan: dict[str, Any], key: Key, dice: random.Random) -> None:
    outer_of(plan, key)[dice.choice(ADDED)] = dice.choice(VALUES)


def put_it_deeper(plan: dict[str, Any], key: Key, dice: random.Random) -> None:
    outer = outer_of(plan, key)
    outer[key[-1]] = {key[-1]: outer[key[-1]]}


MUTATIONS = (
    take_another_value,
    take_another_value,
    take_another_callable,
    take_another_callable,
    misspell,
    leave_out,
    add_one,
    put_it_deeper,
)


def run(path: Path, folder: Path) -> tuple[int, str]:
    """Exit code of `fit`, and what it says on the error stream."""
    said = io.StringIO()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stderr(said),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        try:
            main(["fit", str(path), f"--out={folder}", "--trust=canary", "--quiet"])
        except SystemExit as stopped:
            return int(stopped.code or 0), said.getvalue()
    return 0, said.getvalue()


def judge(path: Path, folder: Path, key: Key) -> str:
    """What comes of it: `ran`, `named`, or how it breaks the promise."""
    try:
        code, said = run(path, folder)
    except Exception as error:  # it went past the command line
        return f"RAW {type(error).__name__}: {error}"
    if code == 0:
        return "ran"
    named = any(name in said for name in (*key, *ADDED) if name not in NOT_NAMES)
    return "named" if named and "Traceback" not in said else f"UNNAMED {said}"


@pytest.fixture
def song(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module that the caller trusts, whose functions leave a file behind when they are called."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "canary.py").write_text(SONG)
    yield tmp_path / "sang"
    sys.modules.pop("canary", None)


def test_every_mutation_runs_or_names_its_key_and_calls_nothing_of_another_kind(song, tmp_path):
    dice = random.Random(30)
    keys = list(keys_of(RECIPE))
    path = tmp_path / "plan.yaml"
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    for number in range(NUM_MUTATIONS):
        mutate: Callable[..., None] = dice.choice(MUTATIONS)
        key = dice.choice(keys)
        plan = deepcopy(RECIPE)
        mutate(plan, key, dice)
        path.write_text(yaml.safe_dump(plan))
        outcome = judge(path, tmp_path / f"run{number}", key)
        counts[outcome.split()[0]] += 1
        if outcome not in ("ran", "named"):
            wrong.append(f"{mutate.__name__} {'.'.join(key)} {path.read_text()}: {outcome}")
        if song.exists():
            wrong.append(f"{mutate.__name__} {'.'.join(key)} {path.read_text()}: CALLED")
            song.unlink()
    print(f"{NUM_MUTATIONS} mutations: {dict(counts)}")
    assert wrong == []
    assert counts["ran"] < counts["named"]
