r"""Hamiltonian Monte Carlo on $p(z \mid x_i)$: all chains of all data in one vectorized run, each with its own step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log
from typing import Any

import torch
from torch import Tensor

from ...inference.run.data import extreme_batch, split_rows
from ...inference.run.estimates import estimating, placed
from ...inference.run.sessions import require_positive
from .coordinates import Posterior, Values
from .mixing import ess, rhat

LogDensity = Callable[[Tensor], Tensor]
ACCEPTANCE = 0.8  # what the step sizes aim at: the efficiency of HMC is flat between 0.6 and 0.9
WINDOWS = (
    0.1,
    0.1,
    0.1,
    0.2,
)  # shares of the warm-up that each find a scale; in the rest the step size settles


@dataclass(frozen=True)
class HMC:
    r"""Draws $z \sim p(z \mid x_i)$ of Markov chains, exact in the limit; R-hat and ESS say how far that is.

    Attributes:
        draws: latent site → `(chains, draws, *plates, N, *event)`, in the site's own unit.
        log_joint: $\log p(x_i, z)$ of every draw `(chains, draws, N)`, in nats.
        acceptance: mean acceptance probability after the warm-up `(N,)`.
        step_size: leapfrog step of every datum, in units of the scales that the warm-up found `(N,)`.
        rhat: latent site → rank-normalized split R-hat `(*plates, N, *event)`, see `rhat`.
        ess: latent site → bulk effective sample size `(*plates, N, *event)`, see `ess`.
    """

    draws: Values
    log_joint: Tensor
    acceptance: Tensor
    step_size: Tensor
    rhat: Values
    ess: Values

    @property
    def worst_rhat(self) -> float:
        """The largest R-hat of all sites, data and dims."""
        return max(v.max().item() for v in self.rhat.values())

    @property
    def least_ess(self) -> float:
        """The smallest effective sample size of all sites, data and dims."""
        return min(v.min().item() for v in self.ess.values())

    def __str__(self) -> str:
        chains, num, num_data = self.log_joint.shape
        return (
            f"HMC: {chains} chains x {num} draws of p(z | x) for {num_data} data, sites {list(self.draws)}: "
            f"acceptance {self.acceptance.mean():.2f} (least {self.acceptance.min():.2f}), "
            f"worst R-hat {self.worst_rhat:.3f}, least ESS {self.least_ess:.0f}"
        )


def hmc(
    model: Callable,
    *batch: Any,
    num: int = 1000,
    chains: int = 4,
    warmup: int = 500,
    leapfrog: int = 10,
    start: Callable | None = None,
    seed: int = 0,
    chunk: int = 20_000,
    whiten: bool = True,
) -> HMC:
    r"""$z \sim p(z \mid x_i) \propto p(x_i, z)$ for every datum: the ground truth that a guide is compared with.

    Every (chain, datum) pair is accepted or refused by itself, every datum has a step size (dual averaging towards an
    acceptance of 0.8) and a scale for each dim, both fixed after the warm-up. Sites with bounded support move in free
    coordinates, with the log-determinant. One draw costs (leapfrog + 3) / 2 gradients of the model on average.

    Args:
        model: any Pyro program that keeps the contract, with continuous latents.
        batch: the data, observation first; every tensor has the data along its first dim.
        num: draws of each chain after the warm-up.
        chains: number of chains per datum.
        warmup: draws that are thrown away, while steps and scales adapt.
        leapfrog: largest number L of steps of a trajectory; each draw takes 1 to L of them at random.
        start: guide that the chains start from; the prior if `None`. Starts that are wider than the posterior, as the
            prior's, let R-hat see a mode that no chain leaves.
        seed: of the chains.
        chunk: how many (chain, datum) pairs are in memory at once.
        whiten: move in the base space of a latent whose prior is a flow, where the law is simpler. Each run then draws
            from the flow: a slow way for `maf`, which `whiten=False` avoids.

    Raises:
        ValueError: for counts below 1 (`num` below 4), NaN or empty data, a model without latents, or a discrete or
            global one.

    References:
        Neal 2011, *MCMC using Hamiltonian dynamics*, arXiv:1206.1901; Hoffman, Gelman 2014, *The No-U-Turn sampler*,
        arXiv:1111.4246 (section 3.2: dual averaging).

    Example:
        >>> from pyro_dgm import LatentVariableModel, Normal, StandardNormal
        >>> model = LatentVariableModel(StandardNormal(2), Normal(torch.nn.Linear(2, 3)))
        >>> hmc(model, torch.zeros(5, 3), num=10, warmup=8, chains=2).draws["z"].shape
        torch.Size([2, 10, 5, 2])
    """
    require_positive(chains=chains, warmup=warmup, leapfrog=leapfrog, chunk=chunk)
    if num < 4:
        raise ValueError(f"hmc: expected num >= 4 draws, which R-hat needs, got {num}.")
    batch = placed(model, batch)
    with estimating(model, start, seed=seed):
        Posterior(model, extreme_batch(batch), whiten=whiten)  # refuses before the first long chain
        blocks = []
        for block in split_rows(batch, max(1, chunk // chains)):
            posterior = Posterior(model, block, whiten=whiten)
            chain = _Chain(posterior.log_joint, leapfrog)
            warm = chain.warmed_up(started(posterior, start, chains), warmup)
            blocks.append(_sampled(posterior, warm, chain, num))
    return _result(blocks)


def started(posterior: Posterior, start: Callable | None, num: int) -> Tensor:
    """Coordinates of `num` draws of a guide, or of the prior if there is none, `(K, N, D)`."""
    return posterior.coordinates(posterior.draws_of(start, num), num)


# One transition ------------------------------------------------------------------------------------------------------


def value_and_gradient(log_f: LogDensity, zeta: Tensor) -> tuple[Tensor, Tensor]:
    r"""$\log f$ `(K, N)` and $\nabla \log f$ `(K, N, D)`; the pairs are independent, so that of the sum does."""
    with torch.enable_grad():
        zeta = zeta.detach().requires_grad_()
        value = log_f(zeta)
        (gradient,) = torch.autograd.grad(value.sum(), zeta)
    return value.detach(), gradient


def transition(log_f: LogDensity, zeta: Tensor, step: Tensor, num: int) -> tuple[Tensor, Tensor]:
    r"""One draw of HMC, $\zeta \mapsto \zeta'$, which leaves f invariant for every (chain, datum).

    Args:
        log_f: log density `(K, N)` of coordinates `(K, N, D)`.
        zeta: where the chains are.
        step: leapfrog steps of every datum and dim `(N, D)`; each trajectory takes 0.8 to 1.2 times as much.
        num: largest number of steps; each transition takes 1 to `num` of them, so that it is no period of the law.

    Returns:
        the next coordinates and the acceptance probabilities `(K, N)`.
    """
    step = step * (0.8 + 0.4 * torch.rand_like(zeta[..., :1]))
    momentum = torch.randn_like(zeta)
    value, gradient = value_and_gradient(log_f, zeta)
    energy, place = _kinetic(momentum) - value, zeta
    length = int(torch.randint(1, num + 1, (), device="cpu"))  # no device waits for it
    momentum = momentum + step / 2 * gradient
    for i in range(length):
        place = place + step * momentum
        value, gradient = value_and_gradient(log_f, place)
        momentum = momentum + (step if i < length - 1 else step / 2) * gradient
    # A trajectory that leaves the numbers has no energy, and is refused.
    accept = (energy + value - _kinetic(momentum)).clamp(max=0).exp().nan_to_num(0.0)
    moved = torch.rand_like(accept) < accept
    return torch.where(moved[..., None], place, zeta), accept


def _kinetic(momentum: Tensor) -> Tensor:
    return momentum.double().square().sum(-1) / 2


# Warm-up -------------------------------------------------------------------------------------------------------------


class DualAveraging:
    r"""$\log \epsilon_{t+1} = \mu - \frac{\sqrt t}{\gamma} \bar H_t$: the step size of every datum, from acceptances.

    $\bar H$ is the running mean of target − acceptance, and μ = log 10 ε₀, a bold guess that it shrinks towards.

    Args:
        step: ε₀ `(N,)`.
        target: acceptance to aim at.
    """

    def __init__(self, step: Tensor, target: float):
        self.step, self.target = step, target
        self.mu, self.error, self.log_mean, self.num = (
            step.log() + log(10),
            torch.zeros_like(step),
            step.log(),
            0,
        )

    def update(self, accept: Tensor) -> None:
        """Take in acceptance probabilities `(K, N)`."""
        self.num += 1
        weight = 1 / (self.num + 10)
        self.error = (1 - weight) * self.error + weight * (
            self.target - accept.mean(0).to(self.error)
        )
        log_step = self.mu - self.num**0.5 / 0.05 * self.error
        share = self.num**-0.75
        self.log_mean = share * log_step + (1 - share) * self.log_mean
        self.step = log_step.exp()

    @property
    def mean(self) -> Tensor:
        """The averaged step size `(N,)`, to go on with."""
        return self.log_mean.exp()


def first_step(zeta: Tensor) -> Tensor:
    r"""$\epsilon_0 = D^{-1/4}$ `(N,)`, how the best step falls with the dimension."""
    return zeta.new_full(zeta.shape[1:2], zeta.shape[2] ** -0.25)


@dataclass(frozen=True)
class _Warm:
    """Where the chains stand after the warm-up, and what they found."""

    zeta: Tensor
    step: Tensor  # (N,)
    scale: Tensor  # (N, D)


@dataclass(frozen=True)
class _Chain:
    log_f: LogDensity
    leapfrog: int

    def warmed_up(self, zeta: Tensor, num: int) -> _Warm:
        """Windows that each find a step size; the draws of each but the last give the scales of the next."""
        scale = torch.ones_like(zeta[0])
        lengths = [int(share * num) for share in WINDOWS]
        for length in lengths:
            zeta, _, moments = self._window(zeta, scale, length)
            scale = moments.scale(scale)
        zeta, steps, _ = self._window(zeta, scale, num - sum(lengths))
        return _Warm(zeta, steps.mean, scale)

    def _window(
        self, zeta: Tensor, scale: Tensor, num: int
    ) -> tuple[Tensor, DualAveraging, _Moments]:
        steps, moments = DualAveraging(first_step(zeta), ACCEPTANCE), _Moments(zeta)
        for i in range(num):
            zeta, accept = self.next(zeta, steps.step, scale)
            steps.update(accept)
            if 2 * i >= num:  # the way there is no spread
                moments.add(zeta)
        return zeta, steps, moments

    def next(self, zeta: Tensor, step: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        return transition(self.log_f, zeta, step[:, None] * scale, self.leapfrog)


class _Moments:
    """Running variance of coordinates over chains and draws."""

    def __init__(self, zeta: Tensor):
        self.origin, self.num = zeta.double().mean(0), 0
        self.sum, self.squares = torch.zeros_like(self.origin), torch.zeros_like(self.origin)

    def add(self, zeta: Tensor) -> None:
        offset = zeta.double() - self.origin
        self.sum, self.squares = self.sum + offset.sum(0), self.squares + offset.square().sum(0)
        self.num += len(zeta)

    def scale(self, before: Tensor) -> Tensor:
        """Standard deviations, at least a thousandth of those before: draws that were all refused have none."""
        if self.num < 2:
            return before
        variance = (self.squares - self.sum.square() / self.num).clamp(min=0) / (self.num - 1)
        return torch.maximum(variance.sqrt().to(before), 1e-3 * before)


# Draws ---------------------------------------------------------------------------------------------------------------


def _sampled(posterior: Posterior, warm: _Warm, chain: _Chain, num: int) -> dict[str, Any]:
    """Draws of a block of data; every tensor on the CPU."""
    zeta, places, log_joints = warm.zeta, [], []
    accepted = torch.zeros_like(warm.step, dtype=torch.float64)
    for _ in range(num):
        zeta, accept = chain.next(zeta, warm.step, warm.scale)
        accepted = accepted + accept.mean(0) / num
        point = posterior(zeta)
        places.append({name: v.cpu() for name, v in posterior.sites(point.values).items()})
        log_joints.append((point.log_joint - point.log_det).cpu())
    return {
        "draws": {name: torch.stack([p[name] for p in places], 1) for name in places[0]},
        "datum": {name: place.datum_dim for name, place in posterior.places.items()},
        "log_joint": torch.stack(log_joints, 1),
        "acceptance": accepted.cpu(),
        "step_size": warm.step.cpu(),
    }


def _result(blocks: list[dict[str, Any]]) -> HMC:
    datum = blocks[0]["datum"]
    draws = {
        name: torch.cat([b["draws"][name] for b in blocks], 1 + dim) for name, dim in datum.items()
    }
    return HMC(
        draws=draws,
        log_joint=torch.cat([b["log_joint"] for b in blocks], -1),
        acceptance=torch.cat([b["acceptance"] for b in blocks]),
        step_size=torch.cat([b["step_size"] for b in blocks]),
        rhat={name: rhat(v) for name, v in draws.items()},
        ess={name: ess(v) for name, v in draws.items()},
    )
