"""Distributions of counts that keep their digits: for means and dispersions to 1e8, and in any dtype of the data."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Binomial as TorchBinomial
from torch.distributions import NegativeBinomial as TorchNegativeBinomial
from torch.distributions import Poisson as TorchPoisson
from torch.nn.functional import logsigmoid

from .count_masses import (
    log_binomial,
    log_complement,
    log_negative_binomial,
    log_poisson,
    log_probability,
    log_zero_inflated,
)
from .precision import at_least_float32, dtype_of, wide_dtype


@singledispatch
def log_mass(distribution: Any, value: Tensor) -> Tensor | None:
    """The log mass of counts of any dtype, computed in float64; `None` for families without a formula here."""
    return None


@log_mass.register
def _(distribution: TorchPoisson, value: Tensor) -> Tensor:
    return log_poisson(_widen(value), _widen(distribution.rate))


@log_mass.register
def _(distribution: TorchBinomial, value: Tensor) -> Tensor:
    n = _widen(distribution.total_count)
    if _is_by_probability(distribution):
        p = _widen(distribution.probs)
        return log_binomial(_widen(value), n, log_probability(p), log_complement(p))
    logits = _widen(distribution.logits)
    return log_binomial(_widen(value), n, logsigmoid(logits), logsigmoid(-logits))


@log_mass.register
def _(distribution: TorchNegativeBinomial, value: Tensor) -> Tensor:
    if _is_by_probability(distribution):
        p = _widen(distribution.probs)
        logits = log_probability(p) - log_complement(p)
    else:
        logits = _widen(distribution.logits)
    return log_negative_binomial(_widen(value), _widen(distribution.total_count), logits)


@log_mass.register
def _(distribution: dist.GammaPoisson, value: Tensor) -> Tensor:
    # r is the concentration, and the odds of p are 1 over the rate.
    logits = -_widen(distribution.rate).log()
    return log_negative_binomial(_widen(value), _widen(distribution.concentration), logits)


@log_mass.register
def _(distribution: dist.ZeroInflatedDistribution, value: Tensor) -> Tensor | None:
    log_base = log_mass(distribution.base_dist, value)
    if log_base is None:
        return None
    if "gate" in vars(distribution):
        gate = _widen(distribution.gate)
        log_gate, log_open = log_probability(gate), log_complement(gate)
    else:
        gate_logits = _widen(distribution.gate_logits)
        log_gate, log_open = logsigmoid(gate_logits), logsigmoid(-gate_logits)
    return log_zero_inflated(value, log_base, log_gate, log_open)


def _is_by_probability(distribution: Any) -> bool:
    """Whether probabilities were given, off which logits are read where they are asked for."""
    kept = vars(distribution)
    return "logits" not in kept or distribution._param is kept.get("probs")


def _widen(tensor: Tensor) -> Tensor:
    return tensor.to(wide_dtype(tensor))


def scored_dtype(distribution: Any, value: Tensor) -> torch.dtype:
    """The dtype of a log mass: that of the parameters, float64 if the value has it, and never a half."""
    dtype = at_least_float32(dtype_of(distribution))
    return torch.promote_types(dtype, value.dtype) if value.is_floating_point() else dtype


class KeepsDigits:
    """Scores by `log_mass`, for values of any dtype: what the count distributions of this module share."""

    def log_prob(self: Any, value: Tensor) -> Tensor:
        """The log mass, in nats, computed in float64, in the dtype of the parameters."""
        if self._validate_args:
            self._validate_sample(value.to(wide_dtype(value)))
        log_p = log_mass(self, value)
        assert log_p is not None
        return log_p.to(scored_dtype(self, value))


class Poisson(KeepsDigits, dist.Poisson):
    r"""$P(x) = e^{-\lambda} \lambda^x / x!$, exact to 1e-5 for every rate to $10^8$ in float32.

    Example:
        >>> round(Poisson(torch.tensor(1e7)).log_prob(torch.tensor(10_000_000)).item(), 4)
        -8.978
    """


class Binomial(KeepsDigits, dist.Binomial):
    r"""$P(x) = \binom n x p^x (1 - p)^{n - x}$, exact to 1e-5 for every n to $10^8$ in float32."""


class NegativeBinomial(KeepsDigits, dist.NegativeBinomial):
    r"""$P(x) = \frac{\Gamma(x + r)}{x!\, \Gamma(r)} (1 - p)^r p^x$, exact to 1e-5 for every r to $10^8$ in float32."""


class ZeroInflatedPoisson(KeepsDigits, dist.ZeroInflatedPoisson):
    r"""$P(x) = g\, 1_{x = 0} + (1 - g)\, \mathrm{Pois}(x; \lambda)$, as exact as `Poisson`."""


class ZeroInflatedNegativeBinomial(KeepsDigits, dist.ZeroInflatedNegativeBinomial):
    r"""$P(x) = g\, 1_{x = 0} + (1 - g)\, \mathrm{NB}(x; r, p)$, as exact as `NegativeBinomial`."""
