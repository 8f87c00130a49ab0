"""Are numbers uniform on (0, 1)? Tests of one column of them, of many together, and one correction for all."""

from __future__ import annotations

from math import erfc, exp, pi, sqrt

import torch
from torch import Tensor


def kolmogorov(u: Tensor) -> float:
    r"""p-value of $\max_t |F_n(t) - t|$ for n numbers in (0, 1), by its limit as n grows, with Stephens' correction.

    References:
        Stephens 1970, *Use of the Kolmogorov–Smirnov statistics without extensive tables*, JRSS B 32.

    Example:
        >>> round(kolmogorov((torch.arange(1000) + 0.5) / 1000), 6)
        1.0
    """
    num = len(u)
    ordered = u.sort().values
    steps = torch.arange(num + 1).to(u) / num
    above = (steps[1:] - ordered).max()
    below = (ordered - steps[:-1]).max()
    distance = torch.maximum(above, below).item()
    root = sqrt(num)
    corrected = root + 0.12 + 0.11 / root
    return _kolmogorov_tail(corrected * distance)


def _kolmogorov_tail(t: float) -> float:
    """P(K > t) of Kolmogorov's distribution, by the one of its two series that converges in five terms."""
    return _tail_of_small(t) if t < 1 else _tail_of_large(t)


def _tail_of_small(t: float) -> float:
    r"""$1 - \frac{\sqrt{2 \pi}}{t} \sum_k e^{-(2 k - 1)^2 \pi^2 / (8 t^2)}$."""
    rate = pi**2 / (8 * t**2)
    total = 0.0
    for odd in range(1, 11, 2):
        total += exp(-rate * odd**2)
    factor = sqrt(2 * pi) / t
    return 1 - factor * total


def _tail_of_large(t: float) -> float:
    r"""$2 \sum_k (-1)^{k - 1} e^{-2 k^2 t^2}$."""
    rate = 2 * t**2
    total = 0.0
    sign = 1
    for k in range(1, 6):
        total += sign * exp(-rate * k**2)
        sign = -sign
    return 2 * total


def holm(p_values: Tensor, weights: Tensor | None = None) -> Tensor:
    r"""$\max_{i \le j} p_{(i)} \sum_{k \ge i} w_{(k)} / w_{(i)}$, at most 1: Holm's correction, in the order of p / w.

    To reject what lies below α errs once or more with a probability of at most α, however the tests depend on each
    other. A test of weight w has a share of α in proportion to w.

    Args:
        p_values: one for each test `(T,)`.
        weights: positive `(T,)`; default: equal ones.

    References:
        Holm 1979, *A simple sequentially rejective multiple test procedure*, Scand. J. Statist. 6.

    Example:
        >>> holm(torch.tensor([0.01, 0.04, 0.03]))
        tensor([0.0300, 0.0600, 0.0600])
    """
    weights = torch.ones_like(p_values) if weights is None else weights.to(p_values)
    order = (p_values / weights).argsort()
    p, w = p_values[order], weights[order]
    num_left = w.flip(0).cumsum(0).flip(0)
    adjusted = (p * num_left / w).cummax(0).values.clamp(max=1)
    return torch.empty_like(p).scatter(0, order, adjusted)


def normal_scores(u: Tensor) -> Tensor:
    r"""$\Phi^{-1}(u)$: standard normal where u is uniform on (0, 1); float64, the ends by its smallest step."""
    step = torch.finfo(torch.float64).eps
    return torch.special.ndtri(u.double().clamp(step, 1 - step))


def zero_means(y: Tensor) -> float:
    r"""p-value of $N \bar y^\top (\frac{1}{N} \sum_i y_i y_i^\top)^{-1} \bar y$ as $\chi^2_S$: are all means zero?

    It is Hotelling's $T^2$ with the second moments about zero, which are known to be the covariance under the null:
    the statistic is at most N, so that its limit as N grows errs to the side of fewer alarms.

    Args:
        y: `(N, S)`, rows independent, columns in any dependence; N well above S.

    References:
        Hotelling 1931, *The generalization of Student's ratio*, Ann. Math. Stat. 2; Rao 1948 (score tests).

    Example:
        >>> y = torch.tensor([[1.0], [-1.0]]).repeat(50, 1).double()
        >>> zero_means(y), round(zero_means(y + 0.2), 4)
        (1.0, 0.0499)
    """
    num, size = y.shape
    mean = y.mean(0)
    moments = y.T @ y / num
    statistic = num * (mean @ torch.linalg.pinv(moments, hermitian=True) @ mean)
    return chi2_tail(statistic.item(), size)


def chi2_tail(t: float, degrees: int) -> float:
    r"""$P(\chi^2_d > t)$."""
    half = torch.tensor([degrees / 2, t / 2], dtype=torch.float64, device="cpu").clamp(min=0)
    return torch.special.gammaincc(half[0], half[1]).item()


def normal_tail(t: float) -> float:
    r"""$P(Z > t)$ of a standard normal, to the last digit in either tail."""
    return erfc(t / sqrt(2)) / 2


def above_half(u: Tensor) -> float:
    r"""p-value of $\sqrt N\, \overline{\Phi^{-1}(u)}$, one-sided: do numbers in (0, 1) lie above their middle?"""
    scores = normal_scores(u)
    return normal_tail(sqrt(len(u)) * scores.mean().item())


def unit_variance(u: Tensor) -> float:
    r"""p-value of $\sum_i \Phi^{-1}(u_i)^2$, two-sided, against its exact law $\chi^2_N$: do numbers spread evenly?

    Small: they crowd at the ends, or, seen as ranks, at the middle.

    Example:
        >>> u = (torch.arange(100) + 0.5) / 100
        >>> unit_variance(u) > 0.5, unit_variance((u + 0.5) / 2) < 1e-4
        (True, True)
    """
    total = normal_scores(u).square().sum().item()
    above = chi2_tail(total, len(u))
    half = torch.tensor([len(u) / 2, total / 2], dtype=torch.float64, device="cpu")
    below = torch.special.gammainc(half[0], half[1]).item()
    return min(1.0, 2 * min(above, below))


def symmetric(u: Tensor) -> float:
    r"""p-value of Wilcoxon's signed ranks of $u - 1/2$: are numbers in (0, 1) symmetric about one half?

    By the normal limit, two-sided; ties have their mean rank.

    References:
        Wilcoxon 1945, *Individual comparisons by ranking methods*.

    Example:
        >>> u = (torch.arange(100) + 0.5) / 100
        >>> symmetric(u) > 0.9, symmetric(u**2) < 1e-4
        (True, True)
    """
    off = u.double() - 0.5
    size = off.abs()
    below = (size[:, None] > size).sum(1)
    ties = (size[:, None] == size).sum(1)
    ranks = below + (ties + 1) / 2
    statistic = (off.sign() * ranks).sum() / ranks.square().sum().sqrt()
    return 2 * normal_tail(statistic.abs().item())
