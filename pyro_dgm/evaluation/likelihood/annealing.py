r"""Annealed importance sampling: $\log p(x)$ by a walk from the prior, or from a guide, to the posterior."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from math import exp
from typing import Any

import torch
from torch import Tensor

from ...inference.run.data import extreme_batch, split_rows
from ...inference.run.estimates import estimating, placed
from ...inference.run.session import require_positive
from ..chains.coordinates import Posterior
from ..chains.hamiltonian import DualAveraging, LogDensity, first_step, started, transition
from .importance import weight_statistics
from .psis import khat
from .results import PerDatum

ACCEPTANCE = 0.65  # what the pilot's step sizes aim at, as Wu et al.
NUM_PILOTS, WARMUP, RATE = (
    8,
    30,
    1.0,
)  # of the pilot: its chains, its transitions before it walks, its gain


@dataclass(frozen=True)
class AIS(PerDatum):
    r"""Annealed-importance-sampling estimate of $-\log p(x_i)$ in nats per datum; in expectation an upper bound.

    Attributes:
        per_datum: $-\log \frac1K \sum_k w^{(k)}_i$ `(N,)`, float64.
        monte_carlo: standard error of `per_datum` from the K chains (delta method) `(N,)`; too small where the ESS is.
        ess: effective sample size $(\sum w)^2 / \sum w^2$ of each datum `(N,)`, at most K.
        log_weight: $\log w^{(k)}_i$ `(K, N)`, float64; each weight has the mean $p(x_i)$.
        acceptance: mean acceptance probability over temperatures and chains `(N,)`; NaN without a transition.
        num: number K of chains.
        steps: number T of temperatures.
        kind: what sort of bound.
    """

    per_datum: Tensor
    monte_carlo: Tensor
    ess: Tensor
    log_weight: Tensor
    acceptance: Tensor
    num: int
    steps: int
    kind: str = "upper bound in expectation"

    def tails(self) -> Tensor:  # noqa: D102
        return khat(self.log_weight)

    def __str__(self) -> str:
        return (
            f"AIS: NLL {self.mean:.3f} ± {self.stderr:.3f} nats per datum ({self.kind}; {len(self.per_datum)} data, "
            f"{self.num} chains x {self.steps} temperatures, mean ESS {self.ess.mean():.1f}, "
            f"acceptance {self.acceptance.mean():.2f})"
        )


def ais(
    model: Callable,
    *batch: Any,
    num: int = 16,
    steps: int = 1000,
    leapfrog: int = 10,
    start: Callable | None = None,
    seed: int = 0,
    chunk: int = 20_000,
    whiten: bool = True,
) -> AIS:
    r"""$p(x) = E\left[\prod_{t=1}^T \frac{f_t(z_{t-1})}{f_{t-1}(z_{t-1})}\right]$, $f_t = q^{1-\beta_t} p^{\beta_t}$.

    Here p is $p(x, z)$. Each chain starts at a draw of q, the prior or a guide, and moves by one HMC transition that
    leaves $f_t$ invariant, for $0 = \beta_0 < \dots < \beta_T = 1$ (see `sigmoid_schedule`). With one temperature it is
    importance sampling.

    The weights are unbiased, exactly: every datum has its step size at every temperature, found by a pilot run of 8
    chains of its own and then fixed. Steps that adapt to the weighted chains themselves would depend on where these
    are, and a transition chosen so leaves no law invariant.

    The cost is about `(num + 8) * steps * (leapfrog + 5) / 2` gradients of the model per datum.

    Args:
        model: any Pyro program that keeps the contract, with continuous latents.
        batch: the data, observation first; every tensor has the data along its first dim.
        num: number K of chains per datum.
        steps: number T of temperatures; the bound tightens as T grows.
        leapfrog: largest number of steps of a trajectory, see `hmc`.
        start: guide to start from; the prior if `None`. It must be able to score any point and cover the posterior: a
            mode that it misses stays out of reach between nearby temperatures as well. The prior misses none.
        seed: of the chains.
        chunk: how many (chain, datum) pairs are in memory at once.
        whiten: move in the base space of a latent whose prior is a flow, see `hmc`.

    Raises:
        ValueError: for counts below 1, NaN or empty data, a model without latents, a discrete or global one, or a
            guide whose density is another one at each run.

    References:
        Neal 2001, *Annealed importance sampling*, arXiv:physics/9803008; Wu, Burda, Salakhutdinov, Grosse 2017, *On the
        quantitative analysis of decoder-based generative models*, arXiv:1611.04273.

    Example:
        >>> from pyro_dgm import LatentVariableModel, Normal, StandardNormal
        >>> model = LatentVariableModel(StandardNormal(2), Normal(torch.nn.Linear(2, 3)))
        >>> ais(model, torch.zeros(5, 3), num=4, steps=5).per_datum.shape
        torch.Size([5])
    """
    require_positive(num=num, steps=steps, leapfrog=leapfrog, chunk=chunk)
    batch, blocks = placed(model, batch), []
    with estimating(model, start, seed=seed):
        refuse(model, start, batch, whiten=whiten)
        for block in split_rows(batch, rows_in(chunk, num)):
            walk = piloted(
                AnnealingPath(Posterior(model, block, whiten=whiten), start), steps, leapfrog
            )
            blocks.append(_summary(*walk.many(walk.path.draws, num, chunk)))
    found: dict[str, Any] = {name: torch.cat([b[name] for b in blocks], -1) for name in blocks[0]}
    return AIS(num=num, steps=steps, **found)


def sigmoid_schedule(steps: int, sharpness: float = 4.0) -> tuple[float, ...]:
    r"""$\beta_t \propto \sigma(\delta (2t/T - 1)) - \sigma(-\delta)$, t = 0, …, T: small steps near both ends.

    Args:
        steps: T.
        sharpness: δ; towards 0 the schedule is linear.

    Example:
        >>> [round(b, 3) for b in sigmoid_schedule(4)]
        [0.0, 0.105, 0.5, 0.895, 1.0]
    """
    sigmoids = [1 / (1 + exp(sharpness * (1 - 2 * t / steps))) for t in range(steps + 1)]
    low, high = sigmoids[0], sigmoids[-1]
    return tuple((s - low) / (high - low) for s in sigmoids)


# The walk ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AnnealingPath:
    r"""$\log f_\beta = \log f_0 + \beta \log \frac{p(x, \zeta)}{f_0(\zeta)}$, with $f_0$ the prior or a guide, over ζ.

    Attributes:
        posterior: the end, β = 1.
        start: the guide at β = 0; the prior if `None`.
    """

    posterior: Posterior
    start: Callable | None

    def draws(self, num: int) -> Tensor:
        r"""$\zeta \sim f_0$ `(K, N, D)`."""
        return started(self.posterior, self.start, num)

    def ends(self, zeta: Tensor) -> tuple[Tensor, Tensor]:
        r"""$\log f_0$ and $\log \frac{p(x, \zeta)}{f_0(\zeta)}$ `(K, N)`; from the prior the latter is log p(x|z)."""
        point = self.posterior(zeta)
        if self.start is None:
            return point.log_prior, point.log_likelihood
        log_q = self.posterior.log_guide(self.start, point.values, len(zeta)) + point.log_det
        return log_q, point.log_joint - log_q

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
        r"""$\sum_t \log \frac{f_t(\zeta_{t-1})}{f_{t-1}(\zeta_{t-1})}$ in float64, and acceptances, `(K, N)` each."""
        log_w = torch.zeros(zeta.shape[:2], dtype=torch.float64, device=zeta.device)
        accepted = (
            torch.full_like(log_w, torch.nan) if len(self.steps) == 0 else torch.zeros_like(log_w)
        )
        for t, (before, beta) in enumerate(pairwise(self.betas)):
            log_w = log_w + (beta - before) * self.path.ends(zeta)[1]
            if t < len(self.steps):
                zeta, accept = transition(
                    self.path.at(beta), zeta, self.steps[t][:, None] * self.scale, self.leapfrog
                )
                accepted = accepted + accept / len(self.steps)
        return log_w, accepted

    def many(self, begin: Callable[[int], Tensor], num: int, chunk: int) -> tuple[Tensor, Tensor]:
        """Walks of `num` chains, in pieces where those of one datum are more than fit.

        Args:
            begin: gives the first coordinates `(K, N, D)` of K chains.
            num: number of chains.
            chunk: how many pairs of chain and datum fit.
        """
        size = max(1, chunk // len(self.scale))
        runs = [self(begin(min(size, num - first))) for first in range(0, num, size)]
        log_w, accepted = (torch.cat(parts) for parts in zip(*runs, strict=True))
        return log_w, accepted


def piloted(path: AnnealingPath, steps: int, leapfrog: int) -> Walk:
    """The walk whose step sizes a few chains of its own have found: they follow the acceptance on the way."""
    betas, zeta, found = sigmoid_schedule(steps), path.draws(NUM_PILOTS), []
    scale = zeta.std(0).clamp(min=torch.finfo(zeta.dtype).eps)
    adapted = DualAveraging(first_step(zeta), ACCEPTANCE)
    for _ in range(WARMUP if steps > 1 else 0):
        zeta, accept = transition(path.at(betas[1]), zeta, adapted.step[:, None] * scale, leapfrog)
        adapted.update(accept)
    log_step = adapted.mean.log()
    for beta in betas[1:-1]:
        found.append(log_step.exp())
        zeta, accept = transition(path.at(beta), zeta, found[-1][:, None] * scale, leapfrog)
        log_step = log_step + RATE * (accept.mean(0).to(log_step) - ACCEPTANCE)
    return Walk(path, betas, torch.stack(found) if found else log_step[None][:0], scale, leapfrog)


def rows_in(chunk: int, num: int) -> int:
    """How many data are walked at once: so many that neither their chains nor those of the pilot exceed a chunk."""
    return max(1, chunk // max(num, NUM_PILOTS))


def _summary(log_w: Tensor, accepted: Tensor) -> dict[str, Tensor]:
    return weight_statistics(log_w) | {
        "log_weight": log_w.cpu(),
        "acceptance": accepted.mean(0).cpu(),
    }


def refuse(model: Callable, start: Callable | None, batch: tuple, *, whiten: bool) -> None:
    """Refuse data, latents and guides that can't be walked, before the first long walk."""
    posterior = Posterior(model, extreme_batch(batch), whiten=whiten)
    if start is None:
        return
    values = posterior.draws_of(start, 2)
    first, second = (posterior.log_guide(start, values, 2) for _ in range(2))
    if not torch.allclose(first, second, equal_nan=True):
        raise ValueError(
            "start: expected a guide whose density is a fixed function of x and z, got one that differs between two "
            f"runs by up to {(first - second).abs().max().item():.2g} nats, so that the path has no beginning. "
            "Fix: start=None, or a guide that draws nothing but its sites."
        )
