"""Log masses of intervals, by family: stable far in the tails, for tiny and for huge cells.

`log_interval`, `log_cdf`, `log_sf` and `log_cell` answer for any distribution with a CDF; what is registered
here keeps its digits everywhere.
"""

from __future__ import annotations

import torch
from pyro.distributions import ExpandedDistribution, Logistic
from torch import Tensor
from torch.distributions import Distribution, Laplace, MixtureSameFamily, Normal
from torch.nn.functional import logsigmoid

from .cdf_differences import log_cdf, log_cell, log_interval, log_sf
from .cells import (
    laplace_cell,
    log_laplace_cdf,
    log_normal_survival,
    logistic_cell,
    mirror_cell,
    mirrored_laplace,
    normal_cell,
)

__all__ = ["log_cdf", "log_cell", "log_interval", "log_sf"]

# Logistic ----------------------------------------------------------------------------------------


@log_interval.register
def _(distribution: Logistic, centre: Tensor, width: Tensor | float) -> Tensor:
    return logistic_cell(distribution, centre, width).inside


@log_cdf.register
def _(distribution: Logistic, value: Tensor) -> Tensor:
    return logsigmoid((value - distribution.loc) / distribution.scale)


@log_sf.register
def _(distribution: Logistic, value: Tensor) -> Tensor:
    return logsigmoid((distribution.loc - value) / distribution.scale)


@log_cell.register
def _(
    distribution: Logistic,
    centre: Tensor,
    width: Tensor | float,
    first: Tensor,
    last: Tensor,
) -> Tensor:
    masses = logistic_cell(distribution, centre, width)
    return masses.open_ends(first, last)


# Normal ------------------------------------------------------------------------------------------


@log_interval.register
def _(distribution: Normal, centre: Tensor, width: Tensor | float) -> Tensor:
    return normal_cell(distribution, centre, width).inside


@log_cdf.register
def _(distribution: Normal, value: Tensor) -> Tensor:
    return log_normal_survival((distribution.loc - value) / distribution.scale)


@log_sf.register
def _(distribution: Normal, value: Tensor) -> Tensor:
    return log_normal_survival((value - distribution.loc) / distribution.scale)


@log_cell.register
def _(
    distribution: Normal,
    centre: Tensor,
    width: Tensor | float,
    first: Tensor,
    last: Tensor,
) -> Tensor:
    masses = normal_cell(distribution, centre, width)
    return masses.open_ends(first, last)


# Laplace -----------------------------------------------------------------------------------------


@log_interval.register
def _(distribution: Laplace, centre: Tensor, width: Tensor | float) -> Tensor:
    return mirrored_laplace(mirror_cell(distribution, centre, width))


@log_cdf.register
def _(distribution: Laplace, value: Tensor) -> Tensor:
    return log_laplace_cdf((value - distribution.loc) / distribution.scale)


@log_sf.register
def _(distribution: Laplace, value: Tensor) -> Tensor:
    return log_laplace_cdf((distribution.loc - value) / distribution.scale)


@log_cell.register
def _(
    distribution: Laplace,
    centre: Tensor,
    width: Tensor | float,
    first: Tensor,
    last: Tensor,
) -> Tensor:
    masses = laplace_cell(distribution, centre, width)
    return masses.open_ends(first, last)


# Mixtures: components stand on a last dim of their own -------------------------------------------


@log_interval.register
def _(distribution: MixtureSameFamily, centre: Tensor, width: Tensor | float) -> Tensor:
    components = distribution.component_distribution
    width = width.unsqueeze(-1) if isinstance(width, Tensor) else width
    masses = log_interval(components, centre.unsqueeze(-1), width)
    return _sum_components(distribution, masses)


@log_cdf.register
def _(distribution: MixtureSameFamily, value: Tensor) -> Tensor:
    masses = log_cdf(distribution.component_distribution, value.unsqueeze(-1))
    return _sum_components(distribution, masses)


@log_sf.register
def _(distribution: MixtureSameFamily, value: Tensor) -> Tensor:
    masses = log_sf(distribution.component_distribution, value.unsqueeze(-1))
    return _sum_components(distribution, masses)


@log_cell.register
def _(
    distribution: MixtureSameFamily,
    centre: Tensor,
    width: Tensor | float,
    first: Tensor,
    last: Tensor,
) -> Tensor:
    masses = log_cell(
        distribution.component_distribution,
        centre.unsqueeze(-1),
        width.unsqueeze(-1) if isinstance(width, Tensor) else width,
        first.unsqueeze(-1),
        last.unsqueeze(-1),
    )
    return _sum_components(distribution, masses)


def _sum_components(distribution: MixtureSameFamily, log_masses: Tensor) -> Tensor:
    r"""$\log \sum_k \pi_k e^{\ell_k}$ over the last dim."""
    # Categorical normalizes in the precision of its largest logit, which may be far from 0.
    log_weights = distribution.mixture_distribution.logits.log_softmax(-1)
    return (log_weights + log_masses).logsumexp(-1)


# Distributions that repeat another along new batch dims ------------------------------------------


@log_interval.register
def _(distribution: ExpandedDistribution, centre: Tensor, width: Tensor | float) -> Tensor:
    return log_interval(distribution.base_dist, _expand(distribution, centre), width)


@log_cdf.register
def _(distribution: ExpandedDistribution, value: Tensor) -> Tensor:
    return log_cdf(distribution.base_dist, _expand(distribution, value))


@log_sf.register
def _(distribution: ExpandedDistribution, value: Tensor) -> Tensor:
    return log_sf(distribution.base_dist, _expand(distribution, value))


@log_cell.register
def _(
    distribution: ExpandedDistribution,
    centre: Tensor,
    width: Tensor | float,
    first: Tensor,
    last: Tensor,
) -> Tensor:
    centre = _expand(distribution, centre)
    return log_cell(distribution.base_dist, centre, width, first, last)


def _expand(distribution: Distribution, value: Tensor) -> Tensor:
    shape = torch.broadcast_shapes(value.shape, distribution.batch_shape)
    return value.expand(shape)
