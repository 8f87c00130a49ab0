"""The likelihood of data under a fitted model, with its uncertainty beside it."""

from __future__ import annotations

from dataclasses import dataclass
from math import log, nan, sqrt
from typing import Any

import torch
from torch import Tensor

from ...contract import PyroProgram
from ...inference.run.data import Batch
from ...inference.run.particles import draw
from ...inference.run.sessions import Session, session
from .pareto import LEAST_DRAWS
from .psis import khat, khat_threshold


@dataclass(frozen=True)
class BitsPerDim:
    """Negative log-likelihood in bits per dim, comparable between all models of the same discrete data.

    Attributes:
        value: the mean over the data.
        stderr: its standard error.
        kind: exact, or what sort of bound.
    """

    value: float
    stderr: float
    kind: str

    def __str__(self) -> str:
        return f"{self.value:.4f} ± {self.stderr:.4f} bits/dim ({self.kind})"


class PerDatum:
    r"""A cost $-\log p(x_i)$ for every datum, in nats, and its mean."""

    per_datum: Tensor
    kind: str
    unit = "nats per datum"

    @property
    def mean(self) -> float:
        """Mean over the data, nats per datum."""
        return self.per_datum.mean().item()

    @property
    def stderr(self) -> float:
        """Standard error of the mean over the data; it holds the spread of the data and of the draws."""
        return (
            self.per_datum.std().item() / sqrt(len(self.per_datum))
            if len(self.per_datum) > 1
            else float("nan")
        )

    def tails(self) -> Tensor:
        """k-hat of each datum's weights `(N,)`; −∞ where there are none, as for an exact figure."""
        return torch.full_like(self.per_datum, -torch.inf)

    def bits_per_dim(self, dim: int, spacing: float = 1.0) -> BitsPerDim:
        """The same in bits per dim, see `bits_per_dim`; exact or a bound as this is."""
        return BitsPerDim(
            bits_per_dim(self.mean, dim, spacing), self.stderr / dim / log(2), self.kind
        )


@dataclass(frozen=True)
class GivenNLL(PerDatum):
    r"""A known or foreign $-\log p(x_i)$, such as that of the law which made the data, to stand beside an `NLL`.

    Attributes:
        per_datum: nats `(N,)`.
        kind: exact, or what sort of bound.

    Example:
        >>> law = torch.distributions.Exponential(2.0)
        >>> round(GivenNLL(-law.log_prob(torch.tensor([0.5, 1.5]))).mean, 4)
        1.3069
    """

    per_datum: Tensor
    kind: str = "exact"

    def __str__(self) -> str:
        return f"NLL {self.mean:.3f} ± {self.stderr:.3f} nats per datum ({self.kind}; {len(self.per_datum)} data)"


@dataclass(frozen=True)
class NLL(PerDatum):
    r"""Importance-sampling estimate of $-\log p(x_i)$ in nats per datum; in expectation an upper bound.

    Exact, whatever the draws, for a model without latent sites; `kind` says which.

    Attributes:
        per_datum: $-\log \frac1K \sum_k w^{(k)}_i$ `(N,)`, float64.
        nelbo: $-\frac1K \sum_k \log w^{(k)}_i$ `(N,)`: the −ELBO from the same draws.
        kl: $\frac1K \sum_k \log q(z_k \mid x_i) - \log p(z_k)$, the KL term from the same draws `(N,)`.
        monte_carlo: standard error of `per_datum` from the K draws (delta method) `(N,)`.
        ess: effective sample size $(\sum w)^2 / \sum w^2$ of each datum `(N,)`, at most K.
        khat: Pareto k̂ of each datum's weights `(N,)`, see `khat`.
        num: number K of draws.
        kind: exact, or what sort of bound.
    """

    per_datum: Tensor
    nelbo: Tensor
    kl: Tensor
    monte_carlo: Tensor
    ess: Tensor
    khat: Tensor
    num: int
    kind: str = "upper bound in expectation"

    @property
    def share_unreliable(self) -> float:
        """Share of the data whose k̂ is above `khat_threshold(num)`: their error bars are too small."""
        return (self.khat > khat_threshold(self.num)).double().mean().item()

    def worst(self, num: int = 10) -> Tensor:
        """Indices of the data whose importance weights have the heaviest tails, the worst first `(num,)`."""
        return self.khat.nan_to_num(nan=float("inf")).argsort(descending=True, stable=True)[:num]

    def tails(self) -> Tensor:  # noqa: D102
        return self.khat

    def __str__(self) -> str:
        text = f"NLL {self.mean:.3f} ± {self.stderr:.3f} nats per datum ({self.kind}; {len(self.per_datum)} data"
        if self.kind == "exact":
            return f"{text})"
        tails = (
            f"{self.share_unreliable:.0%} of the data with k-hat > {khat_threshold(self.num):.2f}"
        )
        if self.num < LEAST_DRAWS:
            tails = f"no k-hat below {LEAST_DRAWS} draws"
        return f"{text}, {self.num} draws, mean ESS {self.ess.mean():.1f}, {tails})"


