r"""Bidirectional Monte Carlo: $\log p(x)$ of simulated data between a lower and an upper bound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from ...contract import PyroProgram
from ...display.tabular import Tabular
from ...inference.data.extremes import extreme_batch
from ...inference.data.tensors import Batch, repeat_rows, take_rows
from ...inference.drawing.prior_sessions import session_of_prior
from ...inference.drawing.simulation import run_without_data, simulate
from ...inference.run.levels import measure_of_data
from ...inference.run.limits import check_total
from ...inference.run.sessions import require_positive
from ...inference.run.traces import latent_sites, plate_depth
from ...inference.sites.measures import Measure
from ...inference.training.compiled.functions import RepeatedFunction
from ..chains.coordinates import Posterior
from ..chains.gradients import Compile, whether_to_compile
from ..chains.joint import JointPosterior
from ..chains.points import Values
from ..estimate import Estimate, estimated
from .annealing import check_walk, sigmoid_schedule, told_weights
from .importance import chain_statistics, concat_statistics
from .walks import (
    NUM_PILOTS,
    AnnealingPath,
    Walk,
    evaluation_of,
    expected_gradients,
    plan_walk,
)


@dataclass(frozen=True)
class BDMC(Tabular):
    r"""$\log p(x_i)$ of data that the model made, in nats, between two bounds that hold in expectation.

    Attributes:
        lower: $\log \frac1K \sum_k w^{(k)}_i$ of walks from the start to the posterior `(N,)`, float64.
        upper: $-\log \frac1K \sum_k v^{(k)}_i$ of walks back from the $z^*_i$ that made $x_i$ `(N,)`, float64.
        lower_error: standard error of `lower` from the K chains (delta method) `(N,)`; NaN where the ESS is below 4,
            as of `ais`.
        upper_error: the same of `upper` given $z^*_i$, which all its chains share `(N,)`.
        lower_ess: effective sample size of the chains from the start `(N,)`, at most K.
        upper_ess: that of the chains back `(N,)`.
        data: the simulated arguments of the model, observation first.
        num: number K of chains each way.
        steps: number T of temperatures.
        measure: what p(x) is: a mass, a density, …
    """

    lower: Tensor
    upper: Tensor
    lower_error: Tensor
    upper_error: Tensor
    lower_ess: Tensor
    upper_ess: Tensor
    data: Batch
    num: int
    steps: int
    measure: Measure = Measure.UNSTATED

    @property
    def gap(self) -> Tensor:
        """Upper minus lower bound `(N,)`; in expectation at least 0 and at least the error of either."""
        return self.upper - self.lower

    @property
    def mean_gap(self) -> Estimate:
        """Mean gap, nats per datum; its standard error holds the spread of the data, of z* and of the chains."""
        return estimated(self.gap[None])

    @property
    def share_unreliable(self) -> float:
        """Share of the data of which one bound has no standard error."""
        is_unreliable = self.lower_error.isnan() | self.upper_error.isnan()
        return is_unreliable.double().mean().item()

    def columns(self) -> dict[str, Tensor]:
        """One row per datum: both bounds, their gap, their standard errors and effective sample sizes."""
        return {
            "lower": self.lower,
            "upper": self.upper,
            "gap": self.gap,
            "lower_error": self.lower_error,
            "upper_error": self.upper_error,
            "lower_ess": self.lower_ess,
            "upper_ess": self.upper_ess,
        }

    def __str__(self) -> str:
        return (
            f"BDMC: mean log p(x) of {len(self.lower)} simulated data "
            f"from {self.lower.mean():.3f} to {self.upper.mean():.3f} nats, gap {self.mean_gap} "
            f"({self.measure}; {self.num} chains x {self.steps} temperatures each way, mean ESS "
            f"{self.lower_ess.mean():.1f} and {self.upper_ess.mean():.1f}; "
            f"{told_weights(self.share_unreliable, self.num)})"
        )


def bdmc(
    model: PyroProgram,
    *context: Any,
    num_data: int = 100,
    num: int = 16,
    steps: int = 1000,
    leapfrog: int = 10,
    start: PyroProgram | None = None,
    seed: int = 0,
    chunk: int = 20_000,
    whiten: bool = True,
    like: Any = None,
    compile: Compile = "auto",
) -> BDMC:
    r"""$E[\log \bar w] \le \log p(x) \le -E[\log \bar v]$ for $(z^*, x) \sim p(z, x)$: what `ais` is worth on a model.

    The walk of `ais` gives w with $E[w] = p(x)$. For data that the model made, z* is one exact draw of $p(z \mid x)$,
    and the same walk backwards, from z* to the start, gives v with $E[v] = 1 / p(x)$. So the gap bounds the mean error
    of `ais` with these settings, on data from the model; data from elsewhere may be harder.

    Both ways share the transitions, which one pilot run found from x alone. The cost is twice that of `ais`.

    Discrete sites that are summed over (see `hmc`) are drawn with the data and then left out of z*, which is a draw of
    $p(z \mid x)$ all the same.

    Args:
        model: any Pyro program that keeps the contract and generates when its first argument is `None`.
        context: the program's further arguments, without x, for the data are simulated.
        num_data: number N of simulated data; per row of the context where there is one.
        num: number K of chains each way.
        steps: number T of temperatures.
        leapfrog: largest number of steps of a trajectory, see `hmc`.
        start: guide to start from; the prior if `None`. See `ais`.
        seed: of data and chains.
        chunk: how many (chain, datum) pairs are in memory at once.
        whiten: move in the base space of a latent whose prior is a flow, see `hmc`.
        like: data as the model's first argument takes them, for a model that does not run on `None`: what it observes
            is drawn in their place, by `poutine.uncondition`, and their values do not count.
        compile: whether density and gradient are one graph, see `ais`.

    Raises:
        ValueError: for counts below 1, a model that does not generate from these arguments alone, or returns no tensor,
            and as `ais`.

    References:
        Grosse, Ghahramani, Adams 2015, *Sandwiching the marginal likelihood using bidirectional Monte Carlo*,
        arXiv:1511.02543; Wu, Burda, Salakhutdinov, Grosse 2017, arXiv:1611.04273.

    Example:
        >>> import torch
        >>> from pyro_dgm import LatentVariableModel, Normal, StandardNormal
        >>> model = LatentVariableModel(StandardNormal(2), Normal(torch.nn.Linear(2, 3)))
        >>> bdmc(model, num_data=5, num=4, steps=5).gap.shape
        torch.Size([5])
    """
    require_positive(num_data=num_data, steps=steps, leapfrog=leapfrog)
    betas = sigmoid_schedule(steps)
    options = {"num": num, "chunk": chunk, "seed": seed, "like": like}
    with session_of_prior(model, start, *context, **options) as pair:
        batch, truth = _simulate(pair.model, num_data, pair.context)
        start = None if start is None else pair.guide
        measure = measure_of_data(pair.model, batch)
        build = partial(Posterior, pair.model, whiten=whiten)
        check_walk(build, start, extreme_batch(batch))

        use = whether_to_compile(compile, 2 * expected_gradients(steps, leapfrog))
        evaluations: list[RepeatedFunction] = []

        def walk_of(part: Batch) -> Walk:
            path = AnnealingPath(build(part), start)
            if not evaluations:  # one for all blocks
                evaluations.append(evaluation_of(path, compile=use))
            return plan_walk(path.by(evaluations[0]), betas, leapfrog)

        blocks = _bracket_blocks(walk_of, batch, truth, num, chunk)
    statistics = concat_statistics(blocks)
    check_total(measure, -statistics["lower"])
    return BDMC(data=batch, num=num, steps=steps, measure=measure, **statistics)


def _simulate(model: PyroProgram, num: int, context: Batch) -> tuple[Batch, Values]:
    r"""$(z^*, x) \sim p(z, x)$, `num` for each row of a context: the model's arguments, and every site data first."""
    repeated = tuple([repeat_rows(value, num) for value in context])
    trace = run_without_data(model, repeated)
    names = list(latent_sites(trace))
    x, truth = simulate(model, num, repeated, names, plate_depth(trace))
    return (x, *repeated), truth


