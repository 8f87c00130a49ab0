"""The part of `tutorials/reproduce.md` that is made of the rows."""

from __future__ import annotations

from .rows import Evidence, Row

MARK = "rows of evidence.yaml"


def written(page: str, evidence: Evidence) -> str:
    """The page with tables and commands written anew, between their marks."""
    begin, end = f"<!-- {MARK} -->\n", f"<!-- end of {MARK} -->"
    before, rest = page.split(begin)
    _, after = rest.split(end)
    lines = ["## Rows", ""]
    for part in dict.fromkeys(row.part for row in evidence.rows.values()):
        lines += _table(part, evidence)
    lines += _missed(evidence)
    lines += ["## Commands", ""]
    for command in dict.fromkeys(row.command for row in evidence.rows.values()):
        lines += _command(command, evidence)
    return before + begin + "\n".join(lines) + "\n" + end + after


def _table(part: str, evidence: Evidence) -> list[str]:
    head = "| row | published, exact or bar | here | error over |"
    lines = [f"### {part}", "", head, "|---|---|---|---|"]
    for name, row in evidence.rows.items():
        if row.part == part:
            ours = row.ours + (" (not reached)" if row.missed and row.figure is not None else "")
            lines.append(f"| [{row.what}](#{name}) | {row.published} | {ours} | {row.over} |")
    return [*lines, ""]


def _missed(evidence: Evidence) -> list[str]:
    """Why, and the rows that it keeps from their figure."""
    lines = ["## What was not reached", ""]
    missed = {name: row for name, row in evidence.rows.items() if row.missed}
    for why in dict.fromkeys(row.missed for row in missed.values()):
        lines.append(f"- {why[0].upper()}{why[1:]}:")
        rows = []
        for name, row in missed.items():
            if row.missed == why:
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
        " \\\n    && ".join(_shown(command).split(" && ")),
        "```",
        "",
        _measured(next(iter(rows.values())), evidence),
        "",
    ]
    return lines


def _shown(command: str) -> str:
    """The command as one types it, lines of at most a hundred characters."""
    lines = [""]
    for word in command.replace("{data}", "data").replace("{out}", "runs").split(" "):
        if len(lines[-1]) + len(word) > 96:
            lines[-1] += " \\"
            lines.append("   ")
        lines[-1] = f"{lines[-1]} {word}" if lines[-1] else word
    return "\n".join(lines)


def _measured(row: Row, evidence: Evidence) -> str:
    if row.figure is None:
        return "Not run."
    minutes = "" if row.minutes is None else f", {row.minutes:g} minutes of CPU time"
    return f"Measured on {row.day}: {evidence.machines[row.machine]}{minutes}."
