"""Rows of evidence: what is claimed, by which command, and how its figure is read from what that prints."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

NUMBER = r"[-−+]?\d[\d,]*\.?\d*(?:e[-+]?\d+)?"


@dataclass(frozen=True)
class Row:
    """A figure that is claimed, or was not reached.

    Attributes:
        part: heading on the page.
        what: is measured, with its unit.
        published: figure of others, the exact one or the bar.
        source: of that figure.
        figure: ours; `None` where it was not run.
        error: its standard error; `None` where it has none.
        over: what the error is over, and how many seeds.
        command: that prints the figure.
        prints: line with the figure.
        machine: a key of the machines.
        minutes: of CPU time, of the whole command.
        day: of the measurement.
        missed: why the published figure is not reached; empty where it is.
    """

    part: str
    what: str
    published: str
    source: str
    figure: float | None
    error: float | None
    over: str
    command: str
    prints: str
    machine: str
    minutes: float | None
    day: str
    missed: str = ""

    @property
    def ours(self) -> str:
        """The figure with its error."""
        if self.figure is None:
            return "not run"
        figure, error = f"{self.figure:g}", ""
        if self.error is not None:
            decimals = max(_decimals(self.figure), _decimals(self.error))
            figure, error = f"{self.figure:.{decimals}f}", f" ± {self.error:.{decimals}f}"
        return figure.replace("-", "−") + error


def _decimals(number: float) -> int:
    return len(f"{number:g}".partition(".")[2])


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
    for name, meaning in (
        ("figure", f"(?P<figure>{NUMBER})"),
        ("error", f"(?P<error>{NUMBER})"),
        ("skip", NUMBER),
    ):
        found = found.replace(re.escape(f"{{{name}}}"), meaning)
    return re.compile(found)


def read_figure(row: Row, output: str) -> tuple[float, float | None]:
    """Figure and error in what a command has printed, to the decimals of the error's second digit."""
    matches = list(pattern(row.prints).finditer(output))
    if not matches:
        raise ValueError(f"evidence: expected a line {row.prints!r}, got\n{output[-2000:]}")
    numbers = {}
    for name, text in matches[-1].groupdict().items():
        numbers[name] = float(text.replace(",", "").replace("−", "-"))
    error = numbers.get("error")
    decimals = 4 if not error else max(0, 1 - int(f"{error:e}".split("e")[1]))
    return round(numbers["figure"], decimals), None if error is None else round(error, decimals)
