r"""Walks of chains along a path of temperatures: how annealed importance sampling moves, there and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from math import nan
from typing import Any

import torch
from torch import Tensor

from ...contract import PyroProgram
from ...inference.training.compiled.functions import RepeatedFunction
from ..chains.coordinates import Posterior
from ..chains.hamiltonian import draw_coordinates
from ..chains.joint import JointPosterior
from ..chains.transitions import ValueAndGradient, by_autograd, transition
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
        evaluate: $(\zeta, \beta, x) \mapsto (\log f_0, \log p / f_0, \log f_\beta, \nabla \log f_\beta)$ by kernels;
            by autograd if `None`.
    """

    posterior: Posterior | JointPosterior
    start: PyroProgram | None
    evaluate: RepeatedFunction | None = None

    def by(self, evaluate: RepeatedFunction) -> AnnealingPath:
        """The same path, evaluated by kernels where they are wanted."""
        return self if evaluate.compile is False else replace(self, evaluate=evaluate)

    def draw(self, num: int) -> Tensor:
        r"""$\zeta \sim f_0$ `(K, N, D)`."""
        return draw_coordinates(self.posterior, self.start, num)

    def ends(self, zeta: Tensor) -> tuple[Tensor, Tensor]:
        r"""$\log f_0$ and $\log \frac{p(x, \zeta)}{f_0(\zeta)}$ `(K, N)`; from the prior the latter is log p(x|z)."""
        if self.evaluate is not None:
            log_start, log_ratio, *_ = self._evaluated(zeta, 0.0)
            return log_start, log_ratio
        point = self.posterior(zeta)
        if self.start is None:
            return point.log_prior, point.log_likelihood
        log_q = self.posterior.log_guide(self.start, point.values, len(zeta))
        log_start = log_q + point.log_det
        return log_start, point.log_joint - log_start

    def at(self, beta: float) -> ValueAndGradient:
        r"""$\log f_\beta$ and its gradient."""
        if self.evaluate is None:
            return by_autograd(partial(self.log_density, beta))

        def gradient_at(zeta: Tensor) -> tuple[Tensor, Tensor]:
            *_, value, gradient = self._evaluated(zeta, beta)
            return value, gradient

        return gradient_at

    def log_density(self, beta: float | Tensor, zeta: Tensor) -> Tensor:
        r"""$\log f_\beta(\zeta)$ `(K, N)`."""
        log_start, log_ratio = self.ends(zeta)
        return log_start + beta * log_ratio

    def _evaluated(self, zeta: Tensor, beta: float) -> Sequence[Tensor]:
        assert self.evaluate is not None
        at = torch.tensor(beta, dtype=torch.float64, device=zeta.device)
        return self.evaluate(zeta, at, *self.posterior.batch)


def expected_gradients(steps: int, leapfrog: int) -> int:
    """How many gradients a walk of so many temperatures takes on average."""
    return steps * (leapfrog + 3) // 2


def evaluation_of(path: AnnealingPath, *, compile: bool | None) -> RepeatedFunction:
    """What kernels evaluate along a path, at any data that are as many as its own."""

    def evaluate(zeta: Tensor, beta: Tensor, *batch: Any) -> list[Tensor]:
        here = AnnealingPath(path.posterior.given(batch), path.start)
        with torch.enable_grad():
            zeta = zeta.detach().requires_grad_()
            log_start, log_ratio = here.ends(zeta)
            value = log_start + beta * log_ratio
            (gradient,) = torch.autograd.grad(value.sum(), zeta)
        return [log_start.detach(), log_ratio.detach(), value.detach(), gradient]

    return RepeatedFunction(evaluate, (path.posterior.model, path.start), compile=compile)


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


def _settle(
    gradient_at: ValueAndGradient, zeta: Tensor, scale: Tensor, leapfrog: int
) -> tuple[Tensor, Tensor]:
    """Where the pilot stands after its transitions at the first temperature, and their step size `(N,)`."""
    adaptation = DualAveraging(first_step(zeta), ACCEPTANCE)
    for _ in range(WARMUP):
        step = adaptation.step[:, None] * scale
        zeta, accept = transition(gradient_at, zeta, step, leapfrog)
        adaptation.update(accept)
    return zeta, adaptation.mean
