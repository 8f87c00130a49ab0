"""Twenty starts in one second: a directory each; and one owner where they name the same directory."""

import json
import os
import signal
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from datetime import datetime
from pathlib import Path

import pytest
import yaml

from pyro_dgm.experiments.cli.command_line import main
from pyro_dgm.experiments.runs import folders

pytestmark = [
    pytest.mark.slow,
    pytest.mark.parametrize("dtype", ["float32"], indirect=True),
]

NUM = 20
SHORT = [
    "--model.network.hidden=[8]",
    "--model.latent=2",
    "--data=Digits",
    "--epochs=2",
    "--batch_size=500",
    "--evaluation.num=5",
    "--evaluation.limit=5",
    "--device=cpu",
    "--quiet",
]


class Clock(datetime):
    """A clock that stands still, so that all starts are of one second."""

    @classmethod
    def now(cls, tz=None):
        return cls(2026, 1, 1)


def exit_codes_of(work: Callable[[int], None], said: Path) -> list[int]:
    """Exit codes of processes that begin at once; what each says is in a file by its number."""
    pids = []
    for number in range(NUM):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.kill(os.getpid(), signal.SIGSTOP)  # until all are there
                file = (said / f"said-{number}").open("w")
                with file, redirect_stdout(file), redirect_stderr(file):
                    work(number)
                code = 0
            except SystemExit as stopped:
                code = int(stopped.code or 0)
            finally:
                os._exit(code)
        pids.append(pid)
    for pid in pids:
        os.waitpid(pid, os.WUNTRACED)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


@pytest.fixture
def said(tmp_path, monkeypatch):
    """The folder of what processes say; everything is imported before they begin."""
    monkeypatch.chdir(tmp_path)
    main(["fit", *SHORT, f"--out={tmp_path / 'first'}"])
    (tmp_path / "said").mkdir()
    return tmp_path / "said"


def test_twenty_starts_in_one_second_have_a_directory_each(said, monkeypatch):
    monkeypatch.setattr(folders, "datetime", Clock)
    codes = exit_codes_of(lambda number: main(["fit", *SHORT, f"--seeds=[{number}]"]), said)
    assert codes == [0] * NUM
    runs = sorted(Path("runs").iterdir())
    assert len(runs) == NUM
    seeds = [yaml.safe_load((run / "config.yaml").read_text())["seeds"] for run in runs]
    assert sorted(seeds) == [[number] for number in range(NUM)]
    for run, (seed,) in zip(runs, seeds, strict=True):
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert [(row["seed"], row["epoch"]) for row in rows] == [(seed, 1), (seed, 2)]
        assert len((run / "results.jsonl").read_text().splitlines()) == 1


def test_of_twenty_owners_of_one_directory_one_trains_and_the_others_are_refused(said):
    codes = exit_codes_of(
        lambda number: main(["fit", *SHORT, f"--seeds=[{number}]", "--out=run"]), said
    )
    assert sorted(codes) == [0] + [2] * (NUM - 1)
    owner = codes.index(0)
    for number in range(NUM):
        told = (said / f"said-{number}").read_text()
        is_refused = "a folder that no other process writes to" in told or "holds a run" in told
        assert is_refused == (number != owner), told
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert [(row["seed"], row["epoch"]) for row in rows] == [(owner, 1), (owner, 2)]
