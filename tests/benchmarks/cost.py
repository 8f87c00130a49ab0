"""How time and memory grow with data, batch, latents, particles, layers and pairs: exponents over a decade each.

    taskset -c 1 python tests/benchmarks/cost.py --out cost.json --page tutorials/cost.md

An exponent is the slope of log cost on log size by least squares, over the medians of five sizes, with its standard
error; "at the top" is the slope between the two largest. Time is CPU time of the process, which others on the machine
disturb least, on one thread. Memory is the peak resident set during a call above the set before it, in a process of its
own (Linux). What 256 GPUs would take is computed, see `costs/scale.py`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from math import log, sqrt
from pathlib import Path
from statistics import mean, median
from time import process_time
from typing import Any

import torch
from costs.page import written
from costs.scale import computed
from costs.sweeps import MEMORY, TIMES, Call, Sweep

BAR = 1.05  # of an exponent
UNITS = {"time": "seconds", "memory": "megabytes"}
LEAST_SECONDS = 0.05  # of a timing


def seconds_of(call: Call) -> float:
    """CPU time of one call, over as many as fill the least time."""
    start, calls = process_time(), 0
    while (taken := process_time() - start) < LEAST_SECONDS or calls == 0:
        call()
        calls += 1
    return taken / calls


def times(sweep: Sweep, rounds: int) -> list[float]:
    """Median seconds per size; sizes take turns."""
    torch.manual_seed(0)
    calls = [sweep.prepare(size) for size in sweep.sizes]
    for call in calls:
        call()
        call()
    found = [[seconds_of(call) for call in calls] for _ in range(rounds)]
    return [median(column) for column in zip(*found, strict=True)]


def megabytes(sweep: Sweep) -> list[float]:
    """Peak above what was resident before the call, per size."""
    spawn = multiprocessing.get_context("spawn")
    found = []
    for number in range(len(sweep.sizes)):
        ours, theirs = spawn.Pipe()
        process = spawn.Process(target=_peak, args=(MEMORY.index(sweep), number, theirs))
        process.start()
        theirs.close()
        found.append(ours.recv())
        process.join()
    return found


def _peak(sweep: int, number: int, pipe: Any) -> None:
    """The smallest size first, so that what is made once does not count; then the one that is asked for."""
    torch.set_num_threads(1)
    chosen = MEMORY[sweep]
    chosen.prepare(chosen.sizes[0] // 4 or 1)()
    call = chosen.prepare(chosen.sizes[number])
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _status("VmRSS")
    call()
    pipe.send(_status("VmHWM") - before)


def _status(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    raise KeyError(name)


def exponent(sizes: tuple[int, ...], costs: list[float]) -> dict[str, float]:
    """Slope of log cost on log size, its standard error, and the slope between the two largest."""
    x = [log(size) for size in sizes]
    y = [log(max(cost, 1e-9)) for cost in costs]
    centre, level = mean(x), mean(y)
    spread = sum((a - centre) ** 2 for a in x)
    slope = sum((a - centre) * (b - level) for a, b in zip(x, y, strict=True)) / spread
    rest = sum((b - level - slope * (a - centre)) ** 2 for a, b in zip(x, y, strict=True))
    error = sqrt(rest / (len(x) - 2) / spread)
    return {"exponent": slope, "stderr": error, "at the top": (y[-1] - y[-2]) / (x[-1] - x[-2])}


def row(sweep: Sweep, costs: list[float], unit: str) -> dict[str, Any]:
    found = exponent(sweep.sizes, costs)
    return {"by": sweep.by, "sizes": sweep.sizes, unit: costs, **found}


def show(kind: str, title: str, found: dict[str, Any]) -> None:
    unit = UNITS[kind]
    first, last = found[unit][0], found[unit][-1]
    slope = f"{found['exponent']:.3f} ± {found['stderr']:.3f}, at the top {found['at the top']:.3f}"
    verdict = "met" if found["exponent"] <= BAR else "MISSED"
    sizes = f"{found['by']} {found['sizes'][0]:,} … {found['sizes'][-1]:,}"
    print(
        f"{kind:<7}{title:<44}{sizes:<30}{first:>9.4g} … {last:<9.4g}{slope}, ≤ {BAR} {verdict}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="part of the titles of the sweeps to run")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--page", type=Path, help="whose tables are written anew")
    options = parser.parse_args()
    torch.set_num_threads(1)
    report: dict[str, Any] = {"time": {}, "memory": {}, "computed, not measured": computed()}
    for kind, sweep in [*(("time", s) for s in TIMES), *(("memory", s) for s in MEMORY)]:
        title = f"{sweep.title}, by {sweep.by}"
        if options.only not in title:
            continue
        costs = times(sweep, options.rounds) if kind == "time" else megabytes(sweep)
        report[kind][title] = row(sweep, costs, UNITS[kind])
        show(kind, sweep.title, report[kind][title])
        if options.out:
            options.out.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    if options.page:
        options.page.write_text(written(options.page.read_text(), report))


if __name__ == "__main__":
    main()
