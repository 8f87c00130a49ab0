"""Log masses of intervals under any law with a CDF: stable far in its tails, for tiny and for huge cells."""

from __future__ import annotations

from math import log
from typing import Any

import torch
from pyro.distributions import ExpandedDistribution, Logistic
from torch import Tensor
from torch.distributions import Distribution, Laplace, MixtureSameFamily, Normal
from torch.nn.functional import logsigmoid

from .cdf_differences import _open, log_cdf, log_cell, log_interval, log_sf
from .cells import (
    NARROW,
    _laplace_interval,
    _log_cdf_laplace,
    _log_erfcx,
    _log_q,
    _narrow_normal,
    log1mexp,
)

# Logistic ------------------------------------------------------------------------------------------------------------


@log_interval.register
def _(distribution: Logistic, centre: Tensor, width: Tensor | float) -> Tensor:
    return _logistic_cell(distribution, centre, width)[2]


@log_cdf.register
def _(distribution: Logistic, value: Tensor) -> Tensor:
    return logsigmoid((value - distribution.loc) / distribution.scale)


@log_sf.register
def _(distribution: Logistic, value: Tensor) -> Tensor:
    return logsigmoid((distribution.loc - value) / distribution.scale)


@log_cell.register
def _(
    distribution: Logistic, centre: Tensor, width: Tensor | float, first: Tensor, last: Tensor
) -> Tensor:
    return _open(first, last, *_logistic_cell(distribution, centre, width))


def _logistic_cell(
    distribution: Logistic, centre: Tensor, width: Tensor | float
) -> tuple[Tensor, Tensor, Tensor]:
    r"""$\log \sigma(b)$, $\log \sigma(-a)$, and $\log[\sigma(b) - \sigma(a)]$: their sum with $\log(1 - e^{a-b})$."""
    rate = distribution.scale.reciprocal()
    below = logsigmoid((centre + width / 2 - distribution.loc) * rate)
    above = logsigmoid((distribution.loc - (centre - width / 2)) * rate)
    return below, above, below + above + log1mexp(width * rate)


# Laws that are symmetric around their location -----------------------------------------------------------------------


