"""A run directory that is damaged in any file: harmless, or named with its file; never silently wrong, never raw."""

import contextlib
import io
import json
import random
import shutil
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from pyro_dgm.experiments.cli.command_line import main

pytestmark = [
    pytest.mark.slow,
    pytest.mark.parametrize("dtype", ["float32"], indirect=True),
]

NUM_CORRUPTIONS = 200
FLAGS = [
    "--model.network.hidden=[8]",
    "--model.latent=2",
    "--data=Digits",
    "--data.num_val=50",
    "--data.num_test=1600",
    "--epochs=2",
    "--evaluation.num=5",
    "--evaluation.limit=20",
    "--quiet",
    "--device=cpu",
]
TIMES = ("time", "seconds", "evaluation_seconds", "digest")  # the digest is one of the time, too


# -- what happens to a file --------------------------------------------------------------------------------
def truncate(path: Path, dice: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: dice.randrange(len(content))])


def flip_a_bit(path: Path, dice: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    path.write_bytes(content)


def overwrite_a_part(path: Path, dice: random.Random) -> None:
    content = bytearray(path.read_bytes())
    start = dice.randrange(len(content))
    part = dice.randbytes(min(64, len(content) - start))
    content[start : start + len(part)] = part
    path.write_bytes(content)


def swap_with_another(path: Path, dice: random.Random) -> None:
    root = path.parent if path.parent.name.startswith("run") else path.parent.parent
    others = sorted(p for p in root.rglob("*") if p.is_file() and p != path)
    shutil.copy(dice.choice(others), path)


def empty(path: Path, dice: random.Random) -> None:
    path.write_bytes(b"")


def delete(path: Path, dice: random.Random) -> None:
    path.unlink()


def put_something_foreign(path: Path, dice: random.Random) -> None:
    path.write_bytes(dice.choice([b"hello\n", b"\x00" * 100, b"{}", b"[1, 2]\n", b"PK\x03\x04"]))


def append(path: Path, dice: random.Random) -> None:
    path.write_bytes(path.read_bytes() + dice.choice([b"\n", b"x", b"{}\n", path.read_bytes()]))


def make_a_folder_of_it(path: Path, dice: random.Random) -> None:
    path.unlink()
    path.mkdir()


CORRUPTIONS = (
    truncate,
    flip_a_bit,
    overwrite_a_part,
    swap_with_another,
    empty,
    delete,
    put_something_foreign,
    append,
    make_a_folder_of_it,
)


# -- what a user then sees -----------------------------------------------------------------------------------
def command(*arguments: str) -> tuple[int, str]:
    """Exit code of a command, and all that it says of errors and warnings."""
    said = io.StringIO()
    code = 0
    with (
        warnings.catch_warnings(record=True) as caught,
        contextlib.redirect_stderr(said),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        warnings.simplefilter("always")
        try:
            main(list(arguments))
        except SystemExit as stopped:
            code = int(stopped.code or 0)
    told = [str(warning.message) for warning in caught]
    return code, "\n".join([said.getvalue(), *told])


def figures(row: dict) -> dict:
    return {name: value for name, value in row.items() if name not in TIMES}


def last_result(folder: Path) -> dict:
    return figures(json.loads((folder / "results.jsonl").read_text().splitlines()[-1]))


def metrics(folder: Path) -> list[dict]:
    return [
        figures(json.loads(line)) for line in (folder / "metrics.jsonl").read_text().splitlines()
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    code, said = command("fit", *FLAGS, f"--out={folder}")
    assert code == 0, said
    return folder


def judge(folder: Path, name: str, arguments: list[str], check: Callable[[Path], bool]) -> str:
    """What comes of a command: `harmless`, `named`, or how it breaks the promise."""
    try:
        code, said = command(*arguments)
    except Exception as error:  # it went past the command line
        return f"RAW {type(error).__name__}: {error}"
    if Path(name).name in said and (code == 0 or "Fix: " in said):
        return "named"
    if code == 0 and check(folder):
        return "harmless"
    return f"SILENTLY WRONG {said}" if code == 0 else f"UNNAMED {said}"


def test_every_corruption_is_harmless_or_named_with_its_file(whole, tmp_path):
    dice = random.Random(20)
    reference = tmp_path / "reference"
    shutil.copytree(whole, reference)
    evaluate = ["evaluate", str(reference), "--num=5", "--limit=20", "--device=cpu"]
    assert command(*evaluate)[0] == 0
    expected = last_result(reference)
    files = [path for path in whole.rglob("*") if path.is_file() and path.name != ".lock"]
    names = sorted(str(path.relative_to(whole)) for path in files)
    own = Path("weights") / "seed-0.safetensors"
    weights, rows = (whole / own).read_bytes(), metrics(whole)

    def ended_as_before(folder: Path) -> bool:
        return (folder / own).read_bytes() == weights and metrics(folder) == rows

    counts: Counter[str] = Counter()
    wrong: list[str] = []
    for number in range(NUM_CORRUPTIONS):
        name = names[number % len(names)]
        corrupt = dice.choice(CORRUPTIONS)
        folder = tmp_path / f"run{number}"
        shutil.copytree(whole, folder)
        corrupt(folder / name, dice)
        same_bytes = (folder / name).is_file() and (folder / name).read_bytes() == (
            whole / name
        ).read_bytes()
        evaluating = ["evaluate", str(folder), "--num=5", "--limit=20", "--device=cpu"]
        resuming = ["resume", str(folder), "--no-progress"]
        if number % 2 == 0:
            outcome = judge(folder, name, evaluating, lambda f: last_result(f) == expected)
        else:
            outcome = judge(folder, name, resuming, ended_as_before)
        kind = "untouched" if same_bytes else outcome
        counts[kind.split()[0]] += 1
        if outcome not in ("harmless", "named"):
            wrong.append(
                f"{corrupt.__name__} {name}, {evaluating[0] if number % 2 == 0 else 'resume'}: {outcome}"
            )
        shutil.rmtree(folder)
    print(f"{NUM_CORRUPTIONS} corruptions of {len(names)} files: {dict(counts)}")
    assert wrong == []
    assert counts["named"] >= NUM_CORRUPTIONS // 4
