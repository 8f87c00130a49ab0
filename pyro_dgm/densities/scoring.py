"""The one way to score a value: cast once to the distribution's dtype, in float32 or better, counts in float64."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.util import scale_and_mask, sum_rightmost
from torch import Tensor
from torch.distributions import Binomial as TorchBinomial
from torch.distributions import (
    Distribution,
    Independent,
    MixtureSameFamily,
    TransformedDistribution,
)
from torch.distributions import Multinomial as TorchMultinomial
from torch.distributions import NegativeBinomial as TorchNegativeBinomial
from torch.distributions import Poisson as TorchPoisson

from .counts import KeepsDigits, log_mass, scored_dtype
from .precision import as_observed, in_float32, in_float64, wide_dtype, without_autocast


def log_prob_of(distribution: Any, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    r"""$\log p(x)$, in nats, for values and parameters of any dtype, in float32 or better.

    Integers and booleans are cast once to the dtype of the parameters. Masses of counts, Pyro's own families and
    those of `Independent`, masks, expansions and mixtures over them included, are computed in float64. Parameters
    in half precision, and autocast around the call, cost no digit.

    Example:
        >>> log_prob_of(dist.Poisson(torch.tensor(120.0)), torch.tensor(255, dtype=torch.uint8)).isfinite().item()
        True
    """
    precise = in_float32(point_under(distribution))
    with without_autocast():
        log_p = log_prob_of_counts(precise, value)
        if log_p is None:
            log_p = precise.log_prob(as_observed(precise, value), *args, **kwargs)
        return log_p


def point_under(distribution: Any) -> Any:
    """A point mass without the maps over it, which change no mass; any other distribution as it is."""
    if isinstance(distribution, Independent) and isinstance(
        distribution.base_dist, TransformedDistribution
    ):
        inner = point_under(distribution.base_dist)
        if inner is not distribution.base_dist:
            return dist.Independent(inner, distribution.reinterpreted_batch_ndims)
    if isinstance(distribution, TransformedDistribution):
        base = distribution.base_dist
        while isinstance(base, Independent):
            base = base.base_dist
        if isinstance(base, dist.Delta):
            point = distribution.sample()
            return dist.Delta(point, event_dim=len(distribution.event_shape))
    return distribution


def is_count(distribution: Any) -> bool:
    """Whether it scores integers of any size and dtype as they are."""
    while isinstance(distribution, Distribution):
        if isinstance(distribution, COUNTS):
            return True
        distribution = getattr(
            distribution, "base_dist", getattr(distribution, "component_distribution", None)
        )
    return False


def log_prob_of_counts(distribution: Any, value: Tensor) -> Tensor | None:
    """The log mass of counts, computed in float64; `None` for a distribution of anything else."""
    if type(distribution).log_prob in KNOWN_FORMULAS:  # a subclass may score in its own way
        return _log_prob_of_counts(distribution, value)
    return None


@singledispatch
def _log_prob_of_counts(distribution: Any, value: Tensor) -> Tensor | None:
    return None


def _log_mass(distribution: Any, value: Tensor) -> Tensor | None:
    """Of a family whose formula keeps its digits."""
    if distribution._validate_args:
        distribution._validate_sample(value.to(wide_dtype(value)))
    log_p = log_mass(distribution, value)
    return None if log_p is None else log_p.to(scored_dtype(distribution, value))


def _log_mass_in_float64(distribution: Any, value: Tensor) -> Tensor:
    """Of a family whose own formula takes differences of log-gammas."""
    log_p = in_float64(distribution).log_prob(value.to(wide_dtype(value)))
    return log_p.to(scored_dtype(distribution, value))


def _log_mass_of_multinomial(distribution: TorchMultinomial, value: Tensor) -> Tensor:
    """Normalized in float64: a float32 sum of the probabilities is off by 1e-8, times as many counts as there are."""
    categories = distribution._categorical
    given = "logits" if "logits" in vars(categories) else "probs"
    parameter = getattr(categories, given)
    wide = TorchMultinomial(
        distribution.total_count,
        **{given: parameter.to(wide_dtype(parameter))},
        validate_args=distribution._validate_args,
    )
    log_p = wide.log_prob(value.to(wide_dtype(value)))
    return log_p.to(scored_dtype(distribution, value))


@_log_prob_of_counts.register
def _(distribution: Independent, value: Tensor) -> Tensor | None:  # type: ignore[type-arg]
    log_p = log_prob_of_counts(distribution.base_dist, value)
    if log_p is None:
        return None
    return sum_rightmost(log_p, distribution.reinterpreted_batch_ndims)


@_log_prob_of_counts.register
def _(distribution: dist.MaskedDistribution, value: Tensor) -> Tensor | None:
    log_p = log_prob_of_counts(distribution.base_dist, value)
    return None if log_p is None else scale_and_mask(log_p, mask=distribution._mask)


@_log_prob_of_counts.register
def _(distribution: dist.ExpandedDistribution, value: Tensor) -> Tensor | None:
    log_p = log_prob_of_counts(distribution.base_dist, value)
    if log_p is None:
        return None
    return log_p.expand(torch.broadcast_shapes(log_p.shape, distribution.batch_shape))


@_log_prob_of_counts.register
def _(distribution: MixtureSameFamily, value: Tensor) -> Tensor | None:
    padded = value.unsqueeze(-1 - len(distribution.event_shape))
    log_p = log_prob_of_counts(distribution.component_distribution, padded)
    if log_p is None:
        return None
    log_weights = distribution.mixture_distribution.logits.log_softmax(-1)
    return (log_weights + log_p).logsumexp(-1)


# Families with a formula of their own here, and those whose own formula float64 serves
STABLE: tuple[type[Any], ...] = (
    KeepsDigits,
    TorchPoisson,
    TorchBinomial,
    TorchNegativeBinomial,
    dist.GammaPoisson,
    dist.ZeroInflatedDistribution,
)
IN_FLOAT64: tuple[type[Any], ...] = (
    dist.BetaBinomial,
    dist.DirichletMultinomial,
    dist.LogNormalNegativeBinomial,
)
COUNTS: tuple[type[Any], ...] = (*STABLE, *IN_FLOAT64, TorchMultinomial)
for family in STABLE:
    _log_prob_of_counts.register(family, _log_mass)
for family in IN_FLOAT64:
    _log_prob_of_counts.register(family, _log_mass_in_float64)
_log_prob_of_counts.register(TorchMultinomial, _log_mass_of_multinomial)

WRAPPERS: tuple[type[Any], ...] = (
    Independent,
    dist.Independent,
    dist.MaskedDistribution,
    dist.ExpandedDistribution,
    MixtureSameFamily,
    dist.MixtureSameFamily,
)
OF_PYRO: tuple[type[Any], ...] = (
    dist.Poisson,
    dist.Binomial,
    dist.NegativeBinomial,
    dist.Multinomial,
)
KNOWN_FORMULAS = {family.log_prob for family in (*COUNTS, *WRAPPERS, *OF_PYRO)}