def _bracket_blocks(
    walk_of: Callable[[Batch], Walk], batch: Batch, truth: Values, num: int, chunk: int
) -> list[dict[str, Tensor]]:
    """Both bounds, a block of data after the other, each with the walk of its own posterior."""
    rows = max(1, chunk // max(num, NUM_PILOTS))
    blocks = []
    for first in range(0, len(batch[0]), rows):
        block = slice(first, first + rows)
        truth_of_block = {name: value[block] for name, value in truth.items()}
        blocks.append(_bracket(walk_of(take_rows(batch, block)), truth_of_block, num, chunk))
    return blocks


def _bracket(walk: Walk, truth: Values, num: int, chunk: int) -> dict[str, Tensor]:
    """Both bounds of a block of data, each with its standard error, on the CPU.

    Args:
        walk: from the start to the posterior of the block.
        truth: latent site → the values `(N, *plates, *event)` that made its data.
        num: number of chains each way.
        chunk: how many pairs of chain and datum are in memory at once.
    """
    origin = _coordinates_of_truth(walk.path.posterior, truth)

    def begin_at_truth(size: int) -> Tensor:
        return origin.expand(size, -1, -1)

    log_w, _ = walk.many(walk.path.draw, num, chunk)
    log_v, _ = walk.reversed().many(begin_at_truth, num, chunk)
    forward, backward = chain_statistics(log_w), chain_statistics(log_v)
    return {
        "lower": -forward["per_datum"],
        "upper": backward["per_datum"],
        "lower_error": forward["monte_carlo"],
        "upper_error": backward["monte_carlo"],
        "lower_ess": forward["ess"],
        "upper_ess": backward["ess"],
    }


def _coordinates_of_truth(posterior: Posterior | JointPosterior, truth: Values) -> Tensor:
    r"""$\zeta$ `(1, N, D)` of one value of every site and datum, given data first."""
    values = {}
    for name in posterior.places:
        values[name] = truth[name].movedim(0, posterior.depth - 1)[None]
    return posterior.coordinates(values, 1)
