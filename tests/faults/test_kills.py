"""A run that is killed at any moment goes on bit for bit, loses no row and leaves no file behind.

Every run is a fork of this process, so that nothing is imported or compiled twice. A third of them are killed after a
random time, a third between two calls of the operating system that write, a third in the middle of the bytes of a file.
"""

import json
import os
import random
import signal
import time
import traceback
from pathlib import Path

import pytest
import torch
from toys import same_toy_vae

import pyro_dgm as dgm
from pyro_dgm.experiments.cli.command_line import main
from pyro_dgm.files import writing
from pyro_dgm.files.records import read_records

pytestmark = [
    pytest.mark.slow,
    pytest.mark.parametrize("dtype", ["float32"], indirect=True),
]

NUM_KILLS = {
    "vae": 20,
    "compiled vae": 6,
    "game": 12,
    "command line": 12,
    "seeds": int(os.environ.get("PYRO_DGM_KILLS", 4)),
}
EPOCHS = 5
CALLS = ("replace", "fsync", "open")


# -- processes and their ends ----------------------------------------------------------------------------
def fork(work) -> int:
    """Run it in a child; its exit code is 0 where it came to its end."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def exit_code(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed_at_call(work, number: int):
    """Die at that call which writes."""
    seen = 0

    def counted(call):
        def function(*arguments, **options):
            nonlocal seen
            seen += 1
            if seen == number:
                die()
            return call(*arguments, **options)

        return function

    def run():
        for name in CALLS:
            setattr(os, name, counted(getattr(os, name)))
        work()

    return run


def killed_amid_bytes(work, number: int):
    """Die with half of the bytes of that file written."""
    seen, write = 0, writing._write_synced

    def half(path, content):
        nonlocal seen
        seen += 1
        if seen == number:
            write(path, bytes(content)[: len(content) // 2])
            die()
        write(path, content)

    def run():
        writing._write_synced = half
        work()

    return run


class Fate:
    """How runs of one kind die: measured on a run that lives."""

    def __init__(self, work, folder: Path, seed: str):
        self.random = random.Random(seed)
        start = time.monotonic()
        assert exit_code(fork(lambda: self._count(work, folder / "counts"))) == 0
        self.seconds = time.monotonic() - start
        self.calls, self.files = json.loads((folder / "counts").read_text())

    @staticmethod
    def _count(work, path):
        calls, files, write = 0, 0, writing._write_synced

        def counting(call):
            def function(*arguments, **options):
                nonlocal calls
                calls += 1
                return call(*arguments, **options)

            return function

        def counted_write(*arguments):
            nonlocal files
            files += 1
            write(*arguments)

        for name in CALLS:
            setattr(os, name, counting(getattr(os, name)))
        writing._write_synced = counted_write
        work()
        path.write_text(json.dumps([calls, files]))

    def strike(self, work, number: int) -> int:
        """Run it in a child and kill it; returns how it ended."""
        if number % 3 == 0:
            pid = fork(work)
            time.sleep(self.random.uniform(0.05, 0.9) * self.seconds)
            os.kill(pid, signal.SIGKILL)
            return exit_code(pid)
        if number % 3 == 1:
            return exit_code(fork(killed_at_call(work, self.random.randint(2, self.calls))))
        return exit_code(fork(killed_amid_bytes(work, self.random.randint(2, self.files))))


# -- trainers -----------------------------------------------------------------------------------------------
def data():
    generator = torch.Generator().manual_seed(5)
    return torch.randn(40, 3, generator=generator), torch.randn(9, 3, generator=generator)


def build_vae(**options):
    vae = same_toy_vae()
    optimizer = torch.optim.Adam(vae.parameters(), lr=1e-2)
    return dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide), optimizer, ema=0.9, **options)


def build_game():
    torch.manual_seed(1)
    generator = dgm.LatentVariableModel(dgm.StandardNormal(2), dgm.Normal(dgm.mlp(2, 6, 3)))
    return dgm.GANTrainer(generator, dgm.mlp(3, 6, 1), ema=0.9)


def build_compiled():
    trainer = build_vae(compile=True)
    trainer.fit(data()[0], epochs=1, batch_size=8, progress=False)
    return trainer


BUILDERS = {"vae": build_vae, "compiled vae": build_compiled, "game": build_game}


def outcome(trainer) -> dict:
    """All that a run leaves, but the time it took."""
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in trainer.history]
    return {"weights": trainer.module.state_dict(), "rows": rows, "steps": trainer.num_steps}


def same(one: dict, other: dict) -> bool:
    weights = one["weights"]
    equal = all(torch.equal(t, other["weights"][name]) for name, t in weights.items())
    return equal and (one["rows"], one["steps"]) == (other["rows"], other["steps"])


@pytest.mark.parametrize("kind", list(BUILDERS))
def test_a_killed_trainer_goes_on_bit_for_bit(kind, tmp_path):
    trainer = BUILDERS[kind]()
    start = tmp_path / "start.pt"
    BUILDERS["vae" if "vae" in kind else kind]().save(start)
    train, val = data()

    def run(folder: Path, result: Path):
        """From the checkpoint, where there is one, to the end."""
        checkpoint = folder / "run.pt"
        trainer.resume(checkpoint if checkpoint.exists() else start)
        left = EPOCHS - trainer.num_epochs
        if left:
            options = {"checkpoint": checkpoint, "checkpoint_every": 2, "progress": False}
            trainer.fit(train, None if kind == "game" else val, left, 8, seed=3, **options)
        else:
            trainer.state.deploy()
        torch.save(outcome(trainer), result)

    folder = tmp_path / "reference"
    folder.mkdir()
    fate = Fate(lambda: run(folder, tmp_path / "reference.pt"), tmp_path, kind)
    expected = torch.load(tmp_path / "reference.pt")
    died, number = 0, 0
    while died < NUM_KILLS[kind]:
        number += 1
        assert number <= 3 * NUM_KILLS[kind], "too many runs ended before they were killed"
        folder = tmp_path / f"run{number}"
        folder.mkdir()
        result = tmp_path / "found.pt"
        died += fate.strike(lambda: run(folder, result), number) == -signal.SIGKILL  # noqa: B023
        assert exit_code(fork(lambda: run(folder, result))) == 0  # noqa: B023
        assert same(torch.load(result), expected), f"kill {number}"
        assert sorted(p.name for p in folder.iterdir()) == ["run.pt", "run.pt.1"], f"kill {number}"
    print(f"{kind}: {died} killed in {number} runs, all went on bit for bit")


# -- the command line -----------------------------------------------------------------------------------------
FLAGS = [
    "--model.network.hidden=[16]",
    "--model.latent=2",
    "--data=Digits",
    "--data.num_val=50",
    "--data.num_test=1600",
    "--epochs=4",
    "--evaluation.num=5",
    "--evaluation.limit=20",
    "--device=cpu",
    "--quiet",
]


def run_command(folder: Path) -> None:
    if (folder / "config.yaml").exists():
        main(["resume", str(folder)])
    else:
        main(["fit", *FLAGS, f"--out={folder}"])


TIMES = ("time", "digest")


def read_run(folder: Path) -> dict:
    """What a run directory holds, but times."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    (results,) = read_records(folder / "results.jsonl")
    return {
        "weights": (folder / "weights" / "seed-0.safetensors").read_bytes(),
        "rows": [{k: v for k, v in row.items() if k != "seconds"} for row in rows],
        "results": {k: v for k, v in results.items() if "seconds" not in k and k not in TIMES},
        "files": sorted(str(path.relative_to(folder)) for path in folder.rglob("*")),
    }


