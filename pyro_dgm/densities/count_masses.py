r"""Log masses of counts without differences of large log-gammas: Stirling's error and deviances.

A log mass is of the size of its logarithm of the spread, ten nats at a count of $10^8$, and $\log x!$ is of the
size of $2 \cdot 10^9$ there: their difference has no digit left. Each formula stands where it keeps its digits,
and is fed a harmless number elsewhere, so that `torch.where` passes finite gradients only.

References:
    Loader 2000, *Fast and accurate computation of binomial probabilities*.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log, pi

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

# Of 1/n, 1/n^3, …: exact to 1e-16 from 16 on. The log-gamma itself is exact enough below.
STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188)
LARGE = 16.0
# A deviance is near 0 while |x - m| < 0.1 (x + m): there seven terms of its series are exact to 1e-16.
NEAR = 0.1
ODD = tuple(1 / (2 * j + 1) for j in range(1, 8))


def log_poisson(x: Tensor, rate: Tensor) -> Tensor:
    r"""$-\lambda + x \log \lambda - \log x!$ as $-S(x) - D(x, \lambda) - \frac12 \log 2 \pi x$, in nats."""
    none = x <= 0
    k = torch.where(none, 1.0, x)
    mean = torch.where(none, 1.0, rate)
    log_mean = mean.log()
    with torch.no_grad():
        some = -stirling_error(k) - deviance(k, mean, log_mean, k - mean) - (2 * pi * k).log() / 2
    log_mass = torch.where(none, -rate, with_gradient_of(k * log_mean - mean, some))
    return _nothing_below_zero(x, log_mass)


def log_binomial(x: Tensor, n: Tensor, log_p: Tensor, log_q: Tensor) -> Tensor:
    r"""$\log \binom n x + x \log p + (n - x) \log q$, in nats, with $q = 1 - p$."""
    none = x <= 0
    every = (x >= n) & ~none
    edge = none | every
    k = torch.where(edge, 1.0, x)
    total = torch.where(edge, 2.0, n)
    log_p_inside = torch.where(edge, log(0.5), log_p)
    log_q_inside = torch.where(edge, log(0.5), log_q)
    with torch.no_grad():
        inside = _log_binomial_inside(k, total - k, log_p_inside, log_q_inside)
    inside = with_gradient_of(k * log_p_inside + (total - k) * log_q_inside, inside)
    log_power = torch.where(none, log_q, torch.where(every, log_p, 0.0))
    at_edge = torch.where(n > 0, n, 1.0) * log_power
    at_edge = torch.where(n > 0, at_edge, 0.0)
    log_mass = torch.where(edge, at_edge, inside)
    return _nothing_below_zero(x, torch.where(x > n, -torch.inf, log_mass))


def log_negative_binomial(x: Tensor, r: Tensor, logits: Tensor) -> Tensor:
    r"""$\log \frac{\Gamma(x + r)}{x!\, \Gamma(r)} + r \log q + x \log p$, in nats, with $p = \sigma(\ell) = 1 - q$.

    It is $\frac{r}{r + x}$ times the binomial mass of x among r + x, for any real r.
    """
    log_p, log_q = logsigmoid(logits), logsigmoid(-logits)
    none = x <= 0
    empty = r <= 0
    k = torch.where(none, 1.0, x)
    size = torch.where(empty, 1.0, r)
    some = _log_binomial_inside(k, size, log_p, log_q) + size.log() - (size + k).log()
    some = torch.where(empty, -torch.inf, some)
    return _nothing_below_zero(x, torch.where(none, r * log_q, some))


def with_gradient_of(varying: Tensor, value: Tensor) -> Tensor:
    """The value, with the gradient of a short formula that differs from it by a constant, and by its rounding."""
    if not varying.requires_grad:
        return value
    rounding_alone = varying - varying.detach()
    return value + torch.where(varying.isfinite(), rounding_alone, varying)


def log_zero_inflated(x: Tensor, log_mass: Tensor, log_gate: Tensor, log_open: Tensor) -> Tensor:
    r"""$\log[g\, 1_{x = 0} + (1 - g)\, P(x)]$, in nats, of $\log P(x)$, $\log g$ and $\log(1 - g)$."""
    counted = log_open + log_mass
    zero = x == 0
    at_zero = torch.logaddexp(log_gate, torch.where(zero, counted, 0.0))
    return torch.where(zero, at_zero, counted)


def log_probability(p: Tensor) -> Tensor:
    r"""$\log p$, with a gradient of 0 at 0."""
    some = p > 0
    return torch.where(some, torch.where(some, p, 1.0).log(), -torch.inf)


def log_complement(p: Tensor) -> Tensor:
    r"""$\log(1 - p)$, with a gradient of 0 at 1."""
    some = p < 1
    return torch.where(some, torch.log1p(-torch.where(some, p, 0.0)), -torch.inf)


def stirling_error(n: Tensor) -> Tensor:
    r"""$S(n) = \log n! - \log(\sqrt{2 \pi n}\, (n / e)^n)$ for real $n > 0$."""
    large = n >= LARGE
    inverse = 1 / torch.where(large, n, LARGE)
    square = inverse.square()
    series = _polynomial(square, STIRLING)
    few = torch.where(large, 1.0, n)
    direct = torch.lgamma(few + 1) - (few + 0.5) * few.log() + few - log(2 * pi) / 2
    return torch.where(large, series * inverse, direct)


def deviance(x: Tensor, mean: Tensor, log_mean: Tensor, difference: Tensor) -> Tensor:
    r"""$D(x, m) = x \log \frac x m + m - x \ge 0$ for $x > 0$, of the difference $x - m$ without its rounding.

    Near 0 it is $(x - m) v + 2 x \sum_{j \ge 1} \frac{v^{2 j + 1}}{2 j + 1}$ with $v = \frac{x - m}{x + m}$.
    """
    ratio = difference / (x + mean)
    near = ratio.abs() < NEAR
    v = torch.where(near, ratio, 0.0)
    square = v.square()
    series = _polynomial(square, ODD)
    gap = torch.where(near, difference, 0.0)
    near_zero = v * (gap + 2 * x * square * series)
    far = x * (x.log() - log_mean) - difference
    return torch.where(near, near_zero, far)


def _polynomial(x: Tensor, coefficients: Sequence[float]) -> Tensor:
    r"""$\sum_k a_k x^k$."""
    *lower, last = [x.new_full((), a) for a in coefficients]
    total = last
    for a in reversed(lower):
        total = torch.addcmul(a, total, x)
    return total


def _log_binomial_inside(k: Tensor, rest: Tensor, log_p: Tensor, log_q: Tensor) -> Tensor:
    r"""$\log \binom n k + k \log p + (n - k) \log q$ with $n = k + \mathrm{rest}$, for real k, rest > 0."""
    n = k + rest
    log_n = n.log()
    p, q = log_p.exp(), log_q.exp()
    difference = k * q - rest * p  # k - n p = n q - rest
    errors = stirling_error(n) - stirling_error(k) - stirling_error(rest)
    of_k = deviance(k, n * p, log_n + log_p, difference)
    of_rest = deviance(rest, n * q, log_n + log_q, -difference)
    log_spread = (log_n - k.log() - rest.log() - log(2 * pi)) / 2
    return errors - of_k - of_rest + log_spread


def _nothing_below_zero(x: Tensor, log_mass: Tensor) -> Tensor:
    return torch.where(x < 0, -torch.inf, log_mass)
