"""Workers that share a folder, are killed at any moment, and are started anew: nothing is lost, nothing done twice."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[2]
SWEEP = [
    *[sys.executable, "-m", "pyro_dgm", "sweep"],
    *["--model=tiny_experiment.TinyVAE", "--data=tiny_experiment.TinyData"],
    *["--trainer.lr=0.01", "--epochs=40", "--batch_size=5", "--evaluation.num=20"],
    *["--device=cpu", "--json", "--over.model.latent=1,2,3"],
]
OPTUNA = ["--over.trainer.lr=1e-3..1e-1:log", "--optuna", "--num=5"]

pytestmark = pytest.mark.slow


def start(out: Path, *flags: str) -> subprocess.Popen[str]:
    """A worker."""
    path = [str(TESTS), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(path)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*SWEEP, *flags, f"--out={out}"], env=environment, **pipes)


def finish(worker: subprocess.Popen[str]) -> list[dict]:
    """The table of a worker that comes to its end."""
    printed, said = worker.communicate(timeout=200)
    assert worker.returncode == 0, said
    return [json.loads(line) for line in printed.splitlines()]


def table(rows: list[dict]) -> list[dict]:
    """What does not depend on the folder."""
    return [{name: value for name, value in row.items() if name != "folder"} for row in rows]


def epochs_of(out: Path) -> dict[str, list[int]]:
    """The epochs of each trial, as they stand in its metrics."""
    found = {}
    for path in sorted(out.glob("trial-*/metrics.jsonl")):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        found[path.parent.name] = [row["epoch"] for row in rows]
    return found


def ended(out: Path) -> dict[str, bytes]:
    """What the trials that have ended have left; the best one's results come later."""
    folders = [path.parent for path in out.glob("trial-*/trial.json")]
    names = ("trial.json", "metrics.jsonl", "checkpoints/seed-0.pt")
    return {f"{f.name}/{name}": (f / name).read_bytes() for f in folders for name in names}


def num_in_the_middle(out: Path) -> int:
    """Trials that have a checkpoint, and have not ended."""
    checkpoints = out.glob("trial-*/checkpoints/seed-0.pt")
    return sum(not (path.parents[1] / "trial.json").exists() for path in checkpoints)


@pytest.mark.parametrize("flags", [[], OPTUNA], ids=["grid", "optuna"])
def test_a_sweep_whose_workers_are_killed_has_the_table_of_one_that_was_not(tmp_path, flags):
    if flags:
        pytest.importorskip("optuna")
    whole = finish(start(tmp_path / "whole", *flags))
    out, moments = tmp_path / "killed", random.Random(0)
    num_begun = 0
    for number in range(6):
        before = ended(out)
        worker = start(out, *flags)
        while not out.exists() and worker.poll() is None:
            time.sleep(0.01)
        if number % 2:
            time.sleep(moments.uniform(0, 2))
        while not number % 2 and not num_in_the_middle(out) and worker.poll() is None:
            time.sleep(0.005)
        worker.send_signal(signal.SIGKILL)
        worker.communicate()
        assert {name: ended(out)[name] for name in before} == before
        num_begun += num_in_the_middle(out)
    assert num_begun > 0, "no worker was killed in the middle of a trial"
    rows = finish(start(out, *flags))
    assert table(rows) == table(whole)
    assert epochs_of(out) == epochs_of(tmp_path / "whole")
    assert all(epochs == list(range(1, 41)) for epochs in epochs_of(out).values())
    results = list(out.glob("trial-*/results.jsonl"))
    assert [len(path.read_text().splitlines()) for path in results] == [1]


@pytest.mark.parametrize("flags", [[], OPTUNA], ids=["grid", "optuna"])
def test_workers_at_once_share_the_trials_and_each_is_done_by_one(tmp_path, flags):
    if flags:
        pytest.importorskip("optuna")
    workers = [start(tmp_path / "shared", *flags) for _ in range(3)]
    for worker in workers:
        finish(worker)
    rows = finish(start(tmp_path / "shared", *flags))
    num = 5 if flags else 3
    assert sorted(row["trial"] for row in rows) == list(range(num))
    assert list(epochs_of(tmp_path / "shared").values()) == num * [list(range(1, 41))]
    results = list((tmp_path / "shared").glob("trial-*/results.jsonl"))
    assert [len(path.read_text().splitlines()) for path in results] == [1]


def test_a_worker_that_is_asked_to_end_says_how_to_go_on(tmp_path):
    worker = start(tmp_path / "sweep")
    while not list((tmp_path / "sweep").glob("trial-*/checkpoints/seed-0.pt")):
        assert worker.poll() is None
        time.sleep(0.01)
    worker.send_signal(signal.SIGTERM)
    _, said = worker.communicate(timeout=60)
    assert worker.returncode == 143
    assert f"Go on: the same command with --out={tmp_path / 'sweep'}" in said
    assert not list((tmp_path / "sweep").glob("trial-*/.lock"))
    assert len(finish(start(tmp_path / "sweep"))) == 3
