r"""Does the law of an observation sum, or integrate, to one? A bound on $\log p(x)$ means nothing if it does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from ...contract import noise_name
from ...inference.run.data import take_rows
from ...inference.run.estimates import checked_run, estimating, placed
from ...inference.run.particles import draw
from ...inference.run.sessions import check_pair
from ...inference.run.supports import independent_numbers
from ...inference.run.traces import plate_depth
from ..chains.coordinates import bijection_onto

MAX_VALUES = 20_000  # values of one number, or of one event, that are summed over
BLOCK = 4_000_000  # log densities in memory at once
GRIDS = {
    1: (12.0, 4001),
    2: (7.0, 481),
}  # dims: the reach of the quadrature, sinh(reach) spreads, and its points
SETTLED = 5e-3  # nats: what the quadrature may change by with half of its points


@dataclass(frozen=True)
class Normalization:
    r"""$\log \sum_x p(x \mid z)$, or $\log \int p(x \mid z)\, dx$, of the laws of observed sites: 0 for a law.

    Attributes:
        log_total: site → `(N, M)`, float64: for each of N data M numbers that are independent given z, or one event.
        unchecked: site → why its total is not known.
    """

    log_total: dict[str, Tensor]
    unchecked: dict[str, str]

    @property
    def bias(self) -> float:
        r"""$\max_i \sum_m |\log \mathrm{total}_{im}|$: nats that $\log p(x)$ may be off by; NaN if any is."""
        return (
            torch.stack([total.abs().sum(1) for total in self.log_total.values()])
            .sum(0)
            .max()
            .item()
        )


def normalization(
    model: Callable, guide: Callable, *batch: Any, num_data: int = 8, seed: int = 0
) -> Normalization:
    r"""$\log \sum_x p(x \mid z)$ at draws $z \sim q(z \mid x_i)$ of a few data, by enumeration or quadrature.

    Args:
        model: any Pyro program that keeps the contract.
        guide: its guide.
        batch: the data, observation first.
        num_data: the first so many data give one z each.
        seed: of the draws.

    Raises:
        ValueError: for bad data, or a site outside the data plate.
    """
    check_pair(model, guide)
    batch = placed(model, batch)
    totals, unchecked = {}, {}
    with estimating(model, guide, seed=seed):
        depth = plate_depth(*checked_run(model, guide, batch))
        particles = draw(model, guide, *take_rows(batch, slice(num_data)), num=1, depth=depth)
        for name, distribution in particles.observations.items():
            if noise_name(name) in particles.values:
                unchecked[name] = (
                    f"site '{name}' is dequantized: its mass is an integral over the noise"
                )
                continue
            try:
                totals[name] = (
                    log_total(distribution).movedim(len(distribution.batch_shape) - 1, 0).flatten(1)
                )
            except NotImplementedError as error:
                unchecked[name] = f"site '{name}': {error}"
    return Normalization(totals, unchecked)


def log_total(distribution: TorchDistribution) -> Tensor:
    r"""$\log \sum_x p(x)$ or $\log \int p(x)\, dx$ over the support, of every number of an event if they factorize.

    Finite supports and counts are summed (counts as far as four times the largest of 64 draws and 100 beyond), other
    numbers integrated by the trapezoidal rule in $m + s \sinh t$, mapped onto the support. Of events that do not
    factorize: those whose law enumerates its support, and continuous ones of at most two numbers.

    Shape:
        `(*batch, *event)` if the law factorizes over its dims, else `(*batch)`; float64.

    Raises:
        NotImplementedError: for any other law, or where the quadrature has not settled.

    Example:
        >>> from torch.distributions import Gamma, Poisson
        >>> half = torch.tensor(0.5, dtype=torch.float64)
        >>> [round(log_total(law).item(), 5) for law in (Poisson(half), Gamma(half, half))]
        [0.0, 0.0]
    """
    each = independent_numbers(distribution)
    if each is None:
        return _of_events(distribution)
    if _discrete(each):
        return _summed(each, _integers(each))
    return _integrated(each)


def _of_events(distribution: Any) -> Tensor:
    if getattr(distribution, "has_enumerate_support", False):
        return _summed(distribution, distribution.enumerate_support(expand=False))
    if _discrete(distribution) or distribution.event_shape.numel() > max(GRIDS):
        raise NotImplementedError(
            f"{type(distribution).__name__} does not factorize over its event {tuple(distribution.event_shape)}, which is too large to "
            "sum or integrate over"
        )
    return _integrated(distribution)


def _discrete(distribution: Any) -> bool:
    try:
        return distribution.support.is_discrete
    except (NotImplementedError, AttributeError) as error:
        raise NotImplementedError(
            f"{type(distribution).__name__} has no support to sum or integrate over"
        ) from error


def _integers(distribution: Any) -> Tensor:
    """All integers of a support `(V, 1, …)`; where it has no end, as far as draws show mass, and well beyond."""
    drawn = distribution.sample((64,))
    margin = 100 + 4 * drawn.abs().max()
    low, high = (
        torch.as_tensor(getattr(distribution.support, f"{end}_bound", beyond)).to(drawn)
        for end, beyond in (("lower", drawn.min() - margin), ("upper", drawn.max() + margin))
    )
    num = int(high.max() - low.min()) + 1
    if num > MAX_VALUES:
        raise NotImplementedError(
            f"{type(distribution).__name__} has {num:,} values, of which {MAX_VALUES:,} can be summed"
        )
    values = (low.min() + torch.arange(num).to(drawn)).reshape(
        -1, *[1] * len(distribution.batch_shape)
    )
    return values[distribution.support.check(values).reshape(num, -1).any(1)]


def _summed(distribution: Any, values: Tensor) -> Tensor:
    r"""$\log \sum_v p(v)$ over values `(V, …)`."""
    return _log_sum(
        torch.where(distribution.support.check(v), distribution.log_prob(v), -torch.inf)
        for v in _blocks(distribution, values)
    )


def _integrated(distribution: Any) -> Tensor:
    """The trapezoidal rule, and its check: half of the points must give the same."""
    try:
        onto = bijection_onto(distribution.support)
    except NotImplementedError as error:
        raise NotImplementedError(
            f"{type(distribution).__name__}: no bijection onto {distribution.support} is known"
        ) from error
    (reach, num), like = GRIDS[max(1, distribution.event_shape.numel())], distribution.sample()
    t = torch.linspace(-reach, reach, num, dtype=like.dtype, device=like.device)
    fine, coarse = (
        _trapezoidal(distribution, onto, t[::every], 2 * reach * every / (num - 1))
        for every in (1, 2)
    )
    change = (fine - coarse).abs().max().item()
    if change > SETTLED:
        raise NotImplementedError(
            f"the quadrature of {type(distribution).__name__} has not settled: its totals move by {change:.2g} nats with half "
            "of the points, as for jumps or very narrow peaks"
        )
    return fine


def _trapezoidal(distribution: Any, onto: Any, t: Tensor, delta: float) -> Tensor:
    r"""$\log \sum_j p(b(\zeta_j))\, |b'(\zeta_j)|\, s \cosh t_j\, \Delta$ with $\zeta = m + s \sinh t$ around draws."""
    num_batch = len(distribution.batch_shape)
    centre, spread = _spread(onto.inv(distribution.sample((512,))))
    free = onto.inverse_shape(distribution.batch_shape + distribution.event_shape)[num_batch:]
    grid = torch.cartesian_prod(*[t] * max(1, free.numel())).reshape(-1, *[1] * num_batch, *free)

    def terms(t: Tensor) -> Tensor:
        zeta, log_step = centre + spread * t.sinh(), (spread * t.cosh() * delta).log()
        x = onto(zeta)
        log_det = (
            onto.log_abs_det_jacobian(zeta, x).reshape(*zeta.shape[: num_batch + 1], -1).sum(-1)
        )
        log_p = (
            distribution.log_prob(x)
            + log_det
            + log_step.reshape(*zeta.shape[: num_batch + 1], -1).sum(-1)
        )
        # Where floats end, b(ζ) sticks to the edge of the support: no point of the integral lies there.
        kept = (onto.inv(x) - zeta).abs() <= 0.1 * (1 + zeta.abs())
        return torch.where(
            kept.reshape(*zeta.shape[: num_batch + 1], -1).all(-1), log_p, -torch.inf
        )

    return _log_sum(terms(block) for block in _blocks(distribution, grid))


def _spread(zeta: Tensor) -> tuple[Tensor, Tensor]:
    """Centre and half-width of draws, by their quantiles: heavy tails have no moments."""
    zeta = zeta.nan_to_num(posinf=100.0, neginf=-100.0)
    low, centre, high = zeta.quantile(torch.tensor([0.16, 0.5, 0.84]).to(zeta), dim=0)
    return centre, ((high - low) / 2).clamp(min=torch.finfo(zeta.dtype).tiny)


def _blocks(distribution: Any, values: Tensor) -> Iterator[Tensor]:
    return iter(values.split(max(1, BLOCK // max(1, prod(distribution.batch_shape)))))


def _log_sum(blocks: Iterator[Tensor]) -> Tensor:
    return torch.stack([block.double().logsumexp(0) for block in blocks]).logsumexp(0)
