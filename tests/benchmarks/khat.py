"""Time of Pareto k-hat for many data at once, as ratios to `arviz.psislw`, in one interleaved run.

    python tests/benchmarks/khat.py --rounds 5 --clock cpu --out khat.json

A call fits the tails of 10,000,000 log weights: 1,000 draws of 10,000 data, or 10,000 draws of 1,000. Both compute the
same numbers, which is checked to 1e-8 before anything is timed; `psislw` also smooths the weights, and cannot be asked
not to. It takes float64 with the draws last, and copies them; ours takes draws first, of either precision. How they
take turns is told in `races/racing.py`.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import Any

import arviz
import numpy as np
import torch
from contestants.sizes import Contestant
from races.racing import Build, is_chosen, parser, race, rules_of, summary
from torch import Tensor

import pyro_dgm as dgm

ARVIZ = "arviz.psislw (float64)"
SIZES = {
    "1,000 draws of 10,000 data": (1000, 10_000),
    "10,000 draws of 1,000 data": (10_000, 1000),
}


def log_weights(num: int, data: int) -> Tensor:
    """Normal log weights `(num, data)` in float64, whose spread grows over the data from 0.1 to 4 nats."""
    return torch.randn(num, data).double() * torch.linspace(0.1, 4, data)


def by_arviz(num: int, data: int) -> Contestant:
    rows = log_weights(num, data).T.contiguous().numpy()
    return Contestant(lambda: arviz.psislw(rows)[1], 0, float(arviz.psislw(rows)[1].mean()))


def ours(num: int, data: int, dtype: torch.dtype) -> Contestant:
    log_w = log_weights(num, data).to(dtype)
    return Contestant(lambda: dgm.khat(log_w), 0, dgm.khat(log_w).mean().item())


def builds(num: int, data: int) -> dict[str, Build]:
    """The contestants; the mean k-hat stands where others have a loss."""
    return {
        ARVIZ: partial(by_arviz, num, data),
        "ours": partial(ours, num, data, torch.float64),
        "ours, float32": partial(ours, num, data, torch.float32),
    }


def check() -> None:
    """Ours and ArviZ agree."""
    log_w = log_weights(1000, 200)
    theirs = arviz.psislw(log_w.T.contiguous().numpy())[1]
    np.testing.assert_allclose(dgm.khat(log_w), theirs, rtol=0, atol=1e-8)


def main() -> None:
    options = parser(__doc__.splitlines()[0]).parse_args()
    check()
    rules = replace(rules_of(options), warmup=1)
    report: dict[str, Any] = {"rules": vars(rules)}
    for title, size in SIZES.items():
        if not is_chosen(title, options):
            continue
        report[title] = summary(race(builds(*size), rules), ARVIZ, rules.clock)
        print(f"\n{title}\n{'':<28}{'CPU ms':>8}{'÷ ArviZ':>9}   quartiles       mean k-hat")
        for name, row in report[title].items():
            quartiles = f"{row['low']:.3f} … {row['high']:.3f}"
            times = f"{row['cpu_ms']:>8.0f}{row['ratio']:>9.3f}"
            print(f"{name:<28}{times}   {quartiles}{row['loss']:>13.4f}", flush=True)
        if options.out:
            options.out.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
