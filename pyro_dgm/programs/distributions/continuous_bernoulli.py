"""The continuous Bernoulli distribution by its logit, exact where torch rounds its probability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor

from ...densities.precision import as_observed, in_float32
from .cells import log1mexp

# B_2k / (2k)! of the Bernoulli numbers: the series of A'(l) - 1/2, exact to 1e-15 for |l| < 1
BERNOULLI = (
    1 / 12,
    -1 / 720,
    1 / 30240,
    -1 / 1209600,
    1 / 47900160,
    -691 / 1307674368000,
    1 / 74724249600,
    -3617 / 10670622842880000,
    43867 / 5109094217170944000,
)
# Its integral and its derivative, term by term: the series of A(l) - l/2 and of A''(l)
INTEGRAL = tuple(b / (2 * k) for k, b in enumerate(BERNOULLI, 1))
DERIVATIVE = tuple((2 * k - 1) * b for k, b in enumerate(BERNOULLI, 1))


class ContinuousBernoulliLogits(dist.TorchDistribution):
    r"""$p(x) = e^{\ell x - A(\ell)}$ on [0, 1], $A(\ell) = \log \frac{e^\ell - 1}{\ell}$; reparameterized.

    torch's own distribution rounds its probabilities to within a float's precision of 0 and 1: in float32 its
    mass is 0.80 at a logit of 20 and 0.32 at 50, which is 1.1 nats a dim. This one is exact, in nats, for
    every logit.

    Args:
        logits: $\ell$.

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
        self.logits = in_float32(logits)
        super().__init__(logits.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> ContinuousBernoulliLogits:
        new = self._get_checked_instance(ContinuousBernoulliLogits, _instance)
        new.logits = self.logits.expand(batch_shape)
        super(ContinuousBernoulliLogits, new).__init__(
            torch.Size(batch_shape),
            validate_args=False,
        )
        new._validate_args = self._validate_args
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        value = as_observed(self, value)
        if self._validate_args:
            self._validate_sample(value)
        return self.logits * value - self._log_normalizer

    @property
    def _log_normalizer(self) -> Tensor:
        r"""$A(\ell)$."""
        small, near, size = self._ranges
        series = near / 2 + near**2 * _polynomial(near**2, INTEGRAL)
        large = self.logits.clamp(min=0) + log1mexp(size) - size.log()
        return torch.where(small, series, large)

    @property
    def mean(self) -> Tensor:
        r"""$A'(\ell) = \frac{1}{1 - e^{-\ell}} - \frac{1}{\ell}$."""
        small, near, size = self._ranges
        series = 0.5 + near * _polynomial(near**2, BERNOULLI)
        # The mean at a positive logit; that at a negative one is its mirror image.
        of_positive = -1 / torch.expm1(-size) - 1 / size
        large = torch.where(self.logits > 0, of_positive, 1 - of_positive)
        return torch.where(small, series, large)

    @property
    def variance(self) -> Tensor:
        r"""$A''(\ell) = \frac{1}{\ell^2} - \frac{1}{4 \sinh^2(\ell / 2)}$."""
        small, near, size = self._ranges
        series = _polynomial(near**2, DERIVATIVE)
        large = size**-2 - (-size).exp() / torch.expm1(-size) ** 2
        return torch.where(small, series, large)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """The quantile of a uniform draw, by its series where the density is flat."""
        shape = self._extended_shape(torch.Size(sample_shape))
        logits = self.logits
        u = torch.rand(shape, dtype=logits.dtype, device=logits.device)
        flat = logits.abs() < 0.01
        steep = torch.where(flat, 1.0, logits)
        return torch.where(flat, _flat_quantile(u, logits), _steep_quantile(u, steep))

    @property
    def _ranges(self) -> tuple[Tensor, Tensor, Tensor]:
        """Whether a logit is so small that series take over, the logit there, and its size elsewhere."""
        small = self.logits.abs() < 1
        near = torch.where(small, self.logits, 0.0)
        size = torch.where(small, 1.0, self.logits).abs()
        return small, near, size


def _steep_quantile(u: Tensor, logits: Tensor) -> Tensor:
    """Of the density mirrored so that it falls, whose draw is mirrored back."""
    size = logits.abs()
    falling = (torch.log1p(u * torch.expm1(-size)) / -size).clamp(0, 1)
    return torch.where(logits > 0, 1 - falling, falling)


def _flat_quantile(u: Tensor, logits: Tensor) -> Tensor:
    r"""$u + \frac{\ell}{2} u (1 - u) + \frac{\ell^2}{6} u (1 - u) (1 - 2 u)$."""
    second_order = logits * (1 - 2 * u) / 6
    return u + logits * u * (1 - u) * (0.5 + second_order)


def _polynomial(x: Tensor, coefficients: Sequence[float]) -> Tensor:
    r"""$\sum_k a_k x^k$."""
    total = torch.full_like(x, coefficients[-1])
    for a in reversed(coefficients[:-1]):
        total = total * x + a
    return total
