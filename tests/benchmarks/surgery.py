"""Time and memory of ELBO surgery over all pairs of draws and data, and whether they grow in proportion.

    python tests/benchmarks/surgery.py --draws 10000 --data 60000 --threads 2

A diagonal normal guide of 40 dims, untrained: the cost does not depend on the weights. Extra memory is the growth of
the process's peak, so that the largest run comes last.
"""

from __future__ import annotations

import argparse
import json
import resource
from pathlib import Path
from time import perf_counter

import pyro.distributions as dist
import torch

import pyro_dgm as dgm


def peak() -> float:
    """GiB that the process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=10_000)
    parser.add_argument("--data", type=int, default=60_000)
    parser.add_argument("--dim", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    encoder = dgm.Conditional(dist.Normal, dgm.mlp(784, 300, 2 * options.dim))
    vae = dgm.VAE(
        dgm.StandardNormal(options.dim), dgm.Bernoulli(dgm.mlp(options.dim, 300, 784)), encoder
    )
    x = torch.rand(options.data, 784).bernoulli()
    report = {}
    print(f"{'draws × data':>20}{'seconds':>9}{'ns/pair':>9}{'extra GiB':>11}")
    for share in (16, 4, 1):
        num, before, start = options.draws, peak(), perf_counter()
        found = dgm.surgery(vae.model, vae.guide, x[: options.data // share], num=num)
        seconds, pairs = perf_counter() - start, found.num * found.others
        row = {
            "seconds": seconds,
            "ns_per_pair": 1e9 * seconds / pairs,
            "extra_gib": peak() - before,
        }
        report[f"{found.num} × {found.others}"] = row
        print(
            f"{found.num:>10,} × {found.others:<7,}{seconds:9.1f}{row['ns_per_pair']:9.1f}{row['extra_gib']:11.2f}"
        )
    if options.out:
        options.out.write_text(json.dumps(report))


if __name__ == "__main__":
    main()
