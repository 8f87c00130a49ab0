"""Ranks of a truth among draws, and whether numbers are uniform on (0, 1): Kolmogorov's test."""

from __future__ import annotations

from math import exp, pi, sqrt

import torch
from torch import Tensor

from ...inference.run.particles import Particles


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


def ranks_among(draws: Tensor, truth: Tensor, rounding: float) -> Tensor:
    """How many draws `(L, N, S)` lie below the truth `(N, S)`; a tie is below with a place drawn at random."""
    margin = 32 * rounding * truth.abs()  # equal up to rounding is equal: discrete latents tie
    below = (draws < truth - margin).sum(0)
    not_above = (draws <= truth + margin).sum(0)
    num_places = not_above - below + 1
    place = torch.rand_like(truth) * num_places
    return below + place.long()


def rounding_of_draws(particles: Particles) -> float:
    """The relative error of a number of the programs: the coarsest of their dtypes."""
    numbers = (*particles.log_p.values(), *particles.values.values())
    return max(torch.finfo(value.dtype).eps for value in numbers if value.is_floating_point())
