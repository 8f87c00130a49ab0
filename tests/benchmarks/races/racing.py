"""Contestants that take turns: a process and, on a CPU, one core each; medians of ratios within a round.

Every contestant lives in a process of its own, as it would for a user: in one process the allocations of one change how
fast malloc serves another. They are forked from a server that has imported torch and Pyro and done nothing else, which
saves the seconds of the imports. The processes take turns, one at a time; every round times each of them once, so that
a busy machine slows all of them alike. A ratio is the median over the rounds of (one / other, in the same round), with
its quartiles beside it. Two clocks run: CPU time of the whole process, which others on the machine disturb least, and
wall time. A call of 200 steps or more is timed in every fifth round. Two processes prepare themselves at a time, on the
same core; nothing is timed before all are ready.
"""

from __future__ import annotations

import multiprocessing
import os
import traceback
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter, process_time
from typing import Any

import torch
from contestants.sizes import Contestant

Build = Callable[
    [], Contestant
]  # a `partial` of a function of a module, which a new process can look up
CLOCKS = ("cpu", "wall")
PRELOADED = ["pyro_dgm", "pyro.infer", "torch._inductor.compile_fx"]
LONG = 200  # steps of a call that is timed in every fifth round


@dataclass(frozen=True)
class Rules:
    """How a race is run.

    Attributes:
        rounds: times that everyone is timed.
        seconds: that a contestant runs in a round, at least one call.
        threads: of each.
        device: where all but NumPyro train.
        clock: `cpu` or `wall`, of the ratios.
        warmup: steps before the first round.
    """

    rounds: int = 15
    seconds: float = 0.15
    threads: int = 1
    device: str = "cpu"
    clock: str = "wall"
    warmup: int = 30

    @property
    def other_clock(self) -> str:
        return "wall" if self.clock == "cpu" else "cpu"


@dataclass
class Result:
    """What a contestant took.

    Attributes:
        parameters: numbers that it trains.
        loss: nats per datum with its first weights.
        num: steps of one call.
        ms: by clock, milliseconds per step in each round, `None` where it had a rest.
    """

    parameters: int
    loss: float
    num: int
    ms: dict[str, list[float | None]]


Results = dict[str, Result]


def parser(description: str) -> ArgumentParser:
    """The options of `Rules`, `--out` and `--only`."""
    found = ArgumentParser(description=description)
    found.add_argument("--rounds", type=int, default=15)
    found.add_argument("--seconds", type=float, default=0.15, help="of a contestant in a round")
    found.add_argument("--threads", type=int, default=1)
    found.add_argument("--clock", choices=CLOCKS, default="wall", help="of the ratios")
    found.add_argument("--only", nargs="+", default=[""], help="parts of the titles to run")
    found.add_argument("--out", type=Path)
    return found


def rules_of(options: Namespace) -> Rules:
    return Rules(
        options.rounds,
        options.seconds,
        options.threads,
        getattr(options, "device", "cpu"),
        options.clock,
    )


def is_chosen(title: str, options: Namespace) -> bool:
    return any(part in title for part in options.only)


def is_there(library: str) -> bool:
    """Whether a peer can be imported; says so where it can't."""
    if find_spec(library) is not None:
        return True
    print(f"{library}: not installed, left out (pip install -e '.[benchmarks]')")
    return False


def race(builds: dict[str, Build], rules: Rules) -> Results:
    """Milliseconds per step of every contestant in every round."""
    _set_environment(rules.threads)
    pipes: dict[str, Connection] = {}
    processes, results = [], {}
    names = list(builds)
    for number, name in enumerate(names):
        pipes[name], process = _start(builds[name], rules)
        processes.append(process)
        if number > 0:
            before = names[number - 1]
            results[before] = _receive(pipes[before], before)
    results[names[-1]] = _receive(pipes[names[-1]], names[-1])
    for round_ in range(rules.rounds):
        for name, pipe in pipes.items():
            _time(results[name], pipe, name, round_)
    for pipe in pipes.values():
        pipe.send("end")
    for process in processes:
        process.join()
    return results


