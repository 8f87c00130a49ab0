"""The likelihood of data as a number with its uncertainty: nats per datum, and bits per dim."""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan, log, nan, sqrt
from typing import Any

import torch
from torch import Tensor

from ...display.tabular import Tabular
from ...inference.run.limits import SLACK, check_total
from ...inference.sites.measure_checks import as_measure, require_probability
from ...inference.sites.measures import Bound, Measure, describe_kind
from ..estimate import Estimate, estimated
from .pareto import LEAST_DRAWS
from .psis import khat_threshold

ROUNDING = 1e-6  # of a likelihood, relative


def bits_per_dim(nats: float, dim: int, spacing: float = 1.0) -> float:
    r"""$\frac{\mathrm{nats} - D \log \Delta}{D \log 2}$: bits per dim of discrete data whose levels are Δ apart.

    A number does not say what it measures: `NLL.bits_per_dim` knows, and refuses a density of data on levels.

    Args:
        nats: negative log-likelihood per datum. A mass has no unit, so Δ = 1; a density is in units of 1/x^D, and one
            of data rescaled by 1/255 has levels Δ = 1/255 apart: of data with noise between the levels, not of the
            levels themselves, where a density has no bound.
        dim: number D of dims of one datum.
        spacing: Δ.

    Raises:
        ValueError: for a negative result, beyond rounding: no mass exceeds 1.

    Example:
        >>> round(bits_per_dim(64 * log(16), 64), 12)
        4.0
    """
    excess = dim * log(spacing) - nats
    if excess > SLACK + ROUNDING * abs(nats):
        raise ValueError(
            f"bits_per_dim: expected at least 0 bits, got {-excess / dim / log(2):.4g} per dim from {nats:.4g} "
            f"nats and spacing={spacing:g}: masses are at most 1, and a density of levels is none. "
            "Fix: a likelihood over levels such as DiscretizedLogistic, or dequantized(model); or "
            "the spacing of the levels, in the unit of x."
        )
    return _bits(nats, dim, spacing)


def _bits(nats: float, dim: int, spacing: float) -> float:
    return (nats / dim - log(spacing)) / log(2)


@dataclass(frozen=True)
class BitsPerDim(Tabular):
    """Negative log-likelihood in bits per dim, comparable between all models of the same discrete data.

    Attributes:
        value: the mean over the data.
        stderr: its standard error; NaN for one datum.
        kind: exact, or what sort of bound.
        measure: of what: a mass, or a density times the cell of a level.
    """

    value: float
    stderr: float
    kind: str
    measure: Measure = Measure.UNSTATED

    def columns(self) -> dict[str, Any]:
        """One row."""
        row = {"value": self.value, "stderr": self.stderr, "kind": str(self.kind)}
        if self.measure is not Measure.UNSTATED:
            row["measure"] = self.measure.value
        return row

    def __str__(self) -> str:
        figure = _with_error(self.value, self.stderr, digits=4)
        missing = "; no standard error" if isnan(self.stderr) else ""
        return f"{figure} bits/dim ({describe_kind(self.kind, self.measure)}{missing})"


def _with_error(value: float, stderr: float, digits: int = 3) -> str:
    """A number and its standard error, which one datum does not have."""
    if isnan(stderr):
        return f"{value:.{digits}f}"
    return f"{value:.{digits}f} ± {stderr:.{digits}f}"


class PerDatum(Tabular):
    r"""A cost $-\log p(x_i)$ for every datum, in nats, and its mean; as a table one row per datum. Abstract."""

    per_datum: Tensor
    kind: str
    measure: Measure = Measure.UNSTATED
    unit = "nats per datum"

    @property
    def mean(self) -> float:
        """Mean over the data, nats per datum."""
        return self.per_datum.mean().item()

    @property
    def stderr(self) -> float:
        """Standard error of the mean over the data, of their spread and that of the draws; NaN for one datum."""
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
        """The same in bits per dim, see `bits_per_dim`; exact or a bound as this is.

        Raises:
            ValueError: for a density of data that lie on levels, for sites of both kinds and for a joint density at a
                point, which are no probabilities of the data; for a density that exceeds 1 / spacing^dim.
        """
        require_probability("bits_per_dim", self.measure)
        if self.measure is Measure.MASS:  # it is at most 1, but for the noise of draws
            value = _bits(self.mean, dim, spacing)
        else:
            value = bits_per_dim(self.mean, dim, spacing)
        stderr = self.stderr / dim / log(2)
        return BitsPerDim(value, stderr, self.kind, self.measure)

    @property
    def _told(self) -> str:
        """The figure with its error, its kind and how many data it is of."""
        num_data = len(self.per_datum)
        figure = _with_error(self.mean, self.stderr)
        count = f"{num_data} data" if num_data > 1 else "1 datum, no standard error"
        kind = describe_kind(self.kind, self.measure)
        return f"{figure} {self.unit} ({kind}; {count}"


