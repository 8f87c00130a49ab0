"""Time of one training step, as ratios to hand-written torch and to `pyro.infer.SVI`, in one interleaved run.

    python tests/benchmarks/steps.py --rounds 30 --out steps.json
    python tests/benchmarks/steps.py --device cuda

Every contestant lives in a process of its own, as it would for a user: in one process the allocations of one change how
fast malloc serves another. The processes take turns, one at a time; every round times each of them once, so that a
busy machine slows all of them alike. A ratio is the median over the rounds of (contestant / baseline of the same
round), with its quartiles beside it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import quantiles
from time import perf_counter

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

import pyro_dgm as dgm
from pyro_dgm.experiments.recipes import levels_vae

Step = Callable[[], object]


class ByHand(nn.Module):
    """The 784-400-20 MLP VAE as one writes it in plain torch: the loss in nats per datum."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(784, 400), nn.SiLU(), nn.Linear(400, 40))
        self.decoder = nn.Sequential(nn.Linear(20, 400), nn.SiLU(), nn.Linear(400, 784))

    def forward(self, x: Tensor) -> Tensor:
        loc, raw = self.encoder(x).chunk(2, dim=-1)
        scale = softplus(raw) + 1e-6
        eps = torch.randn_like(loc)
        z = loc + scale * eps
        rec = binary_cross_entropy_with_logits(self.decoder(z), x, reduction="sum")
        kl = (0.5 * (z.square() - eps.square()) - scale.log()).sum()
        return (rec + kl) / len(x)


def declared() -> dgm.VAE:
    """The same VAE, declared."""
    encoder = dgm.Conditional(dist.Normal, dgm.mlp(784, 400, 40))
    return dgm.VAE(dgm.StandardNormal(20), dgm.Bernoulli(dgm.mlp(20, 400, 784)), encoder)


def by_hand(x: Tensor, *, compiled: bool, fused: bool) -> Step:
    module = ByHand()
    loss = torch.compile(module) if compiled else module
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3, fused=fused)

    def step() -> None:
        optimizer.zero_grad()
        loss(x).backward()
        optimizer.step()

    return step


def by_trainer(vae: dgm.VAE, x: Tensor, *, compiled: bool | str) -> Step:
    trainer = dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide), lr=1e-3, compile=compiled)

    def step() -> None:
        with pyro.validation_enabled(False):
            trainer.step(x)

    return step


def by_svi(vae: dgm.VAE, x: Tensor) -> Step:
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO())
    return lambda: svi.step(x)


def binary_images() -> Tensor:
    return torch.rand(128, 784).bernoulli()


def digit_levels() -> Tensor:
    return torch.randint(0, 17, (100, 64)).float()


SUITES: dict[str, dict[str, Callable[[], Step]]] = {
    "784-400-20 MLP VAE, batch 128": {
        "by hand, eager (baseline)": lambda: by_hand(binary_images(), compiled=False, fused=False),
        "by hand, torch.compile, fused Adam": lambda: by_hand(
            binary_images(), compiled=True, fused=True
        ),
        "declared, eager": lambda: by_trainer(declared(), binary_images(), compiled=False),
        "declared, compiled": lambda: by_trainer(declared(), binary_images(), compiled=True),
        "declared, pyro.infer.SVI": lambda: by_svi(declared(), binary_images()),
    },
    "main job: digits VAE, MAF prior, IAF posterior, batch 100": {
        "pyro.infer.SVI (baseline)": lambda: by_svi(levels_vae(), digit_levels()),
        "declared, eager": lambda: by_trainer(levels_vae(), digit_levels(), compiled=False),
        "declared, compiled": lambda: by_trainer(levels_vae(), digit_levels(), compiled=True),
    },
}


GRAPHS: dict[str, Callable[[], Step]] = {  # one per suite, in their order, where there is a GPU
    "784-400-20 MLP VAE, batch 128": lambda: by_trainer(
        declared(), binary_images(), compiled="reduce-overhead"
    ),
    "main job: digits VAE, MAF prior, IAF posterior, batch 100": lambda: by_trainer(
        levels_vae(), digit_levels(), compiled="reduce-overhead"
    ),
}


def contestants(suite: str, device: str) -> dict[str, Callable[[], Step]]:
    if device == "cpu":
        return SUITES[suite]
    return {**SUITES[suite], "declared, compiled, CUDA graphs": GRAPHS[suite]}


def contestant(
    suite: str, name: str, threads: int, device: str, warmup: int, pipe: Connection
) -> None:
    """A process: build the step, warm it up, then run as many as asked and answer with milliseconds per step."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    torch.set_default_device(device)
    step = contestants(suite, device)[name]()
    torch.set_default_device(None)  # it costs time at every call
    wait = torch.cuda.synchronize if device != "cpu" else lambda: None
    for _ in range(warmup):
        step()
    wait()
    pipe.send("ready")
    while num := pipe.recv():
        start = perf_counter()
        for _ in range(num):
            step()
        wait()
        pipe.send((perf_counter() - start) / num * 1e3)


def interleaved(
    suite: str, rounds: int, steps: int, threads: int, device: str = "cpu", warmup: int = 30
) -> dict[str, list[float]]:
    """Milliseconds per step of every contestant in every round."""
    spawn = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    for name in contestants(suite, device):
        pipes[name], theirs = spawn.Pipe()
        processes.append(
            spawn.Process(target=contestant, args=(suite, name, threads, device, warmup, theirs))
        )
        processes[-1].start()
        pipes[name].recv()
    times: dict[str, list[float]] = {name: [] for name in pipes}
    for _ in range(rounds):
        for name, pipe in pipes.items():
            pipe.send(steps)
            times[name].append(pipe.recv())
    for pipe in pipes.values():
        pipe.send(0)
    for process in processes:
        process.join()
    return times


def summary(times: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Median milliseconds, and the ratio to the baseline (the first contestant) with its quartiles."""
    baseline = next(iter(times.values()))
    found = {}
    for name, values in times.items():
        low, middle, high = quantiles([a / b for a, b in zip(values, baseline, strict=True)], n=4)
        found[name] = {"ms": quantiles(values, n=4)[1], "ratio": middle, "low": low, "high": high}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    report = {}
    for title in SUITES:
        report[title] = summary(
            interleaved(title, options.rounds, options.steps, options.threads, options.device)
        )
        print(f"\n{title}\n{'':<38}{'ms':>8}{'ratio':>8}   quartiles")
        for name, row in report[title].items():
            print(
                f"{name:<38}{row['ms']:>8.2f}{row['ratio']:>8.2f}   {row['low']:.2f} … {row['high']:.2f}"
            )
    if options.out:
        options.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
