"""The public evidence: every row of `tutorials/evidence.yaml` by its command, and the page that is made of the rows.

    python tests/benchmarks/evidence.py                                   # the rows, and what their commands take
    python tests/benchmarks/evidence.py frey-standard --data FOLDER       # measure anew, beside the figure that stands
    python tests/benchmarks/evidence.py frey-standard --data FOLDER --write cpu
    python tests/benchmarks/evidence.py --page                            # the tables of tutorials/reproduce.md

A row says what its command prints: in `prints`, `{figure}` and `{error}` are the numbers that are read, `{skip}` is
another number, `…` is anything on that line; the last such line counts. Rows with one command are measured by one run.
`{low}` and `{high}` are an interval. `--write` puts figure, error, interval, how many seeds, splits and rounds the
command asks for, CPU minutes, day and machine (a key of `machines` in that file) into the rows, and writes the page
anew; whether a figure reaches the published one follows by `claims/verdicts.py`. `{data}` in a command is the folder of
data, `{out}` that of runs, which go on where they were: the minutes are then those of what was left.
"""

from __future__ import annotations

import argparse
import resource
import shlex
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from claims.page import written
from claims.rows import Evidence, Figures, Row, read_figure, recounted

ROOT = Path(__file__).parents[2]
ROWS = ROOT / "tutorials" / "evidence.yaml"
PAGE = ROOT / "tutorials" / "reproduce.md"


def words_of(command: str, data: Path, out: Path) -> list[list[str]]:
    """The programs of a command, one after the other."""
    filled = command
    for name, folder in (("{data}", data), ("{out}", out)):
        filled = filled.replace(name, shlex.quote(str(folder.resolve())))
    found = []
    for part in filled.split(" && "):
        first, *others = shlex.split(part)
        own = {"python": [], "pyro-dgm": ["-m", "pyro_dgm"]}
        found.append([sys.executable, *own[first], *others])
    return found


def run(command: str, data: Path, out: Path) -> tuple[str, float]:
    """What a command prints, which is shown as it comes, and its CPU minutes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    lines = []
    if "{out}" in command:
        out.mkdir(parents=True, exist_ok=True)
    for words in words_of(command, data, out):
        with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout or []:
                print(line, end="", flush=True)
                lines.append(line)
        if process.returncode != 0:
            raise RuntimeError(f"{shlex.join(words)} ended with {process.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return "".join(lines), seconds / 60


def compared(name: str, old: Row, new: Row) -> str:
    """Both figures, and their difference in standard errors where both have one."""
    text = f"{name}: {old.ours} stands, {new.ours} found, published {old.published}"
    if new.verdict:
        text = f"{text}: {new.verdict}"
    if old.figure is None or not (old.error or new.error):
        return text
    error = ((old.error or 0) ** 2 + (new.error or 0) ** 2) ** 0.5
    return f"{text}; {(new.figure - old.figure) / error:+.1f} standard errors"


def renewed(row: Row, figures: Figures, minutes: float) -> Row:
    """The row as it was measured now."""
    figure, error, interval = figures
    return replace(
        row,
        figure=figure,
        error=error,
        interval=interval,
        over=recounted(row.over, row.command),
        minutes=float(f"{minutes:.2g}"),
        day=datetime.now(UTC).date().isoformat(),
    )


def measured(evidence: Evidence, names: list[str], data: Path, out: Path) -> dict[str, Row]:
    """The named rows with the figures that their commands print now."""
    found = {}
    for command in dict.fromkeys(evidence.rows[name].command for name in names):
        output, minutes = run(command, data, out)
        for name in names:
            row = evidence.rows[name]
            if row.command == command:
                found[name] = renewed(row, read_figure(row, output), minutes)
                print(compared(name, row, found[name]), flush=True)
    return found


def listed(evidence: Evidence) -> str:
    """The rows with what their commands take."""
    lines = []
    for name, row in evidence.rows.items():
        minutes = "?" if row.minutes is None else f"{row.minutes:g}"
        lines.append(
            f"{name:<26}{minutes:>6} CPU min  {row.ours:<22} beside {row.published:<8} {row.verdict}"
        )
    return "\n".join(lines)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="row")
    parser.add_argument("--data", type=Path, default=ROOT / "data", help="folder of the data")
    parser.add_argument("--out", type=Path, default=ROOT / "runs", help="folder of the runs")
    parser.add_argument("--write", metavar="MACHINE", help="put what is found into the rows")
    parser.add_argument("--page", action="store_true", help="write the page anew")
    parser.add_argument("--rows", type=Path, default=ROWS, help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    evidence = Evidence.read(options.rows)
    unknown = sorted(set(options.names) - set(evidence.rows))
    if unknown or options.write not in (None, *evidence.machines):
        known = f"rows of {list(evidence.rows)}, machines of {list(evidence.machines)}"
        parser.error(f"expected {known}, got {unknown or options.write}")
    if not options.names and not options.page:
        print(listed(evidence))
    found = measured(evidence, options.names, options.data, options.out)
    if options.write:
        for name, row in found.items():
            evidence.rows[name] = replace(row, machine=options.write)
        options.rows.write_text(evidence.text())
    if options.write or options.page:
        page = options.rows.with_name(PAGE.name)
        page.write_text(written(page.read_text(), evidence))


if __name__ == "__main__":
    main()
