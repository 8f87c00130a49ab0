"""Rows of evidence: what is claimed, by which command, and how its figure is read from what that prints."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from .verdicts import verdict

NUMBER = r"[-−+]?\d[\d,]*\.?\d*(?:e[-+]?\d+)?"


@dataclass(frozen=True)
class Row:
    """A figure that is claimed, or was not reached.

    Attributes:
        part: heading on the page.
        what: is measured, with its unit.
        published: figure of others, the exact one, a bar (≤, ≥), or – for none.
        better: `lower`, `higher`, or `equal` to an exact figure; empty for bars and where there is none.
        source: of that figure.
        figure: ours; `None` where it was not run.
        error: its standard error; `None` where it has none.
        interval: around it, where the command prints one.
        over: what error or interval is over, and how many seeds.
        command: that prints the figure.
        prints: line with the figure.
        machine: a key of the machines.
        minutes: of CPU time, of the whole command; `None` where they were not recorded.
        day: of the measurement.
        smaller: what is smaller here than where the other figure is from; empty where nothing is.
        missed: why the published figure is not reached; empty where it is.
    """

    part: str
    what: str
    published: str
    better: str
    source: str
    figure: float | None
    error: float | None
    interval: list[float] | None
    over: str
    command: str
    prints: str
    machine: str
    minutes: float | None
    day: str
    smaller: str = ""
    missed: str = ""

    @property
    def verdict(self) -> str:
        """By the rule of `claims/verdicts.py`."""
        return verdict(self.published, self.better, self.figure, self.error, self.smaller)

    @property
    def ours(self) -> str:
        """The figure with its error and its interval."""
        if self.figure is None:
            return "not run"
        figure, error = f"{self.figure:g}", ""
        if self.error is not None:
            decimals = max(_decimals(self.figure), _decimals(self.error))
            figure, error = f"{self.figure:.{decimals}f}", f" ± {self.error:.{decimals}f}"
        if self.interval is not None:
            error += f" [{self.interval[0]:g}, {self.interval[1]:g}]"
        return (figure + error).replace("-", "−")


def _decimals(number: float) -> int:
    return len(f"{number:g}".partition(".")[2])


def counted(command: str) -> dict[str, int]:
    """How many seeds, splits and rounds a command asks for, by the names of its options."""
    found = {}
    for name in ("seeds", "splits", "rounds"):
        match = re.search(rf"--{name}[= ](\[[^]]*\]|\d+(?: \d+)*)", command)
        if match:
            words = re.findall(r"\d+", match[1])
            is_list = match[1].startswith("[") or name == "splits"
            found[name] = len(words) if is_list else int(words[0])
    return found


def recounted(over: str, command: str) -> str:
    """What an error is over, with as many seeds, splits and rounds as the command asks for."""
    for name, num in counted(command).items():
        text = f"one {name[:-1]}" if num == 1 else f"{num} {name}"
        over = re.sub(rf"\b(?:\d+|one) {name[:-1]}s?\b", text, over)
    return over


@dataclass(frozen=True)
class Evidence:
    """Machines and rows by name, as they stand in the file."""

    machines: dict[str, str]
    rows: dict[str, Row]

    @classmethod
    def read(cls, path: Path) -> Evidence:
        found = yaml.safe_load(path.read_text())
        rows = {name: Row(**row) for name, row in found["rows"].items()}
        return cls(found["machines"], rows)

    def text(self) -> str:
        rows = {name: asdict(row) for name, row in self.rows.items()}
        content = {"machines": self.machines, "rows": rows}
        return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110)


def pattern(prints: str) -> re.Pattern[str]:
    """The line of a row as a regular expression."""
    found = re.escape(re.sub(r"\s+", " ", prints)).replace(r"\ ", r"\s+").replace("…", ".*?")
    for name in ("figure", "error", "low", "high"):
        found = found.replace(re.escape(f"{{{name}}}"), f"(?P<{name}>{NUMBER})")
    return re.compile(found.replace(re.escape("{skip}"), NUMBER))


Figures = tuple[float, float | None, list[float] | None]


def read_figure(row: Row, output: str) -> Figures:
    """Figure, error and interval in what a command has printed, to the decimals of the error's second digit."""
    matches = list(pattern(row.prints).finditer(output))
    if not matches:
        raise ValueError(f"evidence: expected a line {row.prints!r}, got\n{output[-2000:]}")
    numbers = {}
    for name, text in matches[-1].groupdict().items():
        numbers[name] = float(text.replace(",", "").replace("−", "-"))
    error = numbers.get("error")
    decimals = 4 if not error else max(0, 1 - int(f"{error:e}".split("e")[1]))
    interval = [numbers["low"], numbers["high"]] if "low" in numbers else None
    return (
        round(numbers["figure"], decimals),
        None if error is None else round(error, decimals),
        interval,
    )
