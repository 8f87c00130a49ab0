r"""The warm-up of chains: a step size for every datum, and a scale for each of its dims."""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import torch
from torch import Tensor

from .transitions import ValueAndGradient, transition

ACCEPTANCE = 0.8  # what the step sizes aim at: the efficiency of HMC is flat between 0.6 and 0.9
# Shares of the warm-up that each find a scale; in the rest the step size settles.
WINDOWS = (0.1, 0.1, 0.1, 0.2)
LEAST_SHRINKAGE = (
    1e-3  # of a scale from one window to the next: draws that were all refused have no spread
)


class DualAveraging:
    r"""$\log \epsilon_{t+1} = \mu - \frac{\sqrt t}{\gamma} \bar H_t$: the step size of every datum, from acceptances.

    $\bar H$ is the running mean of target − acceptance, and μ = log 10 ε₀, a bold guess that it shrinks towards.

    Args:
        step: ε₀ `(N,)`.
        target: acceptance to aim at.

    References:
        Hoffman, Gelman 2014, *The No-U-Turn sampler*, arXiv:1111.4246 (section 3.2), with its γ, t₀ and κ.
    """

    gamma, first, decay = 0.05, 10, 0.75

    def __init__(self, step: Tensor, target: float):
        self.step, self.target = step, target
        self.mu = step.log() + log(10)
        self.error = torch.zeros_like(step)
        self.log_mean = step.log()
        self.num = 0

    def update(self, accept: Tensor) -> None:
        """Learn from acceptance probabilities `(K, N)`."""
        self.num += 1
        weight = 1 / (self.num + self.first)
        error = self.target - accept.mean(0).to(self.error)
        self.error = (1 - weight) * self.error + weight * error
        log_step = self.mu - self.num**0.5 / self.gamma * self.error
        share = self.num**-self.decay
        self.log_mean = share * log_step + (1 - share) * self.log_mean
        self.step = log_step.exp()

    @property
    def mean(self) -> Tensor:
        """The averaged step size `(N,)`, to go on with."""
        return self.log_mean.exp()


def first_step(zeta: Tensor) -> Tensor:
    r"""$\epsilon_0 = D^{-1/4}$ `(N,)`, how the best step falls with the dimension."""
    _, num_data, dim = zeta.shape
    return zeta.new_full((num_data,), dim**-0.25)


@dataclass(frozen=True)
class WarmChains:
    """Where the chains stand after the warm-up, and what they found.

    Attributes:
        zeta: coordinates `(K, N, D)`.
        step_size: of every datum, in units of the scales `(N,)`.
        scale: of every datum and dim `(N, D)`.
    """

    zeta: Tensor
    step_size: Tensor
    scale: Tensor

    @property
    def steps(self) -> Tensor:
        """Leapfrog steps of every datum and dim `(N, D)`."""
        return self.step_size[:, None] * self.scale


def warm_up(gradient_at: ValueAndGradient, zeta: Tensor, num: int, leapfrog: int) -> WarmChains:
    """Windows that each find a step size; the draws of each but the last give the scales of the next.

    Args:
        gradient_at: log density `(K, N)` and its gradient at coordinates `(K, N, D)`.
        zeta: where the chains start.
        num: transitions of the whole warm-up.
        leapfrog: largest number of steps of a trajectory.
    """
    warm = WarmChains(zeta, first_step(zeta), torch.ones_like(zeta[0]))
    left = num
    for share in WINDOWS:
        length = int(share * num)
        left -= length
        moments = _Moments(warm.zeta)
        warm = _window(gradient_at, warm, length, leapfrog, moments)
        warm = WarmChains(warm.zeta, warm.step_size, moments.scale(warm.scale))
    return _window(gradient_at, warm, left, leapfrog, _Moments(warm.zeta))


def _window(
    gradient_at: ValueAndGradient,
    warm: WarmChains,
    num: int,
    leapfrog: int,
    moments: _Moments,
) -> WarmChains:
    """Transitions that find a step size anew; the second half of their draws is added to the moments."""
    zeta = warm.zeta
    adaptation = DualAveraging(first_step(zeta), ACCEPTANCE)
    for i in range(num):
        step = adaptation.step[:, None] * warm.scale
        zeta, accept = transition(gradient_at, zeta, step, leapfrog)
        adaptation.update(accept)
        if 2 * i >= num:  # the way there is no spread
            moments.add(zeta)
    return WarmChains(zeta, adaptation.mean, warm.scale)


class _Moments:
    """Running variance of coordinates over chains and draws."""

    def __init__(self, zeta: Tensor):
        self.origin = zeta.double().mean(0)
        self.sum = torch.zeros_like(self.origin)
        self.squares = torch.zeros_like(self.origin)
        self.num = 0

    def add(self, zeta: Tensor) -> None:
        offset = zeta.double() - self.origin
        self.sum = self.sum + offset.sum(0)
        self.squares = self.squares + offset.square().sum(0)
        self.num += len(zeta)

    def scale(self, before: Tensor) -> Tensor:
        """Standard deviations, at least a thousandth of those before: draws that were all refused have none."""
        if self.num < 2:
            return before
        about_mean = self.squares - self.sum.square() / self.num
        variance = about_mean.clamp(min=0) / (self.num - 1)
        return torch.maximum(variance.sqrt().to(before), LEAST_SHRINKAGE * before)
