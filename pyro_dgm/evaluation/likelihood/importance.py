"""Importance sampling: the likelihood of data under a fitted model, by draws of its guide."""

from __future__ import annotations

from math import log, nan
from typing import Any

import torch
from torch import Tensor

from ...contract import PyroProgram, Site
from ...inference.process.distributed import gather
from ...inference.run.levels import LevelSearch
from ...inference.run.limits import check_divergence, check_figures, check_masses, check_total
from ...inference.run.sessions import Session, session
from ...inference.run.shared_blocks import SharedBlocks
from ...inference.sites.measures import Bound, Measure, bound_of, measure_of
from .psis import khat, khat_threshold
from .results import NLL
from .scoring import Compile, Scoring
from .weights import Weights

CHAINS_OF_KHAT = 100  # of which twenty make up the tail: fewer tell of its prior alone


def nll(
    model: PyroProgram,
    guide: PyroProgram,
    *batch: Any,
    num: int = 1000,
    chunk: int = 20_000,
    seed: int = 0,
    compile: Compile = "auto",
) -> NLL:
    r"""$-\log p(x) \le -E\left[\log \frac1K \sum_k \frac{p(x, z_k)}{q(z_k \mid x)}\right]$, $z_k \sim q$, per datum.

    Streams over data and draws under a memory bound; weights are in float64, unscaled by plate sizes or β. Neither
    weights nor random state outside change, and a subset of the data gives other noise but the same distribution.

    The noise is that of blocks of 2,000 pairs of a draw and a datum (20,000 on a GPU), each of a seed of its own: one
    seed gives one figure, up to the rounding of sums, whatever `chunk` is, from a tensor or a loader, with or without
    `compile`. The guide draws a block at once, and the model scores it in pieces of `chunk` pairs; where sites are
    summed over, or programs take one particle at a time, the draws are made in pieces as well, and a `chunk` below a
    block gives others of the same distribution.

    Discrete sites with `infer={"enumerate": "parallel"}` are summed over, exactly: those of the model alone, and those
    of the guide, whose weight is then $\sum_c p(x, z_c, c) / q(z_c \mid x, c)$ with a draw of z for every value of c.

    `measure` of the result says whether p(x) is a mass or a density; of a guide with a point mass (a `Delta`,
    `AutoDelta`) the figure is the joint density $-\log p(x, z^*)$, which bounds nothing, and `kind` says so; so does
    it of an improper prior, under which no p(x) integrates to one.

    Where all data share a draw θ, it is the posterior predictive cost of the guide,
    $-\log E_{q(\theta)}[p(x_i \mid \theta)]$, and `kind` says so: of data that the guide has seen it is no marginal
    likelihood, which is `evidence`. All data are then scored at once.

    Args:
        model: any Pyro program that keeps the contract.
        guide: its guide.
        batch: the data, observation first, a row per datum in each argument; or one loader, dataset or stream of them.
            A memory map, an array on disk, sparse rows and streams are read a block at a time.
        num: number K of importance draws.
        chunk: how many (draw, datum) pairs are in memory at once; the figure does not depend on it.
        seed: of the draws.
        compile: whether the weights of a block are one graph, whose kernels take seconds to build: as a rule it saves
            a tenth to a half of the time of a large network, and most of that of a small one. `"auto"`: once 400 blocks
            of 2,000 pairs (20,000 on a GPU) have been scored, if the programs can be traced. The figures of both are
            equal up to rounding.

    Raises:
        ValueError: for `num` or `chunk` below 1, NaN or empty data, values outside the support, or an observed site
            outside the data plate; for a guide over the latents of all data at once; for masses beyond 1 or a KL below
            0, beyond rounding and the noise of the draws.

    References:
        Burda, Grosse, Salakhutdinov 2016, *Importance weighted autoencoders*, arXiv:1509.00519.
    """
    with session(model, guide, *batch, num=num, chunk=chunk, seed=seed) as pair:
        return nll_of(pair, compile=compile)


def nll_of(pair: Session, *, compile: Compile = "auto") -> NLL:
    """`nll` of an open session."""
    scores = Scores(pair)
    blocks = SharedBlocks(pair, "nll")
    score: Scoring | None = None
    with blocks.together():
        for block in blocks:
            # Not before: a stream has its structure from its first block.
            score = score or Scoring.of(pair, compile=compile)
            scores.add(score(block))
    scores.gather(blocks)
    return scores.nll()


