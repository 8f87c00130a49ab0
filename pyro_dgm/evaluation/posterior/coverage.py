"""Coverage of a guide by distance to random reference points: TARP, which asks no density of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...contract import PyroProgram
from ...inference.drawing.prior_sessions import session_of_prior
from ...inference.process.states import derive_seed
from ...inference.run.sessions import Session, require_positive
from .ranks import Ranks, rank_among, spread_ranks
from .simulated_pairs import SimulatedBlock, SimulatedPair

SPREAD = 2.0  # standard deviations of the reference points, in those of the guide


@dataclass(frozen=True)
class TARP(Ranks):
    r"""Share of draws of $q(z \mid x)$ nearer to a reference point $r(x)$ than $z^*$ is: uniform for an exact guide.

    The statistics are the distances to M reference points, which are functions of x and of noise, never of $z^*$. Each
    is tested by itself, and all together (`joint`), as `Ranks` says.

    Attributes:
        names: of the M reference points: those at fixed places of the whitened guide, and those that follow x.
        ranks: how many of the L draws are nearer to each `(N, M)`.
        uniform: $(\mathrm{rank} + v) / (L + 1)$ with $v \sim U(0, 1)$ `(N, M)`, uniform on (0, 1) for an exact guide.
        num_draws: number L of draws.
    """

    title = "TARP"
    region = "ball"

    def coverage(self, level: float) -> Tensor:
        r"""Expected coverage: how often the ball around a reference that holds a share of q holds $z^*$, too `(M,)`.

        The standard error is $\sqrt{\mathrm{level}\,(1 - \mathrm{level}) / N}$.
        """
        return (self.uniform <= level).double().mean(0)


def tarp(
    model: PyroProgram,
    guide: PyroProgram,
    *context: Any,
    num_data: int = 10_000,
    num_draws: int = 99,
    num_references: int = 8,
    like: Any = None,
    chunk: int = 20_000,
    seed: int = 0,
) -> TARP:
    r"""$f_i = \frac{1}{L} \#\{l : d(z_l, r_i) < d(z^*_i, r_i)\}$ is uniform for every $r(x)$ iff q is exact.

    It sees the joint of all dims by draws alone: no density of model or guide is asked for. Distances are Euclidean in
    coordinates that whiten $z^*$ and the L draws of a datum together, which keeps them exchangeable under an exact
    guide. Half of the M references stand at one place there for all data, so that an error common to all data does not
    average out; half are random linear functions of x as well: a guide that forgets x, such as the prior, is covered
    around any reference that does not depend on x. It reads the very simulation that `sbc` of the same seed reads.

    Args:
        model: a Pyro program that generates when its first argument is `None`.
        guide: its guide.
        context: the programs' further arguments, without x, for data are simulated; their rows are taken over again for
            `num_data` data.
        num_data: number N of simulated data.
        num_draws: number L of draws of the guide for each.
        num_references: number M of reference points.
        like: data as the model's first argument takes them, for a model that does not run on `None`: what it observes
            is drawn in their place, by `poutine.uncondition`, and their values do not count.
        chunk: how many (draw, datum) pairs are in memory at once.
        seed: of data, draws, references and ties; the random state outside stays as it is.

    Raises:
        TypeError: for a VAE in place of its two programs.
        ValueError: for counts below 1, a model that does not generate from these arguments alone, a guide that fails
            on what it generates, a guide without latent sites, or a site outside the data plate.

    References:
        Lemos, Coogan, Hezaveh and Perreault-Levasseur 2023, *Sampling-based accuracy testing of posterior estimators
        for general inference*, arXiv:2302.03026.

    Example:
        >>> import pyro.distributions as dist
        >>> from pyro_dgm import Conditional, Normal, StandardNormal, VAE
        >>> encoder = Conditional(dist.Normal, torch.nn.Linear(3, 4))
        >>> vae = VAE(StandardNormal(2), Normal(torch.nn.Linear(2, 3)), encoder)
        >>> tarp(vae.model, vae.guide, num_data=50, num_draws=9, num_references=2).names
        ('fixed[0]', 'of x[0]')
    """
    require_positive(num_data=num_data, num_draws=num_draws, num_references=num_references)
    options = {"num": num_draws, "chunk": chunk, "seed": seed, "like": like}
    with session_of_prior(model, guide, *context, **options) as pair:
        return tarp_of(pair, num_data, num_references)


def tarp_of(pair: Session, num_data: int, num_references: int) -> TARP:
    """`tarp` of an open session of the prior."""
    simulated = SimulatedPair.of(pair, "tarp")
    references: References | None = None
    ranks = []
    for block in simulated.blocks(num_data):
        if references is None:
            references = References.of(block, num_references, derive_seed(pair.seed, num_data))
        distances = references.distances(block)
        ties = block.margin * distances[0]
        ranks.append(rank_among(distances[1:], distances[0], ties).cpu())
    assert references is not None
    joint = torch.cat(ranks)
    return TARP(references.names, joint, spread_ranks(joint, pair.num), pair.num)


@dataclass(frozen=True)
class References:
    r"""$r_m(x) = \rho_m + W_m\, \tilde x$ in whitened coordinates, with $W_m = 0$ for the fixed half.

    Attributes:
        places: $\rho$ `(M, D)`.
        slopes: W `(M', D, E)` of the last M′ references, for data of E numbers.
        loc: mean of the data of the first block `(E,)`.
        scale: their standard deviation `(E,)`.
    """

    places: Tensor
    slopes: Tensor
    loc: Tensor
    scale: Tensor

    @classmethod
    def of(cls, block: SimulatedBlock, num: int, seed: int) -> References:
        """Draw reference points, whose size in x is that of the first block of data."""
        generator = torch.Generator().manual_seed(seed)
        x = _rows(block.x)
        num_dims, num_numbers = block.truth.shape[-1], x.shape[-1]
        num_following = num // 2

        def noise(*shape: int) -> Tensor:
            drawn = torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu")
            return SPREAD * drawn.to(x.device)

        slopes = noise(num_following, num_dims, num_numbers) / num_numbers**0.5
        loc, scale = x.mean(0), x.std(0, correction=0)
        return cls(noise(num, num_dims), slopes, loc, torch.where(scale > 0, scale, 1.0))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the reference points."""
        num_fixed = len(self.places) - len(self.slopes)
        fixed = [f"fixed[{i}]" for i in range(num_fixed)]
        return (*fixed, *[f"of x[{i}]" for i in range(len(self.slopes))])

    def distances(self, block: SimulatedBlock) -> Tensor:
        """Distances of the truth and the L draws to each reference `(L + 1, N, M)`, the truth first."""
        points = whiten(torch.cat([block.truth[None], block.draws]))
        standard = (_rows(block.x) - self.loc) / self.scale
        distances = []
        num_fixed = len(self.places) - len(self.slopes)
        for m, place in enumerate(self.places):
            reference = place
            if m >= num_fixed:
                reference = place + standard @ self.slopes[m - num_fixed].T
            distances.append((points - reference).norm(dim=-1))
        return torch.stack(distances, -1)


def _rows(x: Tensor) -> Tensor:
    """The data as rows of numbers `(N, E)`, float64."""
    return x.reshape(len(x), -1).double()


def whiten(points: Tensor) -> Tensor:
    r"""$C_i^{-1} (z_{ji} - \bar z_i)$ with $C_i C_i^\top$ the covariance of the J points of datum i: `(J, N, D)`.

    Every point counts alike, so that points that are exchangeable stay so. Correlations are shrunk by D / (D + J)
    towards none, for more dims than points; a number that is the same in all points stays as it is.
    """
    num, _, num_dims = points.shape
    centred = points - points.mean(0)
    scale = centred.square().mean(0).sqrt()
    scaled = centred / torch.where(scale > 0, scale, 1.0)
    correlation = torch.einsum("jnd,jne->nde", scaled, scaled) / num
    shrinkage = num_dims / (num_dims + num)
    eye = torch.eye(num_dims, dtype=points.dtype, device=points.device)
    root = torch.linalg.cholesky((1 - shrinkage) * correlation + shrinkage * eye)
    solved = torch.linalg.solve_triangular(root, scaled.permute(1, 2, 0), upper=False)
    return solved.permute(2, 0, 1)
