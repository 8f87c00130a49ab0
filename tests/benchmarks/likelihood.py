"""CPU time of an importance estimate, as ratios to pythae's `get_nll` and to a jitted one in JAX, at equal networks.

    python -m venv with-pythae && with-pythae/bin/pip install pythae
    python tests/benchmarks/likelihood.py --pythae with-pythae/bin/python --rounds 7 --out likelihood.json

A 784-400-20 VAE with SiLU networks and Bernoulli pixels, 100 data, 1,000 draws each. Every contestant is a process of
its own with one thread on one core; they take turns, and each round times each of them once, by the time of its
process alone, so that what else the machine does counts little. A ratio is the median over the rounds of (contestant /
baseline of the same round), with its quartiles. What compiles is compiled before; the seconds it took stand beside it.
pythae is called as its documentation has it, with gradients on and 100 draws at once, and without gradients with all
1,000 at once.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import quantiles
from time import process_time

NUM_DATA, NUM_DRAWS = 100, 1000

Estimate = Callable[[], float]


def ours(compile: bool) -> Estimate:
    """`nll` of a declared VAE, in eager mode or by kernels."""
    import pyro.distributions as dist
    import torch

    import pyro_dgm as dgm
    from pyro_dgm.evaluation.likelihood.importance import Scores
    from pyro_dgm.evaluation.likelihood.scoring import Scoring
    from pyro_dgm.inference.run.sessions import session

    torch.manual_seed(0)
    encoder = dgm.Conditional(dist.Normal, dgm.mlp(784, 400, 40))
    vae = dgm.VAE(dgm.StandardNormal(20), dgm.Bernoulli(dgm.mlp(20, 400, 784)), encoder)
    x = torch.rand(NUM_DATA, 784).bernoulli()
    if not compile:
        return lambda: dgm.nll(vae.model, vae.guide, x, num=NUM_DRAWS, compile=False).mean
    # The kernels of one call serve it alone; here all rounds, so that no round compiles.
    opened = session(vae.model, vae.guide, x, num=NUM_DRAWS)
    pair = opened.__enter__()
    score = Scoring.of(pair, compile=True)

    def estimate() -> float:
        scores = Scores(pair)
        for block in pair.seeded_blocks():
            scores.add(score(block))
        return scores.nll().mean

    estimate.session = opened  # it stays open
    return estimate


def pythae(at_once: int, gradients: bool) -> Estimate:
    import torch
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from torch import nn

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.hidden = nn.Sequential(nn.Linear(784, 400), nn.SiLU())
            self.loc, self.log_var = nn.Linear(400, 20), nn.Linear(400, 20)

        def forward(self, x):
            h = self.hidden(x.flatten(1))
            return ModelOutput(embedding=self.loc(h), log_covariance=self.log_var(h))

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(
                nn.Linear(20, 400), nn.SiLU(), nn.Linear(400, 784), nn.Sigmoid()
            )

        def forward(self, z):
            return ModelOutput(reconstruction=self.net(z).reshape(-1, 1, 28, 28))

    torch.manual_seed(0)
    config = VAEConfig(input_dim=(1, 28, 28), latent_dim=20, reconstruction_loss="bce")
    model = VAE(config, encoder=Encoder(), decoder=Decoder()).eval()
    x = torch.rand(NUM_DATA, 1, 28, 28).bernoulli()

    def estimate() -> float:
        with torch.set_grad_enabled(gradients):
            return -model.get_nll(x, NUM_DRAWS, at_once)

    return estimate


def by_jax() -> Estimate:
    """By hand: `vmap` over the draws of a datum, `lax.map` over the data, jitted."""
    import jax
    import jax.numpy as jnp
    from jax.scipy.special import logsumexp
    from jax.scipy.stats import norm

    def linear(key, inputs, outputs):
        return jax.random.normal(key, (inputs, outputs)) / inputs**0.5, jnp.zeros(outputs)

    keys = jax.random.split(jax.random.key(0), 5)
    sizes = ((784, 400), (400, 40), (20, 400), (400, 784))
    layers = [linear(key, *size) for key, size in zip(keys, sizes, strict=False)]
    x = jax.random.bernoulli(keys[4], 0.5, (NUM_DATA, 784)).astype(jnp.float32)

    def mlp(h, first, second):
        return jax.nn.silu(h @ first[0] + first[1]) @ second[0] + second[1]

    def log_p(key_and_x):
        key, datum = key_and_x
        loc, raw = jnp.split(mlp(datum, *layers[:2]), 2)
        scale = jax.nn.softplus(raw) + 1e-6
        eps = jax.random.normal(key, (NUM_DRAWS, 20))
        z = loc + scale * eps
        logits = mlp(z, *layers[2:])
        log_lik = (datum * logits - jax.nn.softplus(logits)).sum(-1)
        log_q = (norm.logpdf(eps) - jnp.log(scale)).sum(-1)
        log_w = log_lik + norm.logpdf(z).sum(-1) - log_q
        return logsumexp(log_w) - jnp.log(NUM_DRAWS)

    @jax.jit
    def cost(key):
        return -jax.lax.map(log_p, (jax.random.split(key, NUM_DATA), x)).mean()

    return lambda: float(cost(jax.random.key(1)))


CONTESTANTS: dict[str, Callable[[], Estimate]] = {
    "pythae, as documented (baseline)": lambda: pythae(100, gradients=True),
    "pythae, no gradients, all at once": lambda: pythae(NUM_DRAWS, gradients=False),
    "nll, eager": lambda: ours(compile=False),
    "nll, kernels": lambda: ours(compile=True),
    "JAX by hand, jitted": by_jax,
}


def contestant(name: str) -> None:
    """A process: build and warm up, then answer each line that comes in with seconds of its own CPU time."""
    start = process_time()
    estimate = CONTESTANTS[name]()
    value = estimate()
    print(json.dumps({"first": process_time() - start, "value": value}), flush=True)
    for _ in sys.stdin:
        start = process_time()
        estimate()
        print(json.dumps(process_time() - start), flush=True)


def started(name: str, python: str) -> subprocess.Popen:
    core = min(os.sched_getaffinity(0))
    flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": flags,
    }
    return subprocess.Popen(
        ["taskset", "-c", str(core), python, __file__, "--contestant", name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


def answer(process: subprocess.Popen) -> object:
    """The next line of JSON of a contestant, whatever else its libraries print."""
    while line := process.stdout.readline():
        try:
            return json.loads(line)
        except ValueError:
            continue
    raise RuntimeError(f"a contestant ended: {process.args[-1]}")


def interleaved(rounds: int, python_of_pythae: str | None) -> dict[str, dict[str, float]]:
    processes, firsts = {}, {}
    for name in CONTESTANTS:
        is_foreign = name.startswith("pythae")
        if is_foreign and python_of_pythae is None:
            continue
        processes[name] = started(name, python_of_pythae if is_foreign else sys.executable)
        firsts[name] = answer(processes[name])
    times: dict[str, list[float]] = {name: [] for name in processes}
    for _ in range(rounds):
        for name, process in processes.items():
            process.stdin.write("\n")
            process.stdin.flush()
            times[name].append(answer(process))
    for process in processes.values():
        process.stdin.close()
        process.wait()
    baseline = next(iter(times.values()))
    found = {}
    for name, values in times.items():
        low, middle, high = quantiles([b / a for a, b in zip(values, baseline, strict=True)], n=4)
        seconds = quantiles(values, n=4)[1]
        found[name] = {"seconds": seconds, "faster": middle, "low": low, "high": high}
        found[name] |= firsts[name]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--pythae", help="a python that has pythae; without it JAX and ours alone")
    parser.add_argument("--contestant", choices=CONTESTANTS, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.contestant:
        contestant(options.contestant)
        return
    report = interleaved(options.rounds, options.pythae)
    print(f"{'':<36}{'s':>7}{'faster':>8}   quartiles    first call, s   nats")
    for name, row in report.items():
        figures = (
            f"{row['seconds']:>7.2f}{row['faster']:>8.2f}   [{row['low']:.2f}, {row['high']:.2f}]"
        )
        print(f"{name:<36}{figures}{row['first']:>15.1f}{row['value']:>9.1f}")
    if options.out:
        options.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
