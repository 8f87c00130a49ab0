"""The tables of `tutorials/cost.md`, from a report of `cost.py`."""

from __future__ import annotations

import re
from typing import Any

MEASURED = "measured"
COMPUTED = "computed"


def written(page: str, report: dict[str, Any]) -> str:
    """The page with its two tables written anew, between their marks."""
    page = _between(page, MEASURED, _measured(report))
    return _between(page, COMPUTED, _computed(report["computed, not measured"]))


def _between(page: str, mark: str, table: str) -> str:
    pattern = rf"<!-- {mark} -->\n.*?<!-- end of {mark} -->"
    found, num = re.subn(
        pattern,
        lambda _: f"<!-- {mark} -->\n{table}<!-- end of {mark} -->",
        page,
        flags=re.DOTALL,
    )
    if num != 1:
        raise ValueError(f"page: expected one place for {mark}, got {num}.")
    return found


def _measured(report: dict[str, Any]) -> str:
    lines = ["| | grows | from, to | cost | exponent | at the top |", "|---|---|---|---|---|---|"]
    for kind, unit, factor, short in (
        ("time", "seconds", 1e3, "ms"),
        ("memory", "megabytes", 1, "MB"),
    ):
        for title, found in report[kind].items():
            name = title.rsplit(", by", 1)[0]
            sizes = f"{found['sizes'][0]:,} … {found['sizes'][-1]:,}"
            first, last = found[unit][0] * factor, found[unit][-1] * factor
            slope = f"{found['exponent']:.2f} ± {found['stderr']:.2f}"
            lines.append(
                f"| {kind}: {name} | {found['by']} | {sizes} | {_short(first)} … {_short(last)} {short} "
                f"| {slope} | {found['at the top']:.2f} |"
            )
    return "\n".join(lines) + "\n"


def _short(number: float) -> str:
    """Three digits, and all before the point."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


ROWS = (
    ("parameters", lambda f: f"{f['job']['parameters']:,.0f}"),
    ("multiply-adds an image", lambda f: f"{f['job']['multiplications']:,.0f}"),
    ("images a GPU and step", lambda f: f"{f['job']['batch']:,}"),
    ("data", lambda f: f"{_short(f['terabytes_of_data'])} TB"),
    ("steps an epoch", lambda f: f"{f['steps']:,.0f}"),
    ("computation a step", lambda f: f"{f['compute_seconds_per_step'] * 1e3:.2g} ms"),
    ("gradients a step", lambda f: f"{f['all_reduce_seconds_per_step'] * 1e3:.2g} ms"),
    ("sent by a GPU and step", lambda f: f"{_short(f['all_reduce_bytes_per_gpu'] / 1e6)} MB"),
    ("read by all, a second", lambda f: f"{_short(f['bytes_read_per_second'] / 1e9)} GB"),
    ("weights and Adam on a GPU", lambda f: f"{_short(f['bytes_of_state_per_gpu'] / 1e6)} MB"),
    ("an epoch", lambda f: f"{_short(f['seconds_per_epoch'])} s"),
    ("share of it that computes", lambda f: f"{f['efficiency']:.0%}"),
)


def _computed(jobs: dict[str, Any]) -> str:
    lines = ["| | " + " | ".join(jobs) + " |", "|---" * (len(jobs) + 1) + "|"]
    for name, cell in ROWS:
        cells = " | ".join(cell(found) for found in jobs.values())
        lines.append(f"| {name} | {cells} |")
    return "\n".join(lines) + "\n"
