"""A file or a flag with one mistake: it runs, or its key is named in one line and in two seconds; nothing is called."""

import contextlib
import io
import json
import random
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pytest
import yaml

from pyro_dgm.experiments.cli.command_line import main

pytestmark = [
    pytest.mark.slow,
    pytest.mark.parametrize("dtype", ["float32"], indirect=True),
]

NUM_MUTATIONS = 300
SECONDS = 2.0  # of an answer, without what an epoch takes
SONG = """
from pathlib import Path

def sing(*_, **__):
    (Path(__file__).parent / "sang").touch()

class Bird:
    def __init__(self, *_, **__):
        sing()
"""
VAE = {
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
SHORT = {"epochs": 1, "batch_size": 500, "evaluation": {"num": 5, "limit": 5}, "seeds": 1}
DENSITY = {
    "model": {
        "class_path": "Density",
        "init_args": {
            "flow": "RealNVP",
            "layers": 2,
            "hidden": [8],
            "dequantizer": {
                "class_path": "FlowNoise",
                "init_args": {"flow": "RealNVP", "layers": 1, "features": 8},
            },
        },
    },
    "data": {"class_path": "Digits", "init_args": {"num_val": 50, "num_test": 1600}},
    "trainer": {"class_path": "pyro_dgm.SVITrainer", "init_args": {"lr": 0.001, "ema": 0.99}},
    **SHORT,
}
RING = {
    "model": {
        "class_path": "Generator",
        "init_args": {
            "latent": 2,
            "network": {"class_path": "Dense", "init_args": {"hidden": [8]}},
        },
    },
    "data": {"class_path": "Ring", "init_args": {"num_train": 500, "num_test": 100}},
    "adversarial": {
        "class_path": "Adversarial",
        "init_args": {
            "critic": {"class_path": "Dense", "init_args": {"hidden": [8]}},
            "game": "NonSaturating",
            "penalties": {"class_path": "R1", "init_args": {"gamma": 1.0}},
            "play": {
                "class_path": "Alternating",
                "init_args": {"generator": {"lr": 5e-4}, "critic": {"lr": 1e-3}},
            },
            "ema": 0.999,
        },
    },
    **SHORT,
    "evaluation": {"limit": 50},
}
TABLE = {
    "model": {
        "class_path": "VAE",
        "init_args": {
            "latent": 2,
            "network": {"class_path": "Dense", "init_args": {"hidden": [8]}},
            "prior": {"class_path": "Mixture", "init_args": {"components": 3}},
            "likelihood": "NegativeBinomial",
        },
    },
    "data": {"class_path": "File", "init_args": {"path": "counts.npz"}},
    "objective": {"class_path": "pyro_dgm.ELBO", "init_args": {"num_particles": 1}},
    **SHORT,
}
EXPERIMENTS = {"flow prior": VAE, "density": DENSITY, "ring": RING, "table": TABLE}
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


# -- as a file, or as a flag beside the file --------------------------------------------------------------------
def flag_of(plan: dict[str, Any], key: Key, dice: random.Random) -> str:
    """A flag with a mistake in its name or in its value."""
    path = [part for part in key if part not in NOT_NAMES]
    value: Any = dice.choice(
        (*VALUES, *CALLABLES, "nowhere/data.npz", "canary.py:sing", "nowhere.py:f")
    )
    if dice.random() < 0.4:
        path[-1] += dice.choice("xyz")
        value = outer_of(plan, key)[key[-1]]
    return f"--{'.'.join(path)}={value if isinstance(value, str) else json.dumps(value)}"


def run(arguments: list[str]) -> tuple[int, str]:
    """Exit code of `fit`, and what it says on the error stream."""
    said = io.StringIO()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stderr(said),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        try:
            main(["fit", *arguments, "--trust=canary", "--quiet", "--device=cpu"])
        except SystemExit as stopped:
            return int(stopped.code or 0), said.getvalue()
    return 0, said.getvalue()


def judge(arguments: list[str], key: Key) -> tuple[str, float]:
    """What comes of it: `ran`, `path` or `part` by what is named, or how it breaks the promise; and its seconds."""
    start = perf_counter()
    try:
        code, said = run(arguments)
    except Exception as error:  # it went past the command line
        return f"RAW {type(error).__name__}: {error}", 0.0
    seconds = perf_counter() - start
    if code == 0:
        return "ran", 0.0
    if "Traceback" in said or said.count("Fix:") != 1 or len(said.strip().splitlines()) != 1:
        return f"NOT ONE LINE WITH ONE FIX {said}", seconds
    if seconds > SECONDS:
        return f"SLOW {seconds:.1f} s {said}", seconds
    names = [name for name in key if name not in NOT_NAMES]
    if ".".join(names) in said:
        return "path", seconds
    is_named = any(name in said for name in (*names, *ADDED))
    return ("part" if is_named else f"UNNAMED {said}"), seconds


@pytest.fixture
def song(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module that the caller trusts, whose functions leave a file behind when they are called."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "canary.py").write_text(SONG)
    np.savez("counts.npz", x=np.random.default_rng(0).poisson(3.0, size=(300, 5)))
    yield tmp_path / "sang"
    sys.modules.pop("canary", None)


def test_every_mutation_runs_or_names_its_key_and_calls_nothing_of_another_kind(song, tmp_path):
    dice = random.Random(30)
    path = tmp_path / "plan.yaml"
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    slowest = 0.0
    for kind, experiment in EXPERIMENTS.items():
        path.write_text(yaml.safe_dump(experiment))
        assert run([str(path), f"--out={tmp_path / kind}"]) == (0, ""), kind  # it imports, too
    for number in range(NUM_MUTATIONS):
        plan = deepcopy(list(EXPERIMENTS.values())[number % len(EXPERIMENTS)])
        mutate: Callable[..., None] = dice.choice(MUTATIONS)
        key = dice.choice(list(keys_of(plan)))
        flags = [flag_of(plan, key, dice)] if dice.random() < 0.4 else []
        if not flags:
            mutate(plan, key, dice)
        path.write_text(yaml.safe_dump(plan))
        outcome, seconds = judge([str(path), *flags, f"--out={tmp_path / f'run{number}'}"], key)
        slowest = max(slowest, seconds)
        counts[outcome.split()[0]] += 1
        what = f"{flags or mutate.__name__} {'.'.join(key)} {path.read_text()}"
        if outcome not in ("ran", "path", "part"):
            wrong.append(f"{what}: {outcome}")
        if song.exists():
            wrong.append(f"{what}: CALLED")
            song.unlink()
    print(f"{NUM_MUTATIONS} mutations: {dict(counts)}, the slowest answer {slowest:.2f} s")
    assert not wrong, "\n\n".join(wrong)
    assert counts["ran"] < counts["path"] + counts["part"]
