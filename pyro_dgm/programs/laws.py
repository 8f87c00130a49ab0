"""Distributions that Pyro lacks."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.nn.functional import logsigmoid

MAX_LOG_SCALE = 12.0


def log1mexp(t: Tensor) -> Tensor:
    r"""$\log(1 - e^{-t})$ for $t > 0$, accurate at both ends, with finite gradients and no branch.

    References:
        Mächler 2012, *Accurately computing log(1 - exp(-|a|))*.
    """
    small = t < 0.6931
    near_zero = (-torch.expm1(-torch.where(small, t, 0.5))).log()
    far = torch.log1p(-torch.exp(-torch.where(small, 1.0, t)))
    return torch.where(small, near_zero, far)


class LogisticLevels(dist.TorchDistribution):
    r"""$P(y) = \sigma\left(\frac{y + ½ - \mu}{s}\right) - \sigma\left(\frac{y - ½ - \mu}{s}\right)$ for y < L.

    The edge levels take the tails, so $\sum_y P(y) = 1$ for every location and scale. Exact mass, in nats.

    Args:
        loc: μ in level units.
        log_scale: log s in level units, clamped to ±12.
        levels: number L of levels.

    Shape:
        loc, log_scale: broadcastable to the batch_shape; event_shape `()`.

    References:
        Kingma et al. 2016, arXiv:1606.04934 (without the open ends); Salimans et al. 2017, arXiv:1701.05517.

    Example:
        >>> law = LogisticLevels(torch.tensor(3.0), torch.tensor(0.5), levels=5)
        >>> round(law.log_prob(torch.arange(5)).exp().sum().item(), 6)
        1.0
    """

    arg_constraints = {"loc": constraints.real, "log_scale": constraints.real}
    has_rsample = False

    def __init__(self, loc: Tensor, log_scale: Tensor, levels: int, validate_args: bool | None = None):  # noqa: FBT001
        if levels < 2:
            raise ValueError(f"LogisticLevels: expected at least 2 levels, got {levels}.")
        self.loc, log_scale = torch.broadcast_tensors(loc, log_scale)
        self.log_scale = log_scale.clamp(-MAX_LOG_SCALE, MAX_LOG_SCALE)
        self.levels = levels
        super().__init__(self.loc.shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:
        return constraints.integer_interval(0, self.levels - 1)

    def expand(self, batch_shape: Any, _instance: Any = None) -> LogisticLevels:
        new = self._get_checked_instance(LogisticLevels, _instance)
        new.loc, new.log_scale = self.loc.expand(batch_shape), self.log_scale.expand(batch_shape)
        new.levels = self.levels
        super(LogisticLevels, new).__init__(torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        rate = (-self.log_scale).exp()
        upper, lower = (value + 0.5 - self.loc) * rate, (value - 0.5 - self.loc) * rate
        # σ(b) − σ(a) = σ(b) σ(−a) (1 − e^{a−b}); an open end drops its own factor and the last one.
        below, above = logsigmoid(upper), logsigmoid(-lower)
        inside = below + above + log1mexp(rate)
        return torch.where(value <= 0, below, torch.where(value >= self.levels - 1, above, inside))

    def cdf(self, value: Tensor) -> Tensor:
        r"""$P(Y \le y)$."""
        inside = torch.sigmoid((torch.floor(value) + 0.5 - self.loc) * (-self.log_scale).exp())
        return torch.where(value < 0, 0.0, torch.where(value >= self.levels - 1, 1.0, inside))

    @property
    def _logit_exceedance(self) -> Tensor:
        """The logit of P(Y > y) for y = 0, …, L − 2 on a new last dim."""
        cut = torch.arange(self.levels - 1, device=self.loc.device, dtype=self.loc.dtype) + 0.5
        return (self.loc[..., None] - cut) * (-self.log_scale[..., None]).exp()

    @property
    def mean(self) -> Tensor:
        r"""$E[Y] = \sum_{y \ge 0} P(Y > y)$."""
        return self._logit_exceedance.sigmoid().sum(-1)

    @property
    def variance(self) -> Tensor:
        r"""$\sum_{y, y'} P(Y > \max(y, y'))\, P(Y \le \min(y, y'))$ over y, y' in 0, …, L − 2: no term is negative."""
        logit = self._logit_exceedance
        above, below = logit.sigmoid(), (-logit).sigmoid()
        return (above * (2 * below.cumsum(-1) - below)).sum(-1)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """A logistic draw, rounded to the nearest level and clamped to the edge levels."""
        with torch.no_grad():
            shape = self._extended_shape(sample_shape)
            tiny = torch.finfo(self.loc.dtype).tiny
            uniform = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device).clamp(min=tiny)
            logistic = uniform.log() - torch.log1p(-uniform)
            return (self.loc + self.log_scale.exp() * logistic).round().clamp(0, self.levels - 1)
