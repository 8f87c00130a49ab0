"""Continuous distributions, discretized: the mass of each integer level."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor

from .intervals import log_cdf, log_cell, log_sf


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
