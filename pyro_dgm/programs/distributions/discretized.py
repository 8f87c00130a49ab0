"""Distributions that Pyro lacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor

from .intervals import log1mexp, log_cdf, log_cell, log_sf


class Discretized(dist.TorchDistribution):
    r"""$P(y) = F(y + ½) - F(y - ½)$ over the levels 0, …, L − 1, where F is the CDF of any base law.

    The edge levels take the tails, so $\sum_y P(y) = 1$ for every location and scale. Exact mass, in nats; normal,
    logistic and Laplace bases and mixtures of them keep their digits and finite gradients everywhere, other bases
    within the limits of `intervals.log_interval`.

    Args:
        base: a law of scalar events on the real line, in level units.
        levels: number L of levels.

    Shape:
        batch_shape that of `base`; event_shape `()`. Values of any dtype, integers included.

    Raises:
        ValueError: if there are fewer than 2 levels, or if the events of `base` are no scalars.

    References:
        Kingma et al. 2016, arXiv:1606.04934 (logistic, without the open ends); Salimans et al. 2017, arXiv:1701.05517
        (mixtures of logistics).

    Example:
        >>> law = Discretized(dist.Normal(torch.tensor(3.0), 1.5), levels=5)
        >>> round(law.log_prob(torch.arange(5)).exp().sum().item(), 6)
        1.0
    """

    arg_constraints = {}
    has_rsample = False

    def __init__(
        self,
        base: dist.TorchDistribution,
        levels: int,
        validate_args: bool | None = None,  # noqa: FBT001
    ):
        if levels < 2:
            raise ValueError(f"Discretized: expected at least 2 levels, got {levels}.")
        if base.event_shape:
            raise ValueError(
                f"Discretized: expected a base of scalar events, got event_shape {tuple(base.event_shape)}. "
                f"Fix: Discretized(base, {levels}).to_event({len(base.event_shape)}) of a base without .to_event."
            )
        self.base, self.levels = base, levels
        super().__init__(base.batch_shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:
        return constraints.integer_interval(0, self.levels - 1)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Discretized:
        new = self._get_checked_instance(Discretized, _instance)
        new.base, new.levels = self.base.expand(batch_shape), self.levels
        super(Discretized, new).__init__(torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return log_cell(self.base, value, 1.0, value <= 0, value >= self.levels - 1)

    def cdf(self, value: Tensor) -> Tensor:
        r"""$P(Y \le y)$."""
        inside = log_cdf(self.base, torch.floor(value) + 0.5).exp()
        return torch.where(value < 0, 0.0, torch.where(value >= self.levels - 1, 1.0, inside))

    def icdf(self, value: Tensor) -> Tensor:
        r"""$\min\{y : P(Y \le y) \ge p\}$, by $\lceil \log_2 L \rceil$ bisections."""
        low = torch.full_like(value, -1.0).expand(
            torch.broadcast_shapes(value.shape, self.batch_shape)
        )
        high = low + self.levels
        for _ in range((self.levels - 1).bit_length()):
            middle = ((low + high) / 2).floor()
            enough = self.cdf(middle) >= value
            low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
        return high.clamp(min=0)

    @property
    def mean(self) -> Tensor:
        r"""$E[Y] = \sum_{y \ge 0} P(Y > y)$."""
        return log_sf(self.base, self._leading(0.5, self.levels - 0.5)).exp().sum(0)

    @property
    def variance(self) -> Tensor:
        r"""$\sum_{y, y'} P(Y > \max(y, y'))\, P(Y \le \min(y, y'))$ over y, y' in 0, …, L − 2: no term is negative."""
        cut = self._leading(0.5, self.levels - 0.5)
        above, below = log_sf(self.base, cut).exp(), log_cdf(self.base, cut).exp()
        return (above * (2 * below.cumsum(0) - below)).sum(0)

    @property
    def mode(self) -> Tensor:
        """The most probable level, the lowest of them, by enumeration."""
        levels = self._leading(0.0, float(self.levels))
        log_p = log_cell(self.base, levels, 1.0, levels <= 0, levels >= self.levels - 1)
        return log_p.argmax(0).to(log_p.dtype)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """A draw of the base, rounded to the nearest level and clamped to the edge levels."""
        with torch.no_grad():
            return self.base.sample(torch.Size(sample_shape)).round().clamp(0, self.levels - 1)

    def _leading(self, start: float, end: float) -> Tensor:
        """The numbers start, start + 1, … < end on a new first dim."""
        distribution = self.base
        while isinstance(
            distribution, dist.TransformedDistribution
        ):  # which has no mean, and the dtype of its base
            distribution = distribution.base_dist
        like = distribution.mean
        return torch.arange(start, end, dtype=like.dtype, device=like.device).reshape(
            -1, *[1] * len(self.batch_shape)
        )


# B_2k / (2k)! of the Bernoulli numbers: the series of A'(l) - 1/2, exact to 1e-15 for |l| < 1
BERNOULLI = (
    1 / 12, -1 / 720, 1 / 30240, -1 / 1209600, 1 / 47900160, -691 / 1307674368000, 1 / 74724249600,
    -3617 / 10670622842880000, 43867 / 5109094217170944000,
)  # fmt: skip


class ContinuousBernoulliLogits(dist.TorchDistribution):
    r"""$p(x) = e^{\ell x - A(\ell)}$ on [0, 1] with $A(\ell) = \log \frac{e^\ell - 1}{\ell}$; reparameterized.

    torch's own law rounds its probabilities to within a float's precision of 0 and 1: in float32 its mass is 0.80 at a
    logit of 20 and 0.32 at 50, which is 1.1 nats a dim. This one is exact, in nats, for every logit.

    Shape:
        logits: the batch_shape; event_shape `()`.

    References:
        Loaiza-Ganem, Cunningham 2019, *The continuous Bernoulli*, arXiv:1907.06845.

    Example:
        >>> ContinuousBernoulliLogits(torch.tensor([0.0, 50.0])).log_prob(torch.tensor(1.0))
        tensor([0.0000, 3.9120])
    """

    arg_constraints = {"logits": constraints.real}
    support = constraints.unit_interval
    has_rsample = True

    def __init__(self, logits: Tensor, validate_args: bool | None = None):  # noqa: FBT001
        self.logits = logits
        super().__init__(logits.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> ContinuousBernoulliLogits:
        new = self._get_checked_instance(ContinuousBernoulliLogits, _instance)
        new.logits = self.logits.expand(batch_shape)
        super(ContinuousBernoulliLogits, new).__init__(torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return self.logits * value - self._log_normalizer

    @property
    def _log_normalizer(self) -> Tensor:
        small, near, size = self._split
        series = near / 2 + near**2 * _polynomial(
            near**2, [b / (2 * k) for k, b in enumerate(BERNOULLI, 1)]
        )
        return torch.where(small, series, self.logits.clamp(min=0) + log1mexp(size) - size.log())

    @property
    def mean(self) -> Tensor:
        r"""$A'(\ell) = \frac{1}{1 - e^{-\ell}} - \frac{1}{\ell}$."""
        small, near, size = self._split
        series = 0.5 + near * _polynomial(near**2, BERNOULLI)
        above = -1 / torch.expm1(-size) - 1 / size  # of the mirrored law, whose logit is positive
        return torch.where(small, series, torch.where(self.logits > 0, above, 1 - above))

    @property
    def variance(self) -> Tensor:
        r"""$A''(\ell) = \frac{1}{\ell^2} - \frac{1}{4 \sinh^2(\ell / 2)}$."""
        small, near, size = self._split
        series = _polynomial(near**2, [(2 * k - 1) * b for k, b in enumerate(BERNOULLI, 1)])
        return torch.where(small, series, size**-2 - (-size).exp() / torch.expm1(-size) ** 2)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """The quantile of a uniform draw, of the law mirrored so that it falls, and by its series where it is flat."""
        shape, logits = self._extended_shape(torch.Size(sample_shape)), self.logits
        u = torch.rand(shape, dtype=logits.dtype, device=logits.device)
        flat = logits.abs() < 0.01
        size = torch.where(flat, 1.0, logits).abs()
        falling = (torch.log1p(u * torch.expm1(-size)) / -size).clamp(0, 1)
        series = u + logits * u * (1 - u) * (0.5 + logits * (1 - 2 * u) / 6)
        return torch.where(flat, series, torch.where(logits > 0, 1 - falling, falling))

    @property
    def _split(self) -> tuple[Tensor, Tensor, Tensor]:
        """Whether a logit is so small that series take over, the logit there, and its size elsewhere."""
        small = self.logits.abs() < 1
        return (
            small,
            torch.where(small, self.logits, 0.0),
            torch.where(small, 1.0, self.logits).abs(),
        )


def _polynomial(x: Tensor, coefficients: Sequence[float]) -> Tensor:
    r"""$\sum_k a_k x^k$."""
    total = torch.full_like(x, coefficients[-1])
    for a in reversed(coefficients[:-1]):
        total = total * x + a
    return total
