"""The likelihood of data as a number with its uncertainty: nats per datum, and bits per dim."""

from __future__ import annotations

from dataclasses import dataclass
from math import log, nan, sqrt

import torch
from torch import Tensor

from ...tabular import Tabular
from ..estimate import Estimate, estimated
from .pareto import LEAST_DRAWS
from .psis import khat_threshold


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


@dataclass(frozen=True)
class BitsPerDim(Tabular):
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


class PerDatum(Tabular):
    r"""A cost $-\log p(x_i)$ for every datum, in nats, and its mean; as a table one row per datum. Abstract."""

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
        num_data = len(self.per_datum)
        if num_data < 2:
            return nan
        return self.per_datum.std().item() / sqrt(num_data)

    @property
    def estimate(self) -> Estimate:
        """Mean and standard error with their degrees of freedom: `estimate.interval()` is right for few data too."""
        return estimated(self.per_datum[None])

    def tails(self) -> Tensor:
        """k-hat of each datum's weights `(N,)`; −∞ where there are none, as for an exact figure."""
        return torch.full_like(self.per_datum, -torch.inf)

    def bits_per_dim(self, dim: int, spacing: float = 1.0) -> BitsPerDim:
        """The same in bits per dim, see `bits_per_dim`; exact or a bound as this is."""
        value = bits_per_dim(self.mean, dim, spacing)
        stderr = self.stderr / dim / log(2)
        return BitsPerDim(value, stderr, self.kind)


@dataclass(frozen=True)
class GivenNLL(PerDatum):
    r"""A known or foreign $-\log p(x_i)$, such as that of the distribution which made the data, beside an `NLL`.

    Attributes:
        per_datum: nats `(N,)`.
        kind: exact, or what sort of bound.

    Example:
        >>> truth = torch.distributions.Exponential(2.0)
        >>> round(GivenNLL(-truth.log_prob(torch.tensor([0.5, 1.5]))).mean, 4)
        1.3069
    """

    per_datum: Tensor
    kind: str = "exact"

    def __str__(self) -> str:
        num_data = len(self.per_datum)
        mean = f"{self.mean:.3f} ± {self.stderr:.3f} nats per datum"
        return f"NLL {mean} ({self.kind}; {num_data} data)"


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
        is_unreliable = self.khat > khat_threshold(self.num)
        return is_unreliable.double().mean().item()

    def worst(self, num: int = 10) -> Tensor:
        """Indices of the data whose importance weights have the heaviest tails, the worst first `(num,)`."""
        heaviness = self.khat.nan_to_num(nan=torch.inf)
        return heaviness.argsort(descending=True, stable=True)[:num]

    def tails(self) -> Tensor:  # noqa: D102
        return self.khat

    def __str__(self) -> str:
        num_data = len(self.per_datum)
        text = (
            f"NLL {self.mean:.3f} ± {self.stderr:.3f} nats per datum ({self.kind}; {num_data} data"
        )
        if self.kind == "exact":
            return f"{text})"
        if self.num < LEAST_DRAWS:
            tails = f"no k-hat below {LEAST_DRAWS} draws"
        else:
            threshold = khat_threshold(self.num)
            tails = f"{self.share_unreliable:.0%} of the data with k-hat > {threshold:.2f}"
        return f"{text}, {self.num} draws, mean ESS {self.ess.mean():.1f}, {tails})"