@dataclass(frozen=True)
class GivenNLL(PerDatum):
    r"""A known or foreign $-\log p(x_i)$, such as that of the distribution which made the data, beside an `NLL`.

    Attributes:
        per_datum: nats `(N,)`.
        kind: exact, or what sort of bound.
        measure: what p(x) is, "mass" or "density"; a comparison refuses one that is unstated beside others.

    Raises:
        ValueError: for an unknown measure, or a negative likelihood that is an exact mass.

    Example:
        >>> truth = torch.distributions.Exponential(2.0)
        >>> round(GivenNLL(-truth.log_prob(torch.tensor([0.5, 1.5])), measure="density").mean, 4)
        1.3069
    """

    per_datum: Tensor
    kind: str = "exact"
    measure: Measure = Measure.UNSTATED

    def __post_init__(self) -> None:
        measure = as_measure(self.measure)
        object.__setattr__(self, "measure", measure)
        check_total(measure, self.per_datum)

    def __str__(self) -> str:
        return f"NLL {self._told})"


@dataclass(frozen=True)
class NLL(PerDatum):
    r"""Importance-sampling estimate of $-\log p(x_i)$ in nats per datum; in expectation an upper bound.

    Exact, whatever the draws, for a model without latent sites; no bound, but a joint density $-\log p(x_i, z^*)$, for
    a guide that is a point mass at a latent site. `kind` says which, and `measure` of what.

    Attributes:
        per_datum: $-\log \frac1K \sum_k w^{(k)}_i$ `(N,)`, float64.
        nelbo: $-\frac1K \sum_k \log w^{(k)}_i$ `(N,)`: the −ELBO from the same draws.
        kl: $\frac1K \sum_k \log q(z_k \mid x_i) - \log p(z_k)$, the KL term from the same draws `(N,)`; NaN for a guide
            that is a point mass and for an improper prior, which have none.
        monte_carlo: standard error of `per_datum` from the K draws (delta method) `(N,)`. It can't exceed 1 nat,
            however far off the figure is; so it is NaN where k̂ is above its threshold, or not known.
        ess: effective sample size $(\sum w)^2 / \sum w^2$ of each datum `(N,)`, at most K.
        khat: Pareto k̂ of each datum's weights `(N,)`, see `khat`.
        num: number K of draws.
        kind: exact, or what sort of bound.
        measure: what p(x) is: a mass, a density, …
    """

    per_datum: Tensor
    nelbo: Tensor
    kl: Tensor
    monte_carlo: Tensor
    ess: Tensor
    khat: Tensor
    num: int
    kind: str = Bound.UPPER
    measure: Measure = Measure.UNSTATED

    @property
    def share_unreliable(self) -> float:
        """Share of the data whose k̂ is above `khat_threshold(num)`: they have no standard error."""
        is_unreliable = self.khat > khat_threshold(self.num)
        return is_unreliable.double().mean().item()

    def worst(self, num: int = 10) -> Tensor:
        """Indices of the data whose importance weights have the heaviest tails, the worst first `(num,)`."""
        heaviness = self.khat.nan_to_num(nan=torch.inf)
        return heaviness.argsort(descending=True, stable=True)[:num]

    def tails(self) -> Tensor:  # noqa: D102
        return self.khat

    def __str__(self) -> str:
        if self.measure is Measure.JOINT:
            return f"-log p(x, z*) {self._told})"
        text = f"NLL {self._told}"
        if self.kind == Bound.EXACT:
            return f"{text})"
        return f"{text}, {self.num} draws, mean ESS {self.ess.mean():.1f}, {self._told_tails})"

    @property
    def _told_tails(self) -> str:
        """For how many data k-hat says that the draws are too few, and what that means for their errors."""
        if self.num < LEAST_DRAWS:
            return f"no k-hat below {LEAST_DRAWS} draws"
        share = self.share_unreliable
        text = f"{share:.0%} of the data with k-hat > {khat_threshold(self.num):.2f}"
        if share == 0:
            return text
        return f"{text}: no Monte Carlo error there, the figure may be far too high"