def test_a_killed_command_goes_on_bit_for_bit(tmp_path):
    reference = tmp_path / "reference"
    run_command(reference)  # here, so that its imports are those of every fork
    expected = read_run(reference)
    assert len(expected["rows"]) == 4
    fate = Fate(lambda: run_command(tmp_path / "counted"), tmp_path, "command line")
    num, died, number = NUM_KILLS["command line"], 0, 0
    while died < num:
        number += 1
        assert number <= 3 * num, "too many runs ended before they were killed"
        folder = tmp_path / f"run{number}"
        died += fate.strike(lambda: run_command(folder), number) == -signal.SIGKILL  # noqa: B023
        assert exit_code(fork(lambda: run_command(folder))) == 0, f"kill {number}"  # noqa: B023
        assert read_run(folder) == expected, f"kill {number}"
    print(f"command line: {died} killed in {number} runs, all went on bit for bit")


# -- five seeds -----------------------------------------------------------------------------------------------
def run_seeds(folder: Path) -> None:
    if (folder / "config.yaml").exists():
        main(["resume", str(folder), "--quiet"])
    else:
        main(["fit", *FLAGS, "--seeds=5", f"--out={folder}"])


def table_of(folder: Path) -> dict:
    """What each seed found, to the rounding of graphs of fewer seeds, and how many epochs it has."""
    rows = read_records(folder / "results.jsonl")
    epochs = [
        json.loads(line)["seed"] for line in (folder / "metrics.jsonl").read_text().splitlines()
    ]
    found = {row["seed"]: pytest.approx(row["nll"], rel=1e-4) for row in rows}
    assert len(rows) == 5
    return {"nll": found, "epochs": {seed: epochs.count(seed) for seed in found}}


def test_a_killed_run_of_five_seeds_gives_the_same_table(tmp_path):
    run_seeds(tmp_path / "reference")
    expected = table_of(tmp_path / "reference")
    assert set(expected["epochs"].values()) == {4}
    fate = Fate(lambda: run_seeds(tmp_path / "counted"), tmp_path, "seeds")
    num, died, number = NUM_KILLS["seeds"], 0, 0
    while died < num:
        number += 1
        assert number <= 3 * num, "too many runs ended before they were killed"
        folder = tmp_path / f"run{number}"
        died += fate.strike(lambda: run_seeds(folder), number) == -signal.SIGKILL  # noqa: B023
        assert exit_code(fork(lambda: run_seeds(folder))) == 0, f"kill {number}"  # noqa: B023
        found = table_of(folder)
        assert {s: a.expected for s, a in found["nll"].items()} == expected["nll"], f"kill {number}"
        assert found["epochs"] == expected["epochs"], f"kill {number}"
    print(f"five seeds: {died} killed in {number} runs, the same table of all")
