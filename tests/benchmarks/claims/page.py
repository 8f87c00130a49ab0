"""The part of `tutorials/reproduce.md` that is made of the rows."""

from __future__ import annotations

import re

from .rows import Evidence, Row
from .verdicts import RULE

MARK = "rows of evidence.yaml"
WORD = re.compile(r"(?:'[^']*'|\S)+")  # of a command; no line ends within quotes


def written(page: str, evidence: Evidence) -> str:
    """The page with tables and commands written anew, between their marks."""
    begin, end = f"<!-- {MARK} -->\n", f"<!-- end of {MARK} -->"
    before, rest = page.split(begin)
    _, after = rest.split(end)
    lines = ["## Rows", "", RULE, ""]
    for part in dict.fromkeys(row.part for row in evidence.rows.values()):
        lines += _table(part, evidence)
    missed, smaller = {}, {}
    for name, row in evidence.rows.items():
        if row.verdict in ("not reached", "not run"):
            missed[name] = row.missed
        elif row.verdict == "at smaller size":
            smaller[name] = row.smaller
    lines += _why("What was not reached", missed, evidence)
    lines += _why("As good, at smaller size", smaller, evidence)
    lines += ["## Commands", ""]
    for command in dict.fromkeys(row.command for row in evidence.rows.values()):
        lines += _command(command, evidence)
    return before + begin + "\n".join(lines) + "\n" + end + after


def _table(part: str, evidence: Evidence) -> list[str]:
    head = "| row | published, exact or bar | here | error over |"
    lines = [f"### {part}", "", head, "|---|---|---|---|"]
    for name, row in evidence.rows.items():
        if row.part == part:
            ours = row.ours if row.verdict in ("", row.ours) else f"{row.ours} ({row.verdict})"
            lines.append(f"| [{row.what}](#{name}) | {row.published} | {ours} | {row.over} |")
    return [*lines, ""]


def _why(title: str, reasons: dict[str, str], evidence: Evidence) -> list[str]:
    """The reasons of some rows, each with the rows that have it."""
    if not reasons:
        return []
    lines = [f"## {title}", ""]
    for why in dict.fromkeys(reasons.values()):
        lines.append(f"- {why[0].upper()}{why[1:]}:")
        rows = []
        for name, other in reasons.items():
            if other == why:
                row = evidence.rows[name]
                rows.append(f"  [{name}](#{name}), {row.ours} beside {row.published}")
        lines += [*(f"{row};" for row in rows[:-1]), f"{rows[-1]}."]
    return [*lines, ""]


def _command(command: str, evidence: Evidence) -> list[str]:
    """A command, with the rows that it prints, where their other figure is from, machine and time."""
    rows = {name: row for name, row in evidence.rows.items() if row.command == command}
    lines = []
    for name in rows:
        lines += [f"({name})=", ""]
    sources = dict.fromkeys(row.source for row in rows.values())
    lines += [
        f"**{', '.join(rows)}**. Published: {'; '.join(sources)}.",
        "",
        "```console",
        " \\\n    && ".join(shown(command).split(" && ")),
        "```",
        "",
    ]
    measured: dict[str, list[str]] = {}
    for name, row in rows.items():
        measured.setdefault(_measured(row, evidence), []).append(name)
    for text, names in measured.items():
        lines.append(text if len(measured) == 1 else f"{', '.join(names)}: {text}")
    return [*lines, ""]


def shown(command: str) -> str:
    """The command as one types it, lines of at most a hundred characters."""
    lines = [""]
    for word in WORD.findall(command.replace("{data}", "data").replace("{out}", "runs")):
        if len(lines[-1]) + len(word) > 96:
            lines[-1] += " \\"
            lines.append("   ")
        lines[-1] = f"{lines[-1]} {word}" if lines[-1] else word
    return "\n".join(lines)


def _measured(row: Row, evidence: Evidence) -> str:
    if row.figure is None:
        return "Not run."
    minutes = "CPU time not recorded"
    if row.minutes is not None:
        minutes = f"{row.minutes:g} minutes of CPU time"
    return f"Measured on {row.day}: {evidence.machines[row.machine]}, {minutes}."