class Scores:
    """An `NLL` in the making: the blocks of a session's data, scored one after the other.

    Args:
        pair: the open session.
    """

    def __init__(self, pair: Session):
        self.pair = pair
        self.num = pair.num
        self.levels = LevelSearch()
        self.observed: dict[str, Site] = {}
        self.measure: Measure | None = None  # where other ranks have scored blocks, too
        self.statistics: list[dict[str, Tensor]] = []
        self.limits: list[dict[str, Tensor]] = []

    def add(self, weights: Weights) -> None:
        """Note the weights of the next block."""
        self.num = len(weights.log_w)
        self.observed = weights.observed
        self.levels.add(weights.observed)
        self.statistics.append(summary_of(weights.log_w, weights.kl, weights.rounding))
        self.limits.append({"rounding": weights.rounding.cpu(), "mass": weights.log_mass.cpu()})

    def gather(self, blocks: SharedBlocks) -> None:
        """Take in the blocks that other ranks have scored."""
        if blocks.world == 1:
            return
        self.statistics = blocks.gather(self.statistics)
        self.limits = blocks.gather(self.limits)
        measure = measure_of(self.observed) if self.observed else None
        levels, self.levels = self.levels, LevelSearch()
        for found in gather((self.num, measure, levels)):
            self.num, measure = found[:2] if found[1] is not None else (self.num, measure)
            self.levels.take_in(found[2])
        self.measure = measure

    def nll(self) -> NLL:
        """The likelihood of all blocks.

        Raises:
            ValueError: for masses beyond 1, or a KL below 0, beyond rounding and noise.
        """
        measure, kind = self._meaning()
        statistics = concat_statistics(self.statistics)
        limits = concat_statistics(self.limits)
        rounding = limits["rounding"]
        check_figures("nll", statistics["per_datum"])
        if measure is not Measure.FACTOR:
            check_masses(limits["mass"], rounding)
        check_total(measure, statistics["per_datum"], rounding)
        if measure in (Measure.JOINT, Measure.IMPROPER):
            statistics["kl"] = torch.full_like(statistics["kl"], nan)
        else:
            check_divergence("nll", statistics["kl"], self.num, rounding)
        return NLL(
            num=self.num,
            kind=kind,
            measure=self.levels.refine(measure),
            **statistics,
        )

    def _meaning(self) -> tuple[Measure, Bound]:
        """What p(x) is, and how the figure relates to it; a point mass at a global is one that predicts."""
        structure = self.pair.structure
        measure = structure.measure
        is_local = bool(set(structure.points) - set(structure.shared))
        if measure is Measure.JOINT and not is_local:
            own = measure_of(self.observed) if self.measure is None else self.measure
            measure = Measure.FACTOR if structure.factors else own
        if structure.has_globals and measure is not Measure.JOINT:
            return measure, Bound.PREDICTIVE
        return measure, bound_of(measure, is_exact=structure.is_exact)


def summary_of(log_w: Tensor, kl: Tensor, rounding: Tensor | float = 0.0) -> dict[str, Tensor]:
    """Per-datum statistics of log weights `(K, N)`, on the CPU; no standard error where k-hat says that there is none.

    Args:
        log_w: log weights.
        kl: terms of the KL `(K, N)`.
        rounding: of the log weights `(N,)`, see `Weights`.
    """
    statistics = weight_statistics(log_w)
    tails = khat(log_w, rounding).cpu()
    is_reliable = tails <= khat_threshold(len(log_w))
    statistics["monte_carlo"] = statistics["monte_carlo"].where(is_reliable, nan)
    statistics["nelbo"] = -log_w.mean(0).cpu()
    statistics["kl"] = kl.mean(0).cpu()
    statistics["khat"] = tails
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


def chain_statistics(log_w: Tensor) -> dict[str, Tensor]:
    """`weight_statistics` of chains; no standard error where all but a few weigh nothing."""
    statistics = weight_statistics(log_w)
    is_uneven = has_uneven_weights(statistics["ess"], khat(log_w).cpu(), len(log_w))
    statistics["monte_carlo"] = statistics["monte_carlo"].masked_fill(is_uneven, nan)
    return statistics


def has_uneven_weights(ess: Tensor, tails: Tensor, num: int) -> Tensor:
    """Whether the weights of each datum's chains are too uneven for a standard error `(N,)`.

    Args:
        ess: effective sample sizes `(N,)`.
        tails: k-hat `(N,)`; a few chains have none that could be read.
        num: number of chains.
    """
    is_uneven = ess < least_ess(num)
    return is_uneven | (tails > khat_threshold(num)) if num >= CHAINS_OF_KHAT else is_uneven


def least_ess(num: int) -> float:
    """The ESS below which chains have no standard error: 4, or half of fewer chains; one chain never has one.

    At an ESS of 4 the formula of the error gives half a nat, and its largest value, at an ESS of 1, is one.

    Example:
        >>> least_ess(16), least_ess(3), least_ess(1)
        (4, 2.0, 2)
    """
    return min(4, (num + 1) / 2) if num > 1 else 2


def concat_statistics(blocks: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The statistics of blocks of data, `(…, N)` each, as those of the whole set."""
    if len(blocks) == 1:
        return blocks[0]
    joint = {}
    for name in blocks[0]:
        parts = [block[name] for block in blocks]
        joint[name] = torch.cat(parts, -1)
    return joint
