r"""Hamiltonian Monte Carlo on $p(z \mid x_i)$: all chains of all data in one vectorized run, each with its own step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...contract import PyroProgram
from ...display.tabular import Tabular
from ...inference.process.states import fork_rng
from ...inference.run.sessions import Session, require_positive, session
from ...inference.training.compiled.functions import RepeatedFunction
from .coordinates import Posterior
from .gradients import Compile, gradient_of, whether_to_compile
from .joint import JointPosterior, posterior_of
from .mixing import ess, rhat
from .points import Point, Values
from .transitions import transition
from .warmup import warm_up


@dataclass(frozen=True)
class HMC(Tabular):
    r"""Draws $z \sim p(z \mid x_i)$ of Markov chains, exact in the limit; R-hat and ESS say how far that is.

    Attributes:
        draws: latent site → `(chains, draws, *plates, N, *event)`, in the site's own unit.
        log_joint: $\log p(x_i, z)$ of every draw `(chains, draws, N)`, in nats.
        acceptance: mean acceptance probability after the warm-up `(N,)`.
        step_size: leapfrog step of every datum, in units of the scales that the warm-up found `(N,)`.
        rhat: latent site → rank-normalized split R-hat `(*plates, N, *event)`, see `rhat`.
        ess: latent site → bulk effective sample size `(*plates, N, *event)`, see `ess`.
        num_joint: number of data, where all of them share a draw and each chain moves everything: N = 1 in what is
            said above but for the latents of the data; `None` where each datum has chains of its own.
    """

    draws: Values
    log_joint: Tensor
    acceptance: Tensor
    step_size: Tensor
    rhat: Values
    ess: Values
    num_joint: int | None = None

    @property
    def worst_rhat(self) -> float:
        """The largest R-hat of all sites, data and dims."""
        return max([values.max().item() for values in self.rhat.values()])

    @property
    def least_ess(self) -> float:
        """The smallest effective sample size of all sites, data and dims."""
        return min([values.min().item() for values in self.ess.values()])

    def columns(self) -> dict[str, list[Any]]:
        """One row per latent site: its shape, moments over all draws and data, and how well its chains mix."""
        return {
            "site": list(self.draws),
            "shape": [tuple(draws.shape) for draws in self.draws.values()],
            "mean": [draws.mean().item() for draws in self.draws.values()],
            "std": [draws.std().item() for draws in self.draws.values()],
            "worst_rhat": [values.max().item() for values in self.rhat.values()],
            "least_ess": [values.min().item() for values in self.ess.values()],
        }

    def __str__(self) -> str:
        chains, num, num_data = self.log_joint.shape
        what = f"p(z | x) for {num_data} data"
        if self.num_joint is not None:
            what = f"p(z | X), all {self.num_joint} data at once"
        return (
            f"HMC: {chains} chains x {num} draws of {what}, "
            f"sites {list(self.draws)}: acceptance {self.acceptance.mean():.2f} "
            f"(least {self.acceptance.min():.2f}), worst R-hat {self.worst_rhat:.3f}, "
            f"least ESS {self.least_ess:.0f}"
        )


def hmc(
    model: PyroProgram,
    *batch: Any,
    num: int = 1000,
    chains: int = 4,
    warmup: int = 500,
    leapfrog: int = 10,
    start: PyroProgram | None = None,
    seed: int = 0,
    chunk: int = 20_000,
    whiten: bool = True,
    compile: Compile = "auto",
) -> HMC:
    r"""$z \sim p(z \mid x_i) \propto p(x_i, z)$ for every datum: the ground truth that a guide is compared with.

    Every (chain, datum) pair is accepted or refused by itself, every datum has a step size (dual averaging towards an
    acceptance of 0.8) and a scale for each dim, both fixed after the warm-up. Sites with bounded support move in free
    coordinates, with the log-determinant. One draw costs (leapfrog + 3) / 2 gradients of the model on average.

    Args:
        model: any Pyro program that keeps the contract, with continuous latents; discrete ones that it marks with
            `infer={"enumerate": "parallel"}` are summed over exactly, and are no part of the draws.
        batch: the data, observation first, a row per datum in each argument; a loader of such batches is read whole.
        num: draws of each chain after the warm-up.
        chains: number of chains per datum.
        warmup: draws that are thrown away, while steps and scales adapt.
        leapfrog: largest number L of steps of a trajectory; each draw takes 1 to L of them at random.
        start: guide that the chains start from; the prior if `None`. Starts that are wider than the posterior, as the
            prior's, let R-hat see a mode that no chain leaves.
        seed: of the chains.
        chunk: how many (chain, datum) pairs are in memory at once.
        whiten: move in the base space of a latent whose prior is a flow, where the density is simpler. Each run then
            draws from the flow: a slow way for `maf`, which `whiten=False` avoids.
        compile: whether density and gradient are one graph, whose kernels take seconds to build; `"auto"` for where
            5,000 gradients or more are expected, and the programs can be traced. Each gradient is that of eager torch
            up to rounding, which chains amplify: their draws agree in distribution.

    Where all data share a draw θ, a chain moves everything at once, θ and the latents of all data: the whole set is
    one datum, so that `log_joint`, `acceptance` and `step_size` have one entry, and draws of θ have no dim of data.

    Raises:
        ValueError: for counts below 1 (`num` below 4), NaN or empty data, a model without latents, a discrete one that
            is not summed over, or one whose support hangs on what is; for a part of the data of a plate of known size,
            where all of them share a draw.

    References:
        Neal 2011, *MCMC using Hamiltonian dynamics*, arXiv:1206.1901; Hoffman, Gelman 2014, *The No-U-Turn sampler*,
        arXiv:1111.4246 (section 3.2: dual averaging).

    Example:
        >>> from pyro_dgm import LatentVariableModel, Normal, StandardNormal
        >>> model = LatentVariableModel(StandardNormal(2), Normal(torch.nn.Linear(2, 3)))
        >>> hmc(model, torch.zeros(5, 3), num=10, warmup=8, chains=2).draws["z"].shape
        torch.Size([2, 10, 5, 2])
    """
    require_positive(num=num, chains=chains, warmup=warmup, leapfrog=leapfrog)
    if num < 4:
        raise ValueError(
            f"hmc: expected num >= 4 draws, which R-hat needs, got {num}. Fix: hmc(model, x, num=4)."
        )
    with session(model, start, *batch, num=chains, chunk=chunk, seed=seed) as pair:
        _ = pair.structure  # explains why a program fails on the data
        check_posterior(pair, whiten=whiten)
        start = None if start is None else pair.guide
        blocks = []
        num_joint = len(pair) if pair.structure.has_globals else None
        use = whether_to_compile(compile, (num + warmup) * (leapfrog + 3) // 2)
        gradient: RepeatedFunction | None = None
        for block in pair.blocks():
            posterior = posterior_of(pair, block, whiten=whiten)
            gradient = gradient or gradient_of(posterior, compile=use)
            chains_of_block = _Chains(posterior, gradient, leapfrog)
            zeta = draw_coordinates(posterior, start, chains)
            blocks.append(chains_of_block.sample(zeta, warmup, num))
    return _result(blocks, num_joint)


def check_posterior(pair: Session, *, whiten: bool) -> None:
    """Refuse data and latents that chains can't move on, before the first long chain; its noise is not the chains'."""
    with fork_rng(*pair.batch):
        whole = pair.structure.has_globals
        posterior_of(pair, pair.batch if whole else pair.few, whiten=whiten)


def draw_coordinates(
    posterior: Posterior | JointPosterior, start: PyroProgram | None, num: int
) -> Tensor:
    """Coordinates of `num` draws of a guide, or of the prior if there is none, `(K, N, D)`."""
    return posterior.coordinates(posterior.draws_of(start, num), num)


# Draws ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Chains:
    """Chains of a block of data.

    Attributes:
        posterior: of the block.
        gradient: of posteriors of as many data, see `gradient_of`.
        leapfrog: largest number of steps of a trajectory.
    """

    posterior: Posterior | JointPosterior
    gradient: RepeatedFunction
    leapfrog: int

    def sample(self, zeta: Tensor, warmup: int, num: int) -> _Record:
        """Draws after the warm-up of chains that start at given coordinates."""
        warm = warm_up(self.value_and_gradient, zeta, warmup, self.leapfrog)
        record = _Record(self.posterior, warm.step_size)
        zeta, step = warm.zeta, warm.steps
        for _ in range(num):
            zeta, accept = transition(self.value_and_gradient, zeta, step, self.leapfrog)
            record.add(self.posterior(zeta), accept)
        return record

    def value_and_gradient(self, zeta: Tensor) -> tuple[Tensor, Tensor]:
        r"""$\log p(x, \zeta)$ `(K, N)` and its gradient."""
        value, gradient = self.gradient(zeta, *self.posterior.batch)
        return value, gradient


class _Record:
    """What the chains of a block of data have drawn, on the CPU.

    Args:
        posterior: of the block.
        step_size: leapfrog step of every datum `(N,)`.
    """

    def __init__(self, posterior: Posterior | JointPosterior, step_size: Tensor):
        self.posterior = posterior
        self.step_size = step_size.cpu()
        self.values: list[Values] = []
        self.log_joint: list[Tensor] = []
        self.accept: list[Tensor] = []

    def add(self, point: Point, accept: Tensor) -> None:
        """Take in one draw of all chains and its acceptance probabilities `(K, N)`."""
        sites = self.posterior.sites(point.values)
        self.values.append({name: value.cpu() for name, value in sites.items()})
        self.log_joint.append((point.log_joint - point.log_det).cpu())
        self.accept.append(accept.mean(0).cpu())

    def draws(self, name: str) -> Tensor:
        """Draws of a site `(chains, draws, *plates, N, *event)`."""
        return torch.stack([values[name] for values in self.values], 1)


def _result(blocks: list[_Record], num_joint: int | None) -> HMC:
    """The blocks of data as the whole set, with the diagnostics of their chains."""
    draws = {}
    for name, place in blocks[0].posterior.places.items():
        parts = [block.draws(name) for block in blocks]
        draws[name] = torch.cat(parts, 1 + place.datum_dim) if len(parts) > 1 else parts[0]
    log_joint = [torch.stack(block.log_joint, 1) for block in blocks]
    acceptance = [torch.stack(block.accept).mean(0) for block in blocks]
    return HMC(
        draws=draws,
        log_joint=torch.cat(log_joint, -1),
        acceptance=torch.cat(acceptance),
        step_size=torch.cat([block.step_size for block in blocks]),
        rhat={name: rhat(values) for name, values in draws.items()},
        ess={name: ess(values) for name, values in draws.items()},
        num_joint=num_joint,
    )