def _mirrored(
    distribution: Normal | Laplace, centre: Tensor, width: Tensor | float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ends a < b, centre m and width h of a cell in units of the scale, mirrored at the location so that m >= 0."""
    lower, upper = (
        (centre - width / 2 - distribution.loc) / distribution.scale,
        (centre + width / 2 - distribution.loc) / distribution.scale,
    )
    left = centre < distribution.loc
    distance = ((centre - distribution.loc) / distribution.scale).abs()
    return (
        torch.where(left, -upper, lower),
        torch.where(left, -lower, upper),
        distance,
        width / distribution.scale,
    )


def _unmirrored(
    distribution: Normal | Laplace, centre: Tensor, q_a: Tensor, p_b: Tensor
) -> tuple[Tensor, Tensor]:
    """Of the mirrored P(X > a) and P(X < b): the mass below the upper end of the cell, and that above its lower end."""
    left = centre < distribution.loc
    return torch.where(left, q_a, p_b), torch.where(left, p_b, q_a)


# Normal --------------------------------------------------------------------------------------------------------------


@log_interval.register
def _(distribution: Normal, centre: Tensor, width: Tensor | float) -> Tensor:
    return _normal_cell(distribution, centre, width)[2]


@log_cdf.register
def _(distribution: Normal, value: Tensor) -> Tensor:
    return _log_q((distribution.loc - value) / distribution.scale)[1]


@log_sf.register
def _(distribution: Normal, value: Tensor) -> Tensor:
    return _log_q((value - distribution.loc) / distribution.scale)[1]


@log_cell.register
def _(
    distribution: Normal, centre: Tensor, width: Tensor | float, first: Tensor, last: Tensor
) -> Tensor:
    return _open(first, last, *_normal_cell(distribution, centre, width))


def _normal_cell(
    distribution: Normal, centre: Tensor, width: Tensor | float
) -> tuple[Tensor, Tensor, Tensor]:
    r"""The masses below, above and inside; a wide cell has $\log Q(a) + \log(1 - e^{-t})$, $t = \log Q(a) - \log Q(b)$.

    Where a > 0, the squares in the logs of Q leave hm alone.
    """
    a, b, m, h = _mirrored(distribution, centre, width)
    (erfcx_a, q_a), erfcx_b = _log_q(a), _log_erfcx(b)
    q_b = erfcx_b - b.square() / 2 - log(2)
    t = torch.where(a > 0, h * m + erfcx_a - erfcx_b, q_a - q_b)
    narrow = h * m.clamp(min=1) < NARROW
    wide = q_a + log1mexp(torch.where(narrow, 1.0, t))
    inside = torch.where(narrow, _narrow_normal(m, h, narrow), wide)
    return *_unmirrored(distribution, centre, q_a, torch.log1p(-q_b.exp())), inside


# Laplace -------------------------------------------------------------------------------------------------------------


@log_interval.register
def _(distribution: Laplace, centre: Tensor, width: Tensor | float) -> Tensor:
    a, b, _, h = _mirrored(distribution, centre, width)
    return _laplace_interval(a, b, h)


@log_cdf.register
def _(distribution: Laplace, value: Tensor) -> Tensor:
    return _log_cdf_laplace((value - distribution.loc) / distribution.scale)


@log_sf.register
def _(distribution: Laplace, value: Tensor) -> Tensor:
    return _log_cdf_laplace((distribution.loc - value) / distribution.scale)


@log_cell.register
def _(
    distribution: Laplace, centre: Tensor, width: Tensor | float, first: Tensor, last: Tensor
) -> Tensor:
    a, b, _, h = _mirrored(distribution, centre, width)
    ends = _unmirrored(distribution, centre, _log_cdf_laplace(-a), _log_cdf_laplace(b))
    return _open(first, last, *ends, _laplace_interval(a, b, h))


# Mixtures, and laws that repeat another ------------------------------------------------------------------------------


@log_interval.register
def _(distribution: MixtureSameFamily, centre: Tensor, width: Tensor | float) -> Tensor:
    return _mixed(
        distribution, log_interval(distribution.component_distribution, *_beside(centre, width))
    )


@log_cdf.register
def _(distribution: MixtureSameFamily, value: Tensor) -> Tensor:
    return _mixed(distribution, log_cdf(distribution.component_distribution, *_beside(value)))


@log_sf.register
def _(distribution: MixtureSameFamily, value: Tensor) -> Tensor:
    return _mixed(distribution, log_sf(distribution.component_distribution, *_beside(value)))


@log_cell.register
def _(
    distribution: MixtureSameFamily,
    centre: Tensor,
    width: Tensor | float,
    first: Tensor,
    last: Tensor,
) -> Tensor:
    return _mixed(
        distribution,
        log_cell(distribution.component_distribution, *_beside(centre, width, first, last)),
    )


def _mixed(distribution: MixtureSameFamily, log_mass: Tensor) -> Tensor:
    r"""$\log \sum_k \pi_k e^{\ell_k}$ over the last dim."""
    # Categorical normalizes in the precision of its largest logit, which may be far from 0.
    return (distribution.mixture_distribution.logits.log_softmax(-1) + log_mass).logsumexp(-1)


def _beside(*arguments: Any) -> tuple[Any, ...]:
    """The arguments with a last dim for the components."""
    return tuple(x.unsqueeze(-1) if isinstance(x, Tensor) else x for x in arguments)


@log_interval.register
def _(distribution: ExpandedDistribution, centre: Tensor, width: Tensor | float) -> Tensor:
    return log_interval(distribution.base_dist, _wide(distribution, centre), width)


@log_cdf.register
def _(distribution: ExpandedDistribution, value: Tensor) -> Tensor:
    return log_cdf(distribution.base_dist, _wide(distribution, value))


@log_sf.register
def _(distribution: ExpandedDistribution, value: Tensor) -> Tensor:
    return log_sf(distribution.base_dist, _wide(distribution, value))


@log_cell.register
def _(
    distribution: ExpandedDistribution,
    centre: Tensor,
    width: Tensor | float,
    first: Tensor,
    last: Tensor,
) -> Tensor:
    return log_cell(distribution.base_dist, _wide(distribution, centre), width, first, last)


def _wide(distribution: Distribution, value: Tensor) -> Tensor:
    return value.expand(torch.broadcast_shapes(value.shape, distribution.batch_shape))
