r"""Integrals of densities of one or two numbers, by the trapezoidal rule on a grid that reaches far into the tails."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Transform

from ...densities.scoring import log_prob_of
from ..chains.charts import bijection_onto, sum_event

# Dims of an event → the reach of the quadrature, sinh(reach) spreads, and its points along each dim.
GRIDS = {1: (12.0, 4001), 2: (7.0, 481)}
MAX_DIM = max(GRIDS)
BLOCK = 4_000_000  # log densities in memory at once
SETTLED = 5e-3  # nats: what the quadrature may change by with half of its points
NUM_DRAWS = 512  # that show where the density has its mass


def log_integral(distribution: Distribution) -> Tensor:
    r"""$\log \int p(x)\, dx$ `(*batch)`, float64, and a check: half of the points must give the same.

    Raises:
        NotImplementedError: for a support without a bijection, or where the quadrature has not settled.
    """
    onto = _bijection_of(distribution)
    reach, num = GRIDS[max(1, prod(distribution.event_shape))]
    like = distribution.sample()
    t = torch.linspace(-reach, reach, num, dtype=like.dtype, device=like.device)
    spacing = 2 * reach / (num - 1)
    fine = _trapezoidal(distribution, onto, t, spacing)
    coarse = _trapezoidal(distribution, onto, t[::2], 2 * spacing)
    change = (fine - coarse).abs().max().item()
    if change > SETTLED:
        raise NotImplementedError(
            f"the quadrature of {type(distribution).__name__} has not settled: its totals move by "
            f"{change:.2g} nats with half of the points, as for jumps or very narrow peaks. "
            "Fix: check the same family at smoother parameters."
        )
    return fine


def _bijection_of(distribution: Distribution) -> Transform:
    support: Any = distribution.support
    try:
        return bijection_onto(support)
    except NotImplementedError as error:
        raise NotImplementedError(
            f"{type(distribution).__name__}: no bijection onto {support} is known. "
            "Fix: biject_to.register(…) a bijection from the reals onto it."
        ) from error


def _trapezoidal(distribution: Distribution, onto: Transform, t: Tensor, spacing: float) -> Tensor:
    r"""$\log \sum_j p(b(\zeta_j))\, |b'(\zeta_j)|\, s \cosh t_j\, \Delta$ with $\zeta = m + s \sinh t$ around draws."""
    centre, spread = _centre_and_spread(onto.inv(distribution.sample((NUM_DRAWS,))))

    def log_term(t: Tensor) -> Tensor:
        zeta = centre + spread * t.sinh()
        log_cell = (spread * t.cosh() * spacing).log()
        return _log_density(distribution, onto, zeta, log_cell)

    return log_sum(log_term, _grid(distribution, onto, t), distribution)


def _grid(distribution: Distribution, onto: Transform, t: Tensor) -> Tensor:
    """All points whose coordinates are among t: `(V, 1, …, *free event)`, with a 1 for each batch dim."""
    num_batch = len(distribution.batch_shape)
    shape = onto.inverse_shape(distribution.batch_shape + distribution.event_shape)
    free = shape[num_batch:]
    points = torch.cartesian_prod(*[t] * max(1, free.numel()))
    return points.reshape(-1, *[1] * num_batch, *free)


def _log_density(
    distribution: Distribution, onto: Transform, zeta: Tensor, log_cell: Tensor
) -> Tensor:
    """Log density of ζ times the size of its cell, `(V, *batch)`."""
    num_batch = 1 + len(distribution.batch_shape)
    x = onto(zeta)
    log_det = sum_event(onto.log_abs_det_jacobian(zeta, x), num_batch)
    log_p = log_prob_of(distribution, x) + log_det + sum_event(log_cell, num_batch)
    # Where floats end, b(ζ) sticks to the edge of the support: no point of the integral lies there.
    error = (onto.inv(x) - zeta).abs()
    is_inside = error <= 0.1 * (1 + zeta.abs())
    is_inside = is_inside.reshape(*zeta.shape[:num_batch], -1).all(-1)
    return torch.where(is_inside, log_p, -torch.inf)


def _centre_and_spread(zeta: Tensor) -> tuple[Tensor, Tensor]:
    """Centre and half-width of draws, by their quantiles: heavy tails have no moments."""
    zeta = zeta.nan_to_num(posinf=100.0, neginf=-100.0)
    levels = torch.tensor([0.16, 0.5, 0.84]).to(zeta)
    low, centre, high = zeta.quantile(levels, dim=0)
    half_width = (high - low) / 2
    return centre, half_width.clamp(min=torch.finfo(zeta.dtype).tiny)


def log_sum(
    log_term: Callable[[Tensor], Tensor], values: Tensor, distribution: Distribution
) -> Tensor:
    r"""$\log \sum_v e^{f(v)}$ over values `(V, …)`, in float64 and in blocks that fit into memory.

    Args:
        log_term: f, which takes values `(V, …)` to terms `(V, *batch)`.
        values: what is summed over.
        distribution: whose batch the terms have.
    """
    rows = max(1, BLOCK // max(1, prod(distribution.batch_shape)))
    log_sums = []
    for block in values.split(rows):
        log_sums.append(log_term(block).double().logsumexp(0))
    return torch.stack(log_sums).logsumexp(0)
