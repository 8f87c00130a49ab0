r"""Walks of chains along a path of temperatures: how annealed importance sampling moves, there and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from math import nan

import torch
from torch import Tensor

from ...contract import PyroProgram
from ..chains.coordinates import Posterior
from ..chains.hamiltonian import draw_coordinates
from ..chains.joint import JointPosterior
from ..chains.transitions import LogDensity, transition
from ..chains.warmup import DualAveraging, first_step

ACCEPTANCE = 0.65  # what the pilot's step sizes aim at, as Wu et al.
NUM_PILOTS = 8  # chains of the pilot
WARMUP = 30  # transitions of the pilot before it walks
GAIN = 1.0  # of its step sizes on the way: how far log ε follows the acceptance


@dataclass(frozen=True)
class AnnealingPath:
    r"""$\log f_\beta = \log f_0 + \beta \log \frac{p(x, \zeta)}{f_0(\zeta)}$, with $f_0$ the prior or a guide, over ζ.

    Attributes:
        posterior: the end, β = 1.
        start: the guide at β = 0; the prior if `None`.
    """

    posterior: Posterior | JointPosterior
    start: PyroProgram | None

    def draw(self, num: int) -> Tensor:
        r"""$\zeta \sim f_0$ `(K, N, D)`."""
        return draw_coordinates(self.posterior, self.start, num)

    def ends(self, zeta: Tensor) -> tuple[Tensor, Tensor]:
        r"""$\log f_0$ and $\log \frac{p(x, \zeta)}{f_0(\zeta)}$ `(K, N)`; from the prior the latter is log p(x|z)."""
        point = self.posterior(zeta)
        if self.start is None:
            return point.log_prior, point.log_likelihood
        log_q = self.posterior.log_guide(self.start, point.values, len(zeta))
        log_start = log_q + point.log_det
        return log_start, point.log_joint - log_start

    def at(self, beta: float) -> LogDensity:
        r"""$\log f_\beta$."""

        def log_f(zeta: Tensor) -> Tensor:
            log_start, log_ratio = self.ends(zeta)
            return log_start + beta * log_ratio

        return log_f


@dataclass(frozen=True)
class Walk:
    r"""HMC transitions along a path of temperatures; they hang on the data alone, not on the chains that they move.

    Attributes:
        path: the densities.
        betas: T + 1 temperatures, from the start to the end of the walk.
        steps: step size of every inner temperature and datum `(T − 1, N)`.
        scale: spread of the start in every dim `(N, D)`.
        leapfrog: largest number of steps of a trajectory.
    """

    path: AnnealingPath
    betas: tuple[float, ...]
    steps: Tensor
    scale: Tensor
    leapfrog: int

    def reversed(self) -> Walk:
        """The way back: the same transitions in the opposite order."""
        return replace(self, betas=self.betas[::-1], steps=self.steps.flip(0))

    def __call__(self, zeta: Tensor) -> tuple[Tensor, Tensor]:
        r"""$\sum_t \log \frac{f_t(\zeta_{t-1})}{f_{t-1}(\zeta_{t-1})}$ in float64, and acceptances, `(K, N)` each.

        The acceptance is the mean over the transitions, of which there is one at every inner temperature; NaN where
        there is none.
        """
        num = len(self.steps)
        log_w = torch.zeros(zeta.shape[:2], dtype=torch.float64, device=zeta.device)
        accepted = torch.zeros_like(log_w)
        for t, (before, beta) in enumerate(pairwise(self.betas)):
            _, log_ratio = self.path.ends(zeta)
            log_w = log_w + (beta - before) * log_ratio
            if t == num:  # the end of the walk
                break
            step = self.steps[t][:, None] * self.scale
            zeta, accept = transition(self.path.at(beta), zeta, step, self.leapfrog)
            accepted = accepted + accept
        return log_w, accepted / (num or nan)

    def many(self, begin: Callable[[int], Tensor], num: int, chunk: int) -> tuple[Tensor, Tensor]:
        """Walks of `num` chains, in pieces where those of one datum are more than fit.

        Args:
            begin: gives the first coordinates `(K, N, D)` of K chains.
            num: number of chains.
            chunk: how many pairs of chain and datum fit.
        """
        size = max(1, chunk // len(self.scale))
        log_w, acceptance = [], []
        for first in range(0, num, size):
            zeta = begin(min(size, num - first))
            log_w_of_piece, acceptance_of_piece = self(zeta)
            log_w.append(log_w_of_piece)
            acceptance.append(acceptance_of_piece)
        return torch.cat(log_w), torch.cat(acceptance)


def plan_walk(path: AnnealingPath, betas: tuple[float, ...], leapfrog: int) -> Walk:
    """The walk whose step sizes a few chains of its own have found: they follow the acceptance on the way.

    Args:
        path: the densities.
        betas: T + 1 temperatures.
        leapfrog: largest number of steps of a trajectory.
    """
    zeta = path.draw(NUM_PILOTS)
    scale = zeta.std(0).clamp(min=torch.finfo(zeta.dtype).eps)
    if len(betas) == 2:  # from the start to the end without a transition
        steps = zeta.new_zeros(0, len(scale))
        return Walk(path, betas, steps, scale, leapfrog)
    zeta, step = _settle(path.at(betas[1]), zeta, scale, leapfrog)
    log_step = step.log()
    found = []
    for beta in betas[1:-1]:
        step = log_step.exp()
        found.append(step)
        zeta, accept = transition(path.at(beta), zeta, step[:, None] * scale, leapfrog)
        excess = accept.mean(0).to(log_step) - ACCEPTANCE
        log_step = log_step + GAIN * excess
    return Walk(path, betas, torch.stack(found), scale, leapfrog)


def _settle(log_f: LogDensity, zeta: Tensor, scale: Tensor, leapfrog: int) -> tuple[Tensor, Tensor]:
    """Where the pilot stands after its transitions at the first temperature, and their step size `(N,)`."""
    adaptation = DualAveraging(first_step(zeta), ACCEPTANCE)
    for _ in range(WARMUP):
        step = adaptation.step[:, None] * scale
        zeta, accept = transition(log_f, zeta, step, leapfrog)
        adaptation.update(accept)
    return zeta, adaptation.mean
