r"""Annealed importance sampling: $\log p(x)$ by a walk from the prior, or from a guide, to the posterior."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import exp
from typing import Any

import torch
from torch import Tensor

from ...contract import PyroProgram
from ...inference.data.tensors import Batch
from ...inference.process.states import fork_rng
from ...inference.run.levels import measure_of_data
from ...inference.run.limits import check_total
from ...inference.run.sessions import require_positive, session
from ...inference.run.traces import run_pair
from ...inference.sites.measure_checks import require_density
from ...inference.sites.measures import Bound, Measure, point_sites
from ...inference.training.compiled.functions import RepeatedFunction
from ...inference.vectorization.rows import OneAtATime
from ..chains.coordinates import Posterior
from ..chains.gradients import Compile, whether_to_compile
from ..chains.joint import JointPosterior, posterior_of
from .importance import (
    CHAINS_OF_KHAT,
    chain_statistics,
    concat_statistics,
    has_uneven_weights,
    least_ess,
)
from .psis import khat, khat_threshold
from .results import PerDatum
from .walks import (
    NUM_PILOTS,
    AnnealingPath,
    Walk,
    evaluation_of,
    expected_gradients,
    plan_walk,
)

FIX_OF_START = (
    "start=None, the prior, or a guide with a density such as Conditional(dist.Normal, net)"
)


@dataclass(frozen=True)
class AIS(PerDatum):
    r"""Annealed-importance-sampling estimate of $-\log p(x_i)$ in nats per datum; in expectation an upper bound.

    Attributes:
        per_datum: $-\log \frac1K \sum_k w^{(k)}_i$ `(N,)`, float64.
        monte_carlo: standard error of `per_datum` from the K chains (delta method) `(N,)`; NaN where the ESS is below 4
            (see `share_unreliable`), for the formula can't exceed 1 nat, however far off the figure is.
        ess: effective sample size $(\sum w)^2 / \sum w^2$ of each datum `(N,)`, at most K.
        log_weight: $\log w^{(k)}_i$ `(K, N)`, float64; each weight has the mean $p(x_i)$.
        acceptance: mean acceptance probability over temperatures and chains `(N,)`; NaN without a transition.
        num: number K of chains.
        steps: number T of temperatures.
        kind: what sort of bound.
        measure: what p(x) is: a mass, a density, …
        unit: nats per datum; nats for all data where they share a draw, and the whole set is one datum.
    """

    per_datum: Tensor
    monte_carlo: Tensor
    ess: Tensor
    log_weight: Tensor
    acceptance: Tensor
    num: int
    steps: int
    kind: str = Bound.UPPER
    measure: Measure = Measure.UNSTATED
    unit: str = PerDatum.unit

    def tails(self) -> Tensor:  # noqa: D102
        return khat(self.log_weight)

    @property
    def share_unreliable(self) -> float:
        """Share of the data whose weights are too uneven for a standard error: an ESS below 4, or of half of few
        chains, or, of 100 chains and more, k-hat above `khat_threshold(num)`.
        """
        is_uneven = has_uneven_weights(self.ess, self.tails(), self.num)
        return is_uneven.double().mean().item()

    def __str__(self) -> str:
        return (
            f"AIS: NLL {self._told}, "
            f"{self.num} chains x {self.steps} temperatures, mean ESS {self.ess.mean():.1f}, "
            f"acceptance {self.acceptance.mean():.2f}; {told_weights(self.share_unreliable, self.num)})"
        )


def ais(
    model: PyroProgram,
    *batch: Any,
    num: int = 16,
    steps: int = 1000,
    leapfrog: int = 10,
    start: PyroProgram | None = None,
    seed: int = 0,
    chunk: int = 20_000,
    whiten: bool = True,
    compile: Compile = "auto",
) -> AIS:
    r"""$p(x) = E\left[\prod_{t=1}^T \frac{f_t(z_{t-1})}{f_{t-1}(z_{t-1})}\right]$, $f_t = q^{1-\beta_t} p^{\beta_t}$.

    Here p is $p(x, z)$. Each chain starts at a draw of q, the prior or a guide, and moves by one HMC transition that
    leaves $f_t$ invariant, for $0 = \beta_0 < \dots < \beta_T = 1$ (see `sigmoid_schedule`). With one temperature it is
    importance sampling.

    The weights are unbiased, exactly: every datum has its step size at every temperature, found by a pilot run of 8
    chains of its own and then fixed. Steps that adapt to the weighted chains themselves would depend on where these
    are, and a transition chosen so leaves no distribution invariant.

    Where all data share a draw θ, a chain moves everything at once and the figure is one number, −log p(X).

    The cost is about `(num + 8) * steps * (leapfrog + 5) / 2` gradients of the model per datum.

    Args:
        model: any Pyro program that keeps the contract, with continuous latents; discrete ones are summed over where
            it says so, see `hmc`.
        batch: the data, observation first, a row per datum in each argument; a loader of such batches is read whole.
        num: number K of chains per datum.
        steps: number T of temperatures; the bound tightens as T grows.
        leapfrog: largest number of steps of a trajectory, see `hmc`.
        start: guide to start from; the prior if `None`. It must be able to score any point and cover the posterior: a
            mode that it misses stays out of reach between nearby temperatures as well. The prior misses none.
        seed: of the chains.
        chunk: how many (chain, datum) pairs are in memory at once.
        whiten: move in the base space of a latent whose prior is a flow, see `hmc`.
        compile: whether density and gradient are one graph, see `hmc`; one for the pilot, one for the chains.

    Raises:
        ValueError: for counts below 1, NaN or empty data, a model without latents, a discrete one that is not summed
            over, a guide that draws one that is, whose density is another one at each run, or which is a point mass
            (a `Delta`) and reaches nothing else.

    References:
        Neal 2001, *Annealed importance sampling*, arXiv:physics/9803008; Wu, Burda, Salakhutdinov, Grosse 2017, *On the
        quantitative analysis of decoder-based generative models*, arXiv:1611.04273.

    Example:
        >>> from pyro_dgm import LatentVariableModel, Normal, StandardNormal
        >>> model = LatentVariableModel(StandardNormal(2), Normal(torch.nn.Linear(2, 3)))
        >>> ais(model, torch.zeros(5, 3), num=4, steps=5).per_datum.shape
        torch.Size([5])
    """
    require_positive(steps=steps, leapfrog=leapfrog)
    betas = sigmoid_schedule(steps)
    with session(model, start, *batch, num=num, chunk=chunk, seed=seed) as pair:
        _ = pair.structure  # explains why a program fails on the data
        start = None if start is None else pair.guide
        measure = measure_of_data(pair.model, pair.batch)
        build = partial(posterior_of, pair, whiten=whiten)
        is_joint = pair.structure.has_globals
        check_walk(build, start, pair.batch if is_joint else pair.few)
        use = whether_to_compile(compile, expected_gradients(steps, leapfrog))
        blocks = []
        evaluate: RepeatedFunction | None = None
        for block in pair.blocks(max(num, NUM_PILOTS)):
            path = AnnealingPath(build(block), start)
            evaluate = evaluate or evaluation_of(path, compile=use)
            walk = plan_walk(path.by(evaluate), betas, leapfrog)
            size = len(block[0]) if is_joint else 1  # data of one chain
            blocks.append(_annealed(walk, num, chunk // size))
    statistics = concat_statistics(blocks)
    check_total(measure, statistics["per_datum"])
    unit = f"nats for all {len(pair)} data" if is_joint else AIS.unit
    return AIS(num=num, steps=steps, kind=AIS.kind, measure=measure, unit=unit, **statistics)


def _annealed(walk: Walk, num: int, chunk: int) -> dict[str, Tensor]:
    """The figures of K chains of each datum of a block, on the CPU."""
    log_w, acceptance = walk.many(walk.path.draw, num, chunk)
    return {
        **chain_statistics(log_w),
        "log_weight": log_w.cpu(),
        "acceptance": acceptance.mean(0).cpu(),
    }


def told_weights(share: float, num: int) -> str:
    """The verdict on the weights of chains, for a printed result.

    Args:
        share: of the data whose weights are too uneven.
        num: number of chains.

    Example:
        >>> told_weights(0.0, 16)
        'no datum with an ESS below 4'
    """
    limit = f"an ESS below {least_ess(num):g}"
    if num >= CHAINS_OF_KHAT:
        limit = f"{limit} or k-hat > {khat_threshold(num):.2f}"
    if share == 0:
        return f"no datum with {limit}"
    return f"{share:.0%} of the data with {limit}: no Monte Carlo error there, more steps= needed"


def sigmoid_schedule(steps: int, sharpness: float = 4.0) -> tuple[float, ...]:
    r"""$\beta_t \propto \sigma(\delta (2t/T - 1)) - \sigma(-\delta)$, t = 0, …, T: small steps near both ends.

    Args:
        steps: T.
        sharpness: δ; towards 0 the schedule is linear.

    Example:
        >>> [round(b, 3) for b in sigmoid_schedule(4)]
        [0.0, 0.105, 0.5, 0.895, 1.0]
    """
    sigmoids = []
    for t in range(steps + 1):
        sigmoids.append(1 / (1 + exp(sharpness * (1 - 2 * t / steps))))
    low, high = sigmoids[0], sigmoids[-1]
    return tuple([(sigmoid - low) / (high - low) for sigmoid in sigmoids])


def check_walk(
    build: Callable[[Batch], Posterior | JointPosterior], start: PyroProgram | None, batch: Batch
) -> None:
    """Refuse data, latents and guides that can't be walked, before the first long walk; its noise is not the walk's.

    Args:
        build: the posterior of some data, where it ends.
        start: where it begins.
        batch: the data that are tried.
    """
    with fork_rng(*batch):
        posterior = build(batch)
        if start is None:
            return
        num = None if isinstance(posterior.model, OneAtATime) else 2
        run = run_pair(posterior.model, start, batch, num, posterior.depth)
        points = point_sites(run.guide_sites, run.model_sites)
        require_density("start", points, fix=FIX_OF_START)
        values = posterior.draws_of(start, 2)
        first = posterior.log_guide(start, values, 2)
        second = posterior.log_guide(start, values, 2)
    if not torch.allclose(first, second, equal_nan=True):
        change = (first - second).abs().max().item()
        raise ValueError(
            "start: expected a guide whose density is a fixed function of x and z, got one that "
            f"differs between two runs by up to {change:.2g} nats, so that the path has no "
            "beginning. Fix: start=None, or a guide that draws nothing but its sites."
        )
