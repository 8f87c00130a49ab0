"""Distributions of zeros and ones, and of levels without an order, that score data of any dtype."""

from __future__ import annotations

import pyro.distributions as dist
from torch import Tensor

from .precision import as_observed


class Bernoulli(dist.Bernoulli):
    r"""$P(x) = p^x (1 - p)^{1 - x}$ of zeros and ones, whatever their dtype.

    Example:
        >>> import torch
        >>> Bernoulli(torch.tensor(0.5)).log_prob(torch.tensor(True)).exp()
        tensor(0.5000)
    """

    def log_prob(self, value: Tensor) -> Tensor:  # noqa: D102
        return super().log_prob(as_observed(self, value))


class Categorical(dist.Categorical):
    r"""$P(x = k) = \pi_k$ of levels 0, …, K − 1, whatever their dtype."""

    def log_prob(self, value: Tensor) -> Tensor:  # noqa: D102
        return super().log_prob(as_observed(self, value))
