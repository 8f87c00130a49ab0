"""Time of Pareto k-hat for many data at once, as ratios to `arviz.psislw`, in one interleaved run.

    python tests/benchmarks/khat.py --rounds 5 --threads 1 --out khat.json

A call fits the tails of 10,000,000 log weights: 1,000 draws of 10,000 data, or 10,000 draws of 1,000. Both compute the
same numbers, which is checked to 1e-8 before anything is timed; `psislw` also smooths the weights, and cannot be asked
not to. It takes float64 with the draws last, and copies them; ours takes draws first, of either precision. Processes
and ratios are those of `steps.py`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import arviz
import numpy as np
import torch
from steps import SUITES, Step, interleaved, summary
from torch import Tensor

import pyro_dgm as dgm


def log_weights(num: int, data: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Normal log weights `(num, data)` whose spread grows over the data from 0.1 to 4 nats."""
    return (torch.randn(num, data) * torch.linspace(0.1, 4, data)).to(dtype)


def by_arviz(log_w: Tensor) -> Step:
    rows = log_w.double().T.contiguous().numpy()
    return lambda: arviz.psislw(rows)[1]


def ours(log_w: Tensor) -> Step:
    return lambda: dgm.khat(log_w)


def suite(num: int, data: int) -> dict:
    return {
        "arviz.psislw (baseline)": lambda: by_arviz(log_weights(num, data)),
        "ours": lambda: ours(log_weights(num, data)),
        "ours, float32": lambda: ours(log_weights(num, data, torch.float32)),
    }


# The processes of `steps.py` look their step up by suite and name.
SUITES.clear()
SUITES |= {
    "1,000 draws of 10,000 data": suite(1000, 10_000),
    "10,000 draws of 1,000 data": suite(10_000, 1000),
}


def check() -> None:
    """Ours and ArviZ agree."""
    log_w = log_weights(1000, 200)
    np.testing.assert_allclose(ours(log_w)(), by_arviz(log_w)(), rtol=0, atol=1e-8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    check()
    report = {}
    for title in SUITES:
        report[title] = summary(interleaved(title, options.rounds, 1, options.threads, warmup=1))
        print(f"\n{title}\n{'':<28}{'ms':>8}{'ratio':>8}   quartiles")
        for name, row in report[title].items():
            print(
                f"{name:<28}{row['ms']:>8.0f}{row['ratio']:>8.3f}   {row['low']:.3f} … {row['high']:.3f}"
            )
    if options.out:
        options.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