def _time(result: Result, pipe: Connection, name: str, round_: int) -> None:
    rests = result.num >= LONG and round_ % 5 != 0
    times: dict[str, float | None] = dict.fromkeys(CLOCKS)
    if not rests:
        pipe.send("your turn")
        times = _receive(pipe, name)
    for clock in CLOCKS:
        result.ms[clock].append(times[clock])


def _set_environment(threads: int) -> None:
    """For the processes to come: JAX, OpenMP and tqdm read these when they are imported."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ["TQDM_DISABLE"] = "1"
    if threads == 1:
        flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        os.environ["XLA_FLAGS"] = flags


def _start(build: Build, rules: Rules) -> tuple[Connection, BaseProcess]:
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(PRELOADED)
    ours, theirs = server.Pipe()
    process = server.Process(target=_serve, args=(build, rules, theirs), daemon=True)
    process.start()
    theirs.close()
    return ours, process


def _receive(pipe: Connection, name: str) -> Any:
    found = pipe.recv()
    if isinstance(found, str):
        raise RuntimeError(f"{name}: {found}")
    return found


def _serve(build: Build, rules: Rules, pipe: Connection) -> None:
    try:
        _take_turns(build, rules, pipe)
    except Exception:
        pipe.send(traceback.format_exc())


def _take_turns(build: Build, rules: Rules, pipe: Connection) -> None:
    """A process: build the step, warm it up, then answer every turn with milliseconds per step."""
    on_cpu = rules.device == "cpu"
    torch.set_num_threads(rules.threads)
    torch.manual_seed(0)
    torch.set_default_device(rules.device)
    if on_cpu and rules.threads == 1:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    contestant = build()
    torch.set_default_device(None)  # it costs time at every call
    wait = (lambda: None) if on_cpu else torch.cuda.synchronize
    calls = _calls_of_a_turn(contestant, rules, wait)
    first = Result(contestant.parameters, contestant.loss, contestant.num, {k: [] for k in CLOCKS})
    pipe.send(first)
    while pipe.recv() != "end":
        pipe.send(_milliseconds(contestant, calls, wait))


def _calls_of_a_turn(contestant: Contestant, rules: Rules, wait: Callable[[], object]) -> int:
    """Warm up, and see how many calls fill the time of a turn."""
    contestant.warm_up()
    if contestant.num >= LONG:
        return 1
    calls = max(1, rules.warmup // contestant.num)
    for _ in range(calls):
        contestant.step()
    wait()
    milliseconds = _milliseconds(contestant, calls, wait)["cpu"] * contestant.num
    return max(1, round(1e3 * rules.seconds / milliseconds))


def _milliseconds(
    contestant: Contestant, calls: int, wait: Callable[[], object]
) -> dict[str, float]:
    cpu, wall = process_time(), perf_counter()
    for _ in range(calls):
        contestant.step()
    wait()
    taken = {"cpu": process_time() - cpu, "wall": perf_counter() - wall}
    return {clock: seconds / (calls * contestant.num) * 1e3 for clock, seconds in taken.items()}


def ratio(results: Results, one: str, other: str, clock: str) -> dict[str, float]:
    """Median and quartiles over the rounds of one / other."""
    pairs = zip(results[one].ms[clock], results[other].ms[clock], strict=True)
    ratios = [a / b for a, b in pairs if a is not None and b is not None]
    low, middle, high = quantiles(ratios, n=4) if len(ratios) > 1 else [ratios[0]] * 3
    return {"ratio": middle, "low": low, "high": high, "rounds": len(ratios)}


def summary(results: Results, baseline: str, clock: str) -> dict[str, dict[str, float]]:
    """Per contestant: median milliseconds by both clocks, ratio to the baseline, parameters, first loss."""
    found = {}
    for name, result in results.items():
        times = {}
        for key in CLOCKS:
            times[f"{key}_ms"] = median(t for t in result.ms[key] if t is not None)
        row = {**times, **ratio(results, name, baseline, clock)}
        found[name] = {**row, "parameters": result.parameters, "loss": result.loss}
    return found