def nll(
    model: PyroProgram,
    guide: PyroProgram,
    *batch: Any,
    num: int = 1000,
    chunk: int = 20_000,
    seed: int = 0,
) -> NLL:
    r"""$-\log p(x) \le -E\left[\log \frac1K \sum_k \frac{p(x, z_k)}{q(z_k \mid x)}\right]$, $z_k \sim q$, per datum.

    Streams over data and draws under a memory bound; weights are in float64, unscaled by plate sizes or β. Neither
    weights nor random state outside change, and a subset of the data gives other noise but the same law.

    Args:
        model: any Pyro program that keeps the contract.
        guide: its guide.
        batch: the data, observation first; every tensor has the data along its first dim.
        num: number K of importance draws.
        chunk: how many (draw, datum) pairs are in memory at once.
        seed: of the draws.

    Raises:
        ValueError: for `num` or `chunk` below 1, NaN or empty data, values outside the support, or a site outside
            the data plate.

    References:
        Burda, Grosse, Salakhutdinov 2016, *Importance weighted autoencoders*, arXiv:1509.00519.
    """
    with session(model, guide, *batch, num=num, chunk=chunk, seed=seed) as pair:
        return nll_of(pair)


def nll_of(pair: Session) -> NLL:
    """`nll` of an open session."""
    blocks = []
    num = pair.num
    for block in pair.blocks():
        if pair.structure.is_exact:
            num = min(pair.num, 2)  # every draw is the same exact log density
        depth = pair.structure.depth
        log_w, kl = weighted(pair.model, pair.guide, block, num, pair.chunk, depth)
        blocks.append(summary_of(log_w, kl))
    statistics = concat_statistics(blocks)
    kind = "exact" if pair.structure.is_exact else NLL.kind
    return NLL(num=num, kind=kind, **statistics)


def bits_per_dim(nats: float, dim: int, spacing: float = 1.0) -> float:
    r"""$\frac{\mathrm{nats} - D \log \Delta}{D \log 2}$: bits per dim of discrete data whose levels are Δ apart.

    Args:
        nats: negative log-likelihood per datum. A mass has no unit, so Δ = 1; a density is in units of 1/x^D, and one
            of data rescaled by 1/255 has levels Δ = 1/255 apart.
        dim: number D of dims of one datum.
        spacing: Δ.

    Example:
        >>> round(bits_per_dim(64 * log(16), 64), 12)
        4.0
    """
    return (nats / dim - log(spacing)) / log(2)


def weighted(
    model: PyroProgram, guide: PyroProgram, block: Batch, num: int, chunk: int, depth: int
) -> tuple[Tensor, Tensor]:
    """Log weights and the KL term of `num` draws for each datum of a block, both `(K, rows)`."""
    log_w, kl = [], []
    step = max(1, chunk // len(block[0]))
    for start in range(0, num, step):
        size = min(step, num - start)
        particles = draw(model, guide, *block, num=size, depth=depth)
        log_w.append(particles.log_weight)
        kl.append(particles.kl)
    return torch.cat(log_w), torch.cat(kl)


def summary_of(log_w: Tensor, kl: Tensor) -> dict[str, Tensor]:
    """Per-datum statistics of log weights `(K, N)`, on the CPU."""
    statistics = weight_statistics(log_w)
    statistics["nelbo"] = -log_w.mean(0).cpu()
    statistics["kl"] = kl.mean(0).cpu()
    statistics["khat"] = khat(log_w).cpu()
    return statistics


def weight_statistics(log_w: Tensor) -> dict[str, Tensor]:
    """Cost, standard error and ESS of the mean of weights, from their logarithms `(K, N)`; each `(N,)`, on the CPU."""
    num = len(log_w)
    log_sum = log_w.logsumexp(0)
    ess = (2 * log_sum - (2 * log_w).logsumexp(0)).exp()
    # Var(mean w) / mean(w)^2 = (K / ESS - 1) / (K - 1)
    relative_variance = (num / ess - 1).clamp(min=0) / (num - 1 or nan)
    return {
        "per_datum": (log(num) - log_sum).cpu(),
        "monte_carlo": relative_variance.sqrt().cpu(),
        "ess": ess.cpu(),
    }


def concat_statistics(blocks: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The statistics of blocks of data as those of the whole set."""
    if len(blocks) == 1:
        return blocks[0]
    return {name: torch.cat([block[name] for block in blocks]) for name in blocks[0]}
