"""Simulation-based calibration of an amortized guide: no refits, for it answers any data at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ...contract import PyroProgram
from ...inference.drawing.prior_sessions import session_of_prior
from ...inference.run.sessions import Session, require_positive
from .ranks import Ranks, rank_among, spread_ranks
from .simulated_pairs import SimulatedBlock, SimulatedPair
from .uniformity import above_half

DERIVED = ("log p(x, z)", "|z|")  # statistics behind those of the dims


@dataclass(frozen=True)
class SBC(Ranks):
    r"""Ranks of $z^*$ among L draws of $q(z \mid x)$, with $z^* \sim p(z)$ and $x \sim p(x \mid z^*)$.

    Each statistic's rank is uniform on 0, …, L if the guide is the exact posterior; ties are broken at random. Every
    statistic is tested by itself, and all dims together (`joint`); one correction goes over all p-values, in which the
    test of log weights has half of the level, and the others of all dims a quarter.

    Attributes:
        names: of the S statistics: every latent dim as `z[0]`, then `log p(x, z)` and `|z|`.
        ranks: how many of the L draws lie below $z^*$ `(N, S)`.
        uniform: $(\mathrm{rank} + v) / (L + 1)$ with $v \sim U(0, 1)$ `(N, S)`, uniform on (0, 1) for an exact guide.
        num_draws: number L of draws.
        of_weight: the same of the log weight $\log p(x, z) - \log q(z \mid x)$ `(N,)`; `None` for a guide that scores
            only what it has drawn.
    """

    of_weight: Tensor | None = None

    title = "SBC"

    @cached_property
    def joint(self) -> dict[str, float]:
        r"""Test of all dims together → p-value: `means` and `variances` as `Ranks.joint` has them, and `weights`.

        `weights` is the one-sided test of whether the truth has larger log weights than draws. By Neyman and Pearson's
        lemma no other function of x and z tells the posterior from the guide better: any fault that the guide has in
        common over data shows in it, a lost dependence between dims and a lost mode among them. For an exact guide all
        log weights of a datum are the same, and ties are broken at random.
        """
        tests = super().joint
        if self.of_weight is not None:
            tests = {**tests, "weights": above_half(self.of_weight)}
        return tests

    @property
    def _shares(self) -> list[float]:
        """The weights, which see all faults, have half of the level; the rest is shared as ever."""
        if self.of_weight is None:
            return super()._shares
        if len(self.joint) == 1:  # few data have no other test
            return [1.0]
        others = len(self.joint) - 1
        return [*[1 / others] * others, 2.0]

    @property
    def _together(self) -> Tensor:
        """The latent dims alone: what is a function of them adds nothing but degrees of freedom."""
        is_dim = torch.tensor([name not in DERIVED for name in self.names])
        return self.uniform[:, is_dim]


def sbc(
    model: PyroProgram,
    guide: PyroProgram,
    *context: Any,
    num_data: int = 10_000,
    num_draws: int = 99,
    like: Any = None,
    chunk: int = 20_000,
    seed: int = 0,
) -> SBC:
    r"""Is $q(z \mid x)$ the posterior of the model's own data? $z^* \sim p(z)$, $x \sim p(x \mid z^*)$, ranks of $z^*$.

    Over the joint distribution, $z^*$ and exact posterior draws are exchangeable, so that ranks are uniform. The test
    sees the guide on data that the model makes, not on the user's: a wrong model with an exact guide passes. 1,000
    data find means that are off by a tenth of a posterior standard deviation in two dims, a scale that is off by a
    fifth, and a lost mode of a tenth of the mass, each in nine of ten runs and more. Ranks of $\log p(x, z)$, of
    $\|z\|$ and of the log weight see dependences between dims that the dims alone do not.

    Args:
        model: a Pyro program that generates when its first argument is `None`.
        guide: its guide.
        context: the programs' further arguments, without x, for data are simulated; their rows are taken over again for
            `num_data` data.
        num_data: number N of simulated data.
        num_draws: number L of draws of the guide for each.
        like: data as the model's first argument takes them, for a model that does not run on `None`: what it observes
            is drawn in their place, by `poutine.uncondition`, and their values do not count.
        chunk: how many (draw, datum) pairs are in memory at once.
        seed: of data, draws and ties; the random state outside stays as it is.

    Raises:
        TypeError: for a VAE in place of its two programs.
        ValueError: for counts below 1, a model that does not generate from these arguments alone, a guide that fails
            on what it generates, a guide without latent sites, or a site outside the data plate.

    References:
        Talts et al. 2018, *Validating Bayesian inference algorithms with simulation-based calibration*,
        arXiv:1804.06788; Modrák et al. 2023, arXiv:2211.02383 (ranks of the joint density, and of density ratios);
        Yao and Domke 2023, *Discriminative calibration*, arXiv:2305.14593 (the log weight is the best statistic);
        Holm 1979, *A simple sequentially rejective multiple test procedure*.

    Example:
        >>> import pyro.distributions as dist
        >>> from pyro_dgm import Conditional, Normal, StandardNormal, VAE
        >>> encoder = Conditional(dist.Normal, torch.nn.Linear(3, 4))
        >>> vae = VAE(StandardNormal(2), Normal(torch.nn.Linear(2, 3)), encoder)
        >>> sbc(vae.model, vae.guide, num_data=50, num_draws=9).names
        ('z[0]', 'z[1]', 'log p(x, z)', '|z|')
    """
    require_positive(num_data=num_data, num_draws=num_draws)
    options = {"num": num_draws, "chunk": chunk, "seed": seed, "like": like}
    with session_of_prior(model, guide, *context, **options) as pair:
        return sbc_of(pair, num_data)


def sbc_of(pair: Session, num_data: int) -> SBC:
    """`sbc` of an open session of the prior."""
    simulated = SimulatedPair.of(pair, "sbc")
    ranks, of_weight = [], []
    for block in simulated.blocks(num_data):
        draws = _statistics(block.draws, block.log_p_of_draws)
        truth = _statistics(block.truth, block.log_p)
        ranks.append(rank_among(draws, truth, block.margin * truth.abs()).cpu())
        if block.log_q is not None:
            of_weight.append(_rank_of_weight(block, block.log_q).cpu())
    names = (*simulated.dims, *DERIVED)
    uniform = spread_ranks(torch.cat(ranks), pair.num)
    weight = spread_ranks(torch.cat(of_weight), pair.num) if of_weight else None
    return SBC(names, torch.cat(ranks), uniform, pair.num, weight)


def _statistics(z: Tensor, log_p: Tensor) -> Tensor:
    r"""Every number of z, $\log p(x, z)$ and $\|z\|$, `(*batch, S)`, of log joint densities `(*batch)`."""
    norm = z.norm(dim=-1, keepdim=True)
    return torch.cat([z, log_p[..., None], norm], -1)


def _rank_of_weight(block: SimulatedBlock, log_q: Tensor) -> Tensor:
    r"""Ranks of $\log p(x, z) - \log q(z \mid x)$ `(N,)`, equal up to the rounding of its two terms."""
    draws = block.log_p_of_draws - block.log_q_of_draws
    size = block.log_p.abs() + block.log_q_of_draws.abs().amax(0)
    return rank_among(draws, block.log_p - log_q, block.margin * size)
