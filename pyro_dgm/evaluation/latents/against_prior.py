r"""Is the aggregate of a guide the prior? Draws of either, and a two-sample test between them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...contract import PyroProgram
from ...inference.data.tensors import Batch
from ...inference.drawing.simulation import simulate, site_draws
from ...inference.drawing.templates import generative
from ...inference.run.sessions import Session, require_positive, session
from ..samples.twosample import TwoSample, mmd


def aggregate_test(
    model: PyroProgram,
    guide: PyroProgram,
    *batch: Any,
    num: int = 1000,
    num_permutations: int = 999,
    seed: int = 0,
) -> TwoSample:
    r"""Is $q_{agg}(z) = \frac1N \sum_i q(z \mid x_i)$ the prior? `mmd` between draws of either, of all latent sites.

    One draw for each of at most `num` data chosen at random, against as many of the prior, at the same contexts if
    there are any. The p-value is about the distribution that the data come from. It says whether there is a
    difference; `surgery` says how many nats it costs. Discrete sites are compared by the numbers of their states.

    Args:
        model: a Pyro program that generates when its first argument is `None`.
        guide: its guide.
        batch: the data, observation first.
        num: draws of either kind at most.
        num_permutations: see `mmd`.
        seed: of the draws and relabellings.

    Raises:
        ValueError: for counts below 1, a guide without latent sites, fewer than two data, or a site outside the data
            plate.
    """
    aggregate, prior = aggregate_draws(model, guide, *batch, num=num, seed=seed)
    return compare_draws(aggregate, prior, num_permutations, seed)


def compare_draws(
    aggregate: Tensor, prior: Tensor, num_permutations: int = 999, seed: int = 0
) -> TwoSample:
    """`mmd` of two samples; where all draws are one point, as a discrete latent in one state, any bandwidth says 0."""
    is_one_point = bool((aggregate == prior[0]).all() & (prior == prior[0]).all())
    return mmd(
        real=aggregate,
        fake=prior,
        bandwidth=1.0 if is_one_point else None,
        num_permutations=num_permutations,
        seed=seed,
    )


def aggregate_draws(
    model: PyroProgram, guide: PyroProgram, *batch: Any, num: int = 1000, seed: int = 0
) -> tuple[Tensor, Tensor]:
    r"""Draws of $q_{agg}(z)$ and of the prior, all latent sites as one vector; each `(num, D)`, float64.

    One draw for each of at most `num` data chosen at random; as many of the prior, at the same contexts if there are
    any.

    Args:
        model: a Pyro program that generates when its first argument is `None`.
        guide: its guide.
        batch: the data, observation first.
        num: draws of either kind at most.
        seed: of the choice and the draws.

    Raises:
        ValueError: for counts below 1, a guide without latent sites, or a site outside the data plate.
    """
    require_positive(num=num)
    with session(model, guide, *batch, seed=seed) as pair:
        return aggregate_draws_of(pair, num)


def aggregate_draws_of(pair: Session, num: int) -> tuple[Tensor, Tensor]:
    """`aggregate_draws` of an open session."""
    pair.structure.require_own_latents()
    if not pair.structure.codes:
        raise ValueError(
            "aggregate_test: expected a guide with latent sites, got none to compare with a prior. "
            "Fix: nll(model, guide, x), which scores such a model."
        )
    index = torch.randperm(len(pair))[:num]
    block = pair.rows(index.to(pair.device))
    encodings = _encodings(pair, block)
    prior_draws = _prior_draws(pair, block)
    return _as_vectors(encodings), _as_vectors(prior_draws)


def _encodings(pair: Session, block: Batch) -> dict[str, Tensor]:
    """Latent site → one draw of the guide for each datum of a block `(N, *plates, *event)`."""
    sites = pair.draw(block, num=1).pair.latent
    return {name: site_draws(sites[name])[0] for name in pair.structure.codes}


def _prior_draws(pair: Session, block: Batch) -> dict[str, Tensor]:
    """Latent site → one draw of the prior at the context of each datum `(N, *plates, *event)`."""
    structure = pair.structure
    x, *context = block
    codes = list(structure.codes)
    model = generative(pair.model, block)
    _, draws = simulate(model, len(x), tuple(context), codes, structure.depth)
    return draws


def _as_vectors(draws: dict[str, Tensor]) -> Tensor:
    """Draws `(N, *event)` of several sites as vectors `(N, D)`, in float64."""
    return torch.cat([z.reshape(len(z), -1).double() for z in draws.values()], 1)
