"""Continuous distributions, discretized: the mass of each integer level."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor

from ...densities.precision import as_observed, in_float32
from .intervals import log_cdf, log_cell, log_sf
from .requirements import require_distribution, require_levels


class Discretized(dist.TorchDistribution):
    r"""$P(y) = F(y + ½) - F(y - ½)$ over the levels 0, …, L − 1, where F is the CDF of any base distribution.

    The edge levels take the tails, so $\sum_y P(y) = 1$ for every location and scale. Exact mass, in nats;
    normal, logistic and Laplace bases and mixtures of them keep their digits and finite gradients everywhere,
    other bases within the limits of `log_interval`.

    Args:
        base: a distribution of scalar events on the real line, in level units.
        levels: number L of levels.

    Shape:
        batch_shape that of `base`; event_shape `()`. Values of any dtype, integers included.

    Raises:
        ValueError: if there are fewer than 2 levels, or if the events of `base` are no scalars.
        TypeError: if `base` is no distribution.

    References:
        Kingma et al. 2016, arXiv:1606.04934 (logistic, without the open ends); Salimans et al. 2017,
        arXiv:1701.05517 (mixtures of logistics).

    Example:
        >>> levels = Discretized(dist.Normal(torch.tensor(3.0), 1.5), levels=5)
        >>> round(levels.log_prob(torch.arange(5)).exp().sum().item(), 6)
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
        require_levels("Discretized", levels)
        example = f"Discretized(dist.Normal(loc, scale), {levels})"
        require_distribution("Discretized", base, example)
        if base.event_shape:
            raise ValueError(
                "Discretized: expected a base of scalar events, "
                f"got event_shape {tuple(base.event_shape)}. "
                f"Fix: Discretized(base, {levels}).to_event({len(base.event_shape)}) "
                "of a base without .to_event."
            )
        self.base = in_float32(base)
        self.levels = levels
        super().__init__(base.batch_shape, validate_args=validate_args)

    def __repr__(self) -> str:
        return f"Discretized({self.base}, levels={self.levels})"

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:
        return constraints.integer_interval(0, self.levels - 1)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Discretized:
        new = self._get_checked_instance(Discretized, _instance)
        new.base = self.base.expand(batch_shape)
        new.levels = self.levels
        super(Discretized, new).__init__(torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        value = as_observed(self, value)
        if self._validate_args:
            self._validate_sample(value)
        return self._log_mass(value)

    def cdf(self, value: Tensor) -> Tensor:
        r"""$P(Y \le y)$."""
        value = as_observed(self, value)
        upper_end = torch.floor(value) + 0.5
        inside = log_cdf(self.base, upper_end).exp()
        below_last = torch.where(value >= self.levels - 1, 1.0, inside)
        return torch.where(value < 0, 0.0, below_last)

    def icdf(self, value: Tensor) -> Tensor:
        r"""$\min\{y : P(Y \le y) \ge p\}$, by $\lceil \log_2 L \rceil$ bisections."""
        shape = torch.broadcast_shapes(value.shape, self.batch_shape)
        # P(Y <= low) < p <= P(Y <= high) all the time.
        low = torch.full_like(value, -1.0).expand(shape)
        high = low + self.levels
        num_bisections = (self.levels - 1).bit_length()
        for _ in range(num_bisections):
            middle = ((low + high) / 2).floor()
            enough = self.cdf(middle) >= value
            low = torch.where(enough, low, middle)
            high = torch.where(enough, middle, high)
        return high.clamp(min=0)

    @property
    def mean(self) -> Tensor:
        r"""$E[Y] = \sum_{y \ge 0} P(Y > y)$."""
        borders = self._numbers(0.5, self.levels - 0.5)
        return log_sf(self.base, borders).exp().sum(0)

    @property
    def variance(self) -> Tensor:
        r"""$\sum_{y, y'} P(Y > \max(y, y'))\, P(Y \le \min(y, y'))$, no term negative.

        y and y' run over 0, …, L − 2.
        """
        borders = self._numbers(0.5, self.levels - 0.5)
        above = log_sf(self.base, borders).exp()
        below = log_cdf(self.base, borders).exp()
        pairs_with_lower = 2 * below.cumsum(0) - below
        return (above * pairs_with_lower).sum(0)

    @property
    def mode(self) -> Tensor:
        """The most probable level, the lowest of them, by enumeration."""
        log_masses = self._log_mass(self._numbers(0.0, float(self.levels)))
        return log_masses.argmax(0).to(log_masses.dtype)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """A draw of the base, rounded to the nearest level and clamped to the edge levels."""
        with torch.no_grad():
            draw = self.base.sample(torch.Size(sample_shape))
            return draw.round().clamp(0, self.levels - 1)

    def _log_mass(self, value: Tensor) -> Tensor:
        first = value <= 0
        last = value >= self.levels - 1
        return log_cell(self.base, value, 1.0, first, last)

    def _numbers(self, start: float, end: float) -> Tensor:
        """The numbers start, start + 1, … < end on a new first dim, in the dtype of the base."""
        # A transformed distribution has no mean, and the dtype of its base.
        distribution = self.base
        while isinstance(distribution, dist.TransformedDistribution):
            distribution = distribution.base_dist
        like = distribution.mean
        numbers = torch.arange(start, end, dtype=like.dtype, device=like.device)
        ones = [1] * len(self.batch_shape)
        return numbers.reshape(-1, *ones)
