"""Images a second of `fit` in one process and in two gloo ranks, a core each.

    python tests/benchmarks/ranks.py --rounds 7 --out ranks.json

The 784-400-20 MLP VAE, compiled, 128 images a step and rank: two ranks take twice as many images a step, and average
gradients of 652,824 numbers over memory. Wall time of an epoch of 100 steps, since ranks wait for each other; a machine
that others use says nothing. One process runs while the two rest, and the other way round.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter

import torch
from contestants import ours
from contestants.sizes import MLP
from torch import distributed

import pyro_dgm as dgm

STEPS = 100  # of an epoch, on every rank


def worker(rank: int, world: int, store: str, pipe: Connection) -> None:
    """A rank, on a core of its own: an epoch whenever it is asked, and its seconds."""
    torch.set_num_threads(1)
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[rank % len(cores)]})
    if world > 1:
        distributed.init_process_group(
            "gloo", init_method=f"file://{store}", rank=rank, world_size=world
        )
    torch.manual_seed(0)
    trainer = dgm.SVITrainer(ours.objective(ours.mlp, MLP), lr=1e-3, compile=True)
    x = MLP.data(STEPS * world)

    def fit() -> None:
        trainer.fit(x, epochs=1, batch_size=MLP.batch, progress=False)

    fit()
    pipe.send(world)
    while pipe.recv() != "end":
        start = perf_counter()
        fit()
        pipe.send(perf_counter() - start)
    if world > 1:
        distributed.destroy_process_group()


class Ranks:
    """As many processes as ranks, which wait to be asked."""

    def __init__(self, world: int, folder: str):
        spawn = multiprocessing.get_context("spawn")
        self.world, self.pipes, self.processes = world, [], []
        for rank in range(world):
            here, there = spawn.Pipe()
            store = f"{folder}/store-{world}"
            process = spawn.Process(target=worker, args=(rank, world, store, there), daemon=True)
            process.start()
            there.close()
            self.pipes.append(here)
            self.processes.append(process)
        for pipe in self.pipes:
            pipe.recv()

    def images_per_second(self) -> float:
        for pipe in self.pipes:
            pipe.send("go")
        slowest = max(pipe.recv() for pipe in self.pipes)
        return STEPS * MLP.batch * self.world / slowest

    def end(self) -> None:
        for pipe in self.pipes:
            pipe.send("end")
        for process in self.processes:
            process.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        one, two = Ranks(1, folder), Ranks(2, folder)
        found = [(one.images_per_second(), two.images_per_second()) for _ in range(options.rounds)]
        one.end()
        two.end()
    low, middle, high = quantiles([b / a for a, b in found], n=4)
    report = {
        "one process, images/s": median(a for a, _ in found),
        "two ranks, images/s": median(b for _, b in found),
        "two ranks ÷ one process": {"ratio": middle, "low": low, "high": high},
    }
    print(json.dumps(report, indent=2, ensure_ascii=False))
    if options.out:
        options.out.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
