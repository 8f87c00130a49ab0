"""Likelihood makers for categories: zeros and ones, or K levels without an order."""

from __future__ import annotations

import pyro.distributions as dist
from torch import Tensor, nn

from ..conditionals.conditional import Conditional


class Bernoulli(Conditional):
    r"""$P(x \mid c) = \prod_d \mathrm{Bern}(x_d;\ \sigma(\mathrm{net}(c)_d))$ for binary x. Exact.

    Args:
        net: maps contexts to logits `(*batch, *event)`.
        event_dim: number of event dims: 1 for vectors, 3 for images.

    Example:
        >>> import torch
        >>> Bernoulli(nn.Linear(2, 9))(torch.zeros(4, 2)).event_shape
        torch.Size([9])
    """

    def __init__(self, net: nn.Module, event_dim: int = 1):
        super().__init__(dist.Bernoulli, net, ("logits",), event_dim)


class Categorical(nn.Module):
    r"""$P(x \mid c) = \prod_d \mathrm{Cat}(x_d;\ \mathrm{softmax}(\mathrm{net}(c)_d))$ over K levels. Exact.

    Args:
        net: maps contexts to logits `(*batch, D * levels)`, the K logits of one dim side by side; for images
            `(*batch, channels * levels, height, width)`.
        levels: number K of levels.
        event_dim: number of event dims: 1 for vectors, 3 for images.

    Shape:
        c: `(*batch, C)`  ->  batch_shape `(*batch)`, event_shape `(D,)`, values in 0, …, K − 1.

    Raises:
        ValueError: if the network's last dim is no multiple of `levels`.

    Example:
        >>> import torch
        >>> Categorical(nn.Linear(2, 9 * 4), levels=4)(torch.zeros(5, 2)).event_shape
        torch.Size([9])
    """

    def __init__(self, net: nn.Module, levels: int, event_dim: int = 1):
        super().__init__()
        self.net, self.levels, self.event_dim = net, levels, event_dim

    def forward(self, *contexts: Tensor) -> dist.TorchDistribution:
        raw = self.net(*contexts)
        if raw.shape[-self.event_dim] % self.levels:
            raise ValueError(
                f"Categorical: expected a network output (*batch, D * levels) with levels={self.levels}, got "
                f"{tuple(raw.shape)}. Fix: end the network with nn.Linear(hidden, D * {self.levels})."
            )
        logits = raw.unflatten(-self.event_dim, (-1, self.levels)).movedim(-self.event_dim, -1)
        return dist.Categorical(logits=logits).to_event(self.event_dim)
