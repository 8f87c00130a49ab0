"""The plan of a sweep: what is searched, in `sweep.json`, which every worker of the sweep agrees on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from random import Random
from secrets import token_hex
from typing import Any

from ...files.errors import FileError, named
from ...files.locking import locked
from ...files.reading import read_file
from ...files.writing import write_text
from .ranges import Range, Space, has_range

PLAN = "sweep.json"
LOCK = ".sweep.lock"
Settings = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What a sweep searches.

    Args:
        experiment: what the trials change, as YAML.
        space: setting → its values.
        num: trials in all; `None` for every combination.
        seed: of the draws.
        is_adaptive: whether a sampler chooses trials by those before.
        storage: digest of the URL of a database, which may hold a password; empty for a journal in the folder.
        name: of the study in a database of many.

    Raises:
        ValueError: for no trial, and for ranges or a sampler without a number of trials.
    """

    experiment: str
    space: Space
    num: int | None = None
    seed: int = 0
    is_adaptive: bool = False
    storage: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        if self.num is None and (self.is_adaptive or has_range(self.space)):
            ranges = [str(values) for values in self.space.values() if isinstance(values, Range)]
            got = f"the range {ranges[0]}" if ranges else "optuna"
            raise ValueError(
                f"sweep: expected a number of trials to draw, got {got} without one. Fix: --num=20."
            )
        if self.num is not None and (not isinstance(self.num, int) or self.num < 1):
            raise ValueError(f"num: expected 1 trial or more, got {self.num}. Fix: --num=20.")

    def trials(self) -> list[Settings]:
        """The settings of each trial, by its number: a function of plan and seed.

        Lists alone give every combination, or so many of them, each once; draws from ranges are independent. A larger
        `num` leaves the first ones as they are.
        """
        if not has_range(self.space):
            rows = product(*[values for values in self.space.values() if isinstance(values, list)])
            found = [dict(zip(self.space, row, strict=True)) for row in rows]
            if self.num is not None:
                Random(self.seed).shuffle(found)
            return found[: self.num]
        assert self.num is not None
        return [self._drawn(number) for number in range(self.num)]

    def _drawn(self, number: int) -> Settings:
        random = Random(f"{self.seed} {number}")
        found: Settings = {}
        for path, values in self.space.items():
            found[path] = (
                values.draw(random) if isinstance(values, Range) else random.choice(values)
            )
        return found

    def to_json(self) -> dict[str, Any]:
        """As it stands in `sweep.json`."""
        over: dict[str, Any] = {}
        for path, values in self.space.items():
            is_range = isinstance(values, Range)
            over[path] = vars(values) if is_range else values
        found = {**vars(self), "over": over}
        del found["space"]
        return found


@contextmanager
def agreeing(out: Path) -> Iterator[None]:
    """One worker of a sweep after the other; a worker that dies in it lets the next one in."""
    with named(out / LOCK, "write"), (out / LOCK).open("ab") as file, locked(file.fileno()):
        yield


def agree(plan: Plan, out: Path) -> Plan:
    """The plan of the sweep in a folder, which is this one: it is written by the first worker.

    Args:
        plan: what this worker was told. A larger number of trials becomes that of the sweep.
        out: the folder.

    Raises:
        FileError: for a folder that holds another sweep, or a damaged plan.
    """
    with named(out, "write"):
        out.mkdir(parents=True, exist_ok=True)
    with agreeing(out):
        if (out / PLAN).exists():
            found = _read(out)
            _compare(plan, found, out)
            nums = [num for num in (plan.num, found["num"]) if num is not None]
            plan = replace(plan, num=max(nums, default=None), name=found["name"])
            if plan.num == found["num"]:
                return plan
        else:
            plan = replace(plan, name=f"{out.resolve().name}-{token_hex(4)}")
        write_text(out / PLAN, f"{json.dumps(plan.to_json(), indent=1)}\n")
    return plan


def _read(out: Path) -> dict[str, Any]:
    what, fix = "the plan of a sweep", "another folder, --out=NEW"
    try:
        found = json.loads(read_file(out / PLAN, what, fix))
    except ValueError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(out / PLAN, what, "something else", fix) from None
    if not isinstance(found, dict) or not {"num", "name", "over"} <= set(found):
        raise FileError(out / PLAN, what, "something else", fix)
    return found


def _compare(plan: Plan, found: dict[str, Any], out: Path) -> None:
    own = json.loads(json.dumps(plan.to_json()))
    other = [name for name in own if name not in ("num", "name") and own[name] != found.get(name)]
    if (own["num"] is None) != (found["num"] is None):
        other.append("num")
    if other:
        name = other[0]
        raise FileError(
            out / PLAN,
            f"a sweep with the same {', '.join(other)}",
            f"one with {name} {_short(found.get(name))}, not {_short(own[name])}",
            "the command that the sweep was begun with, or another folder, --out=NEW",
        )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 100 else "that differs"
