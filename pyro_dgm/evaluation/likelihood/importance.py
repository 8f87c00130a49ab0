"""Importance sampling: the likelihood of data under a fitted model, by draws of its guide."""

from __future__ import annotations

from math import log, nan
from typing import Any

import torch
from torch import Tensor

from ...contract import PyroProgram
from ...inference.data.tensors import Batch
from ...inference.run.particles import draw
from ...inference.run.sessions import Session, session
from .psis import khat
from .results import NLL


def nll(
    model: PyroProgram,
    guide: PyroProgram,
    *batch: Any,
    num: int = 1000,
    chunk: int = 20_000,
    seed: int = 0,
) -> NLL:
    r"""$-\log p(x) \le -E\left[\log \frac1K \sum_k \frac{p(x, z_k)}{q(z_k \mid x)}\right]$, $z_k \sim q$, per datum.

    Streams over data and draws under a memory bound; weights are in float64, unscaled by plate sizes or β. Neither
    weights nor random state outside change, and a subset of the data gives other noise but the same distribution.

    Args:
        model: any Pyro program that keeps the contract.
        guide: its guide.
        batch: the data, observation first, a row per datum in each argument; or one loader of such batches.
        num: number K of importance draws.
        chunk: how many (draw, datum) pairs are in memory at once.
        seed: of the draws.

    Raises:
        ValueError: for `num` or `chunk` below 1, NaN or empty data, values outside the support, or a site outside
            the data plate.

    References:
        Burda, Grosse, Salakhutdinov 2016, *Importance weighted autoencoders*, arXiv:1509.00519.
    """
    with session(model, guide, *batch, num=num, chunk=chunk, seed=seed) as pair:
        return nll_of(pair)


def nll_of(pair: Session) -> NLL:
    """`nll` of an open session."""
    model, guide = pair.model, pair.guide
    num = pair.num
    kind = NLL.kind
    blocks = []
    for block in pair.blocks():
        structure = pair.structure
        if structure.is_exact:
            num = min(num, 2)  # every draw is the same exact log density
            kind = "exact"
        log_w, kl = weighted(model, guide, block, num, pair.chunk, structure.depth)
        blocks.append(summary_of(log_w, kl))
    return NLL(num=num, kind=kind, **concat_statistics(blocks))


def weighted(
    model: PyroProgram, guide: PyroProgram, block: Batch, num: int, chunk: int, depth: int
) -> tuple[Tensor, Tensor]:
    """Log weights and the KL term of `num` draws for each datum of a block, both `(K, rows)`."""
    log_w, kl = [], []
    step = max(1, chunk // len(block[0]))
    for start in range(0, num, step):
        size = min(step, num - start)
        particles = draw(model, guide, *block, num=size, depth=depth)
        log_w.append(particles.log_weight)
        kl.append(particles.kl)
    return torch.cat(log_w), torch.cat(kl)


def summary_of(log_w: Tensor, kl: Tensor) -> dict[str, Tensor]:
    """Per-datum statistics of log weights `(K, N)`, on the CPU."""
    statistics = weight_statistics(log_w)
    statistics["nelbo"] = -log_w.mean(0).cpu()
    statistics["kl"] = kl.mean(0).cpu()
    statistics["khat"] = khat(log_w).cpu()
    return statistics


def weight_statistics(log_w: Tensor) -> dict[str, Tensor]:
    """Cost, standard error and ESS of the mean of weights, from their logarithms `(K, N)`; each `(N,)`, on the CPU."""
    num = len(log_w)
    log_sum = log_w.logsumexp(0)
    ess = (2 * log_sum - (2 * log_w).logsumexp(0)).exp()
    # Var(mean w) / mean(w)^2 = (K / ESS - 1) / (K - 1), which one draw does not tell
    degrees = num - 1 if num > 1 else nan
    relative_variance = (num / ess - 1).clamp(min=0) / degrees
    return {
        "per_datum": (log(num) - log_sum).cpu(),
        "monte_carlo": relative_variance.sqrt().cpu(),
        "ess": ess.cpu(),
    }


def concat_statistics(blocks: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The statistics of blocks of data, `(…, N)` each, as those of the whole set."""
    if len(blocks) == 1:
        return blocks[0]
    joint = {}
    for name in blocks[0]:
        parts = [block[name] for block in blocks]
        joint[name] = torch.cat(parts, -1)
    return joint
