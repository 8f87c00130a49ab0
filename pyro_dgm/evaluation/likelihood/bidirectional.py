r"""Bidirectional Monte Carlo: $\log p(x)$ of simulated data between a lower and an upper bound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...inference.run.data import take_rows
from ...inference.run.estimates import estimating, placed_context
from ...inference.run.sessions import require_positive
from ...inference.run.simulation import run_without_data, simulate
from ...inference.run.traces import latent_sites, plate_depth
from ..chains.coordinates import Posterior, Values
from ..estimate import Estimate, estimated
from .annealing import AnnealingPath, Walk, piloted, refuse, rows_in
from .importance import weight_statistics


@dataclass(frozen=True)
class BDMC:
    r"""$\log p(x_i)$ of data that the model made, in nats, between two bounds that hold in expectation.

    Attributes:
        lower: $\log \frac1K \sum_k w^{(k)}_i$ of walks from the start to the posterior `(N,)`, float64.
        upper: $-\log \frac1K \sum_k v^{(k)}_i$ of walks back from the $z^*_i$ that made $x_i$ `(N,)`, float64.
        lower_error: standard error of `lower` from the K chains (delta method) `(N,)`.
        upper_error: the same of `upper` given $z^*_i$, which all its chains share `(N,)`.
        data: the simulated arguments of the model, observation first.
        num: number K of chains each way.
        steps: number T of temperatures.
    """

    lower: Tensor
    upper: Tensor
    lower_error: Tensor
    upper_error: Tensor
    data: tuple
    num: int
    steps: int

    @property
    def gap(self) -> Tensor:
        """Upper minus lower bound `(N,)`; in expectation at least 0 and at least the error of either."""
        return self.upper - self.lower

    @property
    def mean_gap(self) -> Estimate:
        """Mean gap, nats per datum; its standard error holds the spread of the data, of z* and of the chains."""
        return estimated(self.gap[None])

    def __str__(self) -> str:
        return (
            f"BDMC: mean log p(x) of {len(self.lower)} simulated data from {self.lower.mean():.3f} to "
            f"{self.upper.mean():.3f} nats, gap {self.mean_gap} "
            f"({self.num} chains x {self.steps} temperatures each way)"
        )


def bdmc(
    model: Callable,
    *context: Any,
    num_data: int = 100,
    num: int = 16,
    steps: int = 1000,
    leapfrog: int = 10,
    start: Callable | None = None,
    seed: int = 0,
    chunk: int = 20_000,
    whiten: bool = True,
) -> BDMC:
    r"""$E[\log \bar w] \le \log p(x) \le -E[\log \bar v]$ for $(z^*, x) \sim p(z, x)$: what `ais` is worth on a model.

    The walk of `ais` gives w with $E[w] = p(x)$. For data that the model made, z* is one exact draw of $p(z \mid x)$,
    and the same walk backwards, from z* to the start, gives v with $E[v] = 1 / p(x)$. So the gap bounds the mean error
    of `ais` with these settings, on data from the model; data from elsewhere may be harder.

    Both ways share the transitions, which one pilot run found from x alone. The cost is twice that of `ais`.

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

    Raises:
        ValueError: for counts below 1, a model that does not generate from these arguments alone, or returns no tensor,
            and as `ais`.

    References:
        Grosse, Ghahramani, Adams 2015, *Sandwiching the marginal likelihood using bidirectional Monte Carlo*,
        arXiv:1511.02543; Wu, Burda, Salakhutdinov, Grosse 2017, arXiv:1611.04273.

    Example:
        >>> from pyro_dgm import LatentVariableModel, Normal, StandardNormal
        >>> model = LatentVariableModel(StandardNormal(2), Normal(torch.nn.Linear(2, 3)))
        >>> bdmc(model, num_data=5, num=4, steps=5).gap.shape
        torch.Size([5])
    """
    require_positive(num_data=num_data, num=num, steps=steps, leapfrog=leapfrog, chunk=chunk)
    rows, blocks = rows_in(chunk, num), []
    with estimating(model, start, seed=seed):
        batch, truth = _made(model, num_data, placed_context(model, context))
        refuse(model, start, batch, whiten=whiten)
        for first in range(0, len(batch[0]), rows):
            here = slice(first, first + rows)
            walk = piloted(
                AnnealingPath(Posterior(model, take_rows(batch, here), whiten=whiten), start),
                steps,
                leapfrog,
            )
            blocks.append(_bracket(walk, {name: z[here] for name, z in truth.items()}, num, chunk))
    found: dict[str, Any] = {name: torch.cat([b[name] for b in blocks]) for name in blocks[0]}
    return BDMC(data=batch, num=num, steps=steps, **found)


def _made(model: Callable, num: int, context: tuple) -> tuple[tuple, Values]:
    r"""$(z^*, x) \sim p(z, x)$, `num` for each row of a context: the model's arguments, and every site data first."""
    context = tuple(c.repeat(num, *[1] * (c.dim() - 1)) if _has_rows(c) else c for c in context)
    trace = run_without_data(model, context)
    x, truth = simulate(model, num, context, list(latent_sites(trace)), plate_depth(trace))
    return (x, *context), truth


def _has_rows(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0


def _bracket(walk: Walk, truth: Values, num: int, chunk: int) -> dict[str, Tensor]:
    """Both bounds of a block of data, each with its standard error, on the CPU."""
    posterior = walk.path.posterior
    values = {name: truth[name].movedim(0, posterior.depth - 1)[None] for name in posterior.places}
    origin = posterior.coordinates(values, 1)
    there = weight_statistics(walk.many(walk.path.draws, num, chunk)[0])
    back = weight_statistics(
        walk.reversed().many(lambda size: origin.expand(size, -1, -1), num, chunk)[0]
    )
    return {
        "lower": -there["per_datum"],
        "upper": back["per_datum"],
        "lower_error": there["monte_carlo"],
        "upper_error": back["monte_carlo"],
    }
