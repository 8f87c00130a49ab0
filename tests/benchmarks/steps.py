"""Time of one training step, as ratios to hand-written torch, `pyro.infer.SVI` and NumPyro, in one interleaved run.

    pip install -e '.[benchmarks]'
    python tests/benchmarks/steps.py --rounds 30 --out steps.json
    python tests/benchmarks/steps.py --device cuda

Every contestant lives in a process of its own, as it would for a user: in one process the allocations of one change how
fast malloc serves another. The processes take turns, one at a time; every round times each of them once, so that a
busy machine slows all of them alike. A ratio is the median over the rounds of (contestant / baseline of the same
round), with its quartiles beside it. On a CPU all of them are pinned to one core. "In fit" is a call of `fit` of two
epochs of 200 steps, with all that it checks and keeps, over its 400 steps.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import quantiles
from time import perf_counter

import numpyro_steps
import pyro
import pyro.distributions as dist
import torch
from numpyro_steps import Many
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

import pyro_dgm as dgm
from pyro_dgm.experiments.recipes import levels_vae

Step = Callable[[], object]


class ByHand(nn.Module):
    """The 784-400-20 MLP VAE as one writes it in plain torch: the loss in nats per datum."""

    def __init__(self, hidden: int = 400):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(784, hidden), nn.SiLU(), nn.Linear(hidden, 40))
        self.decoder = nn.Sequential(nn.Linear(20, hidden), nn.SiLU(), nn.Linear(hidden, 784))

    def forward(self, x: Tensor) -> Tensor:
        loc, raw = self.encoder(x).chunk(2, dim=-1)
        scale = softplus(raw) + 1e-6
        eps = torch.randn_like(loc)
        z = loc + scale * eps
        rec = binary_cross_entropy_with_logits(self.decoder(z), x, reduction="sum")
        kl = (0.5 * (z.square() - eps.square()) - scale.log()).sum()
        return (rec + kl) / len(x)


def declared(hidden: int = 400) -> dgm.VAE:
    """The same VAE, declared."""
    encoder = dgm.Conditional(dist.Normal, dgm.mlp(784, hidden, 40))
    return dgm.VAE(dgm.StandardNormal(20), dgm.Bernoulli(dgm.mlp(20, hidden, 784)), encoder)


def with_flows(dim: int = 784, hidden: int = 400, latent: int = 20) -> dgm.VAE:
    """Two layers of a MAF prior, and two of an IAF posterior that reads the features of the encoder."""
    prior = dgm.Flow(dgm.StandardNormal(latent), dgm.flows.maf(latent, 2))
    base = dgm.Conditional(dist.Normal, dgm.mlp(hidden, 2 * latent))
    embed = nn.Sequential(dgm.mlp(dim, hidden, hidden), nn.SiLU())
    encoder = dgm.Flow(base, dgm.flows.iaf(latent, 2, context=hidden), embed)
    return dgm.VAE(prior, dgm.Bernoulli(dgm.mlp(latent, hidden, dim)), encoder)


def by_hand(x: Tensor, *, compiled: bool, fused: bool, hidden: int = 400) -> Step:
    module = ByHand(hidden)
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


def by_fit(vae: dgm.VAE, batch: int, dim: int) -> Step:
    """Two epochs of 200 steps, which have been taken once before: the graph is there."""
    trainer = dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide), lr=1e-3, compile=True)
    x = torch.rand(200 * batch, dim).bernoulli()

    def fit() -> None:
        trainer.fit(x, epochs=2, batch_size=batch, progress=False)

    return Many(fit, 400)


def by_svi(vae: dgm.VAE, x: Tensor) -> Step:
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO())
    return lambda: svi.step(x)


def binary_images(num: int = 128, dim: int = 784) -> Tensor:
    return torch.rand(num, dim).bernoulli()


def digit_levels() -> Tensor:
    return torch.randint(0, 17, (100, 64)).float()


MLP = "784-400-20 MLP VAE, batch 128"
SMALL = "784-64-20 MLP VAE, batch 64"
FLOWS = "784-400-20, MAF prior, IAF posterior, batch 128"
SMALL_FLOWS = "64-64-8, MAF prior, IAF posterior, batch 64"

SUITES: dict[str, dict[str, Callable[[], Step]]] = {
    MLP: {
        "by hand, eager (baseline)": lambda: by_hand(binary_images(), compiled=False, fused=False),
        "by hand, torch.compile, fused Adam": lambda: by_hand(
            binary_images(), compiled=True, fused=True
        ),
        "declared, eager": lambda: by_trainer(declared(), binary_images(), compiled=False),
        "declared, compiled": lambda: by_trainer(declared(), binary_images(), compiled=True),
        "declared, compiled, in fit": lambda: by_fit(declared(), 128, 784),
        "declared, pyro.infer.SVI": lambda: by_svi(declared(), binary_images()),
        "NumPyro, step": lambda: numpyro_steps.stepping("vae", 128, 784, 400, 20, loop=False),
        "NumPyro, loop": lambda: numpyro_steps.stepping("vae", 128, 784, 400, 20, loop=True),
    },
    SMALL: {
        "NumPyro, loop (baseline)": lambda: numpyro_steps.stepping(
            "vae", 64, 784, 64, 20, loop=True
        ),
        "NumPyro, step": lambda: numpyro_steps.stepping("vae", 64, 784, 64, 20, loop=False),
        "by hand, torch.compile, fused Adam": lambda: by_hand(
            binary_images(64), compiled=True, fused=True, hidden=64
        ),
        "declared, compiled": lambda: by_trainer(declared(64), binary_images(64), compiled=True),
        "declared, compiled, in fit": lambda: by_fit(declared(64), 64, 784),
    },
    FLOWS: {
        "NumPyro, loop (baseline)": lambda: numpyro_steps.stepping(
            "flow_vae", 128, 784, 400, 20, loop=True
        ),
        "declared, compiled": lambda: by_trainer(with_flows(), binary_images(), compiled=True),
        "declared, compiled, in fit": lambda: by_fit(with_flows(), 128, 784),
    },
    SMALL_FLOWS: {
        "NumPyro, loop (baseline)": lambda: numpyro_steps.stepping(
            "flow_vae", 64, 64, 64, 8, loop=True
        ),
        "declared, compiled": lambda: by_trainer(
            with_flows(64, 64, 8), binary_images(64, 64), compiled=True
        ),
        "declared, compiled, in fit": lambda: by_fit(with_flows(64, 64, 8), 64, 64),
    },
    "main job: digits VAE, MAF prior, IAF posterior, batch 100": {
        "pyro.infer.SVI (baseline)": lambda: by_svi(levels_vae(), digit_levels()),
        "declared, eager": lambda: by_trainer(levels_vae(), digit_levels(), compiled=False),
        "declared, compiled": lambda: by_trainer(levels_vae(), digit_levels(), compiled=True),
    },
}


GRAPHS: dict[str, Callable[[], Step]] = {  # one per suite, in their order, where there is a GPU
    MLP: lambda: by_trainer(declared(), binary_images(), compiled="reduce-overhead"),
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
    if device == "cpu" and threads == 1:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    step = contestants(suite, device)[name]()
    torch.set_default_device(None)  # it costs time at every call
    wait = torch.cuda.synchronize if device != "cpu" else lambda: None
    num_at_once = step.num if isinstance(step, Many) else 1
    for _ in range(max(1, warmup // num_at_once)):
        step()
    wait()
    pipe.send("ready")
    while num := pipe.recv():
        calls = max(1, num // num_at_once)
        start = perf_counter()
        for _ in range(calls):
            step()
        wait()
        pipe.send((perf_counter() - start) / (calls * num_at_once) * 1e3)


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
    parser.add_argument("--suite", choices=SUITES)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    report = {}
    for title in SUITES if options.suite is None else [options.suite]:
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
