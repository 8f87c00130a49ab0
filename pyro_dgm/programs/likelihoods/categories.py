"""Likelihood makers for categories: zeros and ones, or K levels without an order."""

from __future__ import annotations

import pyro.distributions as dist
from torch import Tensor, nn

from ...densities import binary
from ...densities.precision import network_output
from ...display.representation import SettingsFirst
from ..distributions.requirements import require_levels
from ..requirements import require_network
from .base import FamilyLikelihood, require_chunks, require_event_dim


class Bernoulli(FamilyLikelihood):
    r"""$P(x \mid c) = \prod_d \mathrm{Bern}(x_d;\ \sigma(\mathrm{net}(c)_d))$ for binary x. Exact, in nats.

    Args:
        net: maps contexts to logits `(*batch, *event)`; one that ends in a sigmoid is warned of.
        event_dim: number of event dims: 1 for vectors, 3 for images.

    Raises:
        TypeError: if `net` is no network.

    Example:
        >>> import torch
        >>> Bernoulli(nn.Linear(2, 9))(torch.zeros(4, 2)).event_shape
        torch.Size([9])
    """

    family = binary.Bernoulli
    params = ("logits",)


class Categorical(SettingsFirst):
    r"""$P(x \mid c) = \prod_d \mathrm{Cat}(x_d;\ \mathrm{softmax}(\mathrm{net}(c)_d))$ over K levels. Exact.

    Args:
        net: maps contexts to logits `(*batch, D * levels)`, the K logits of one dim side by side; for images
            `(*batch, channels * levels, height, width)`.
        levels: number K of levels.
        event_dim: number of event dims: 1 for vectors, 3 for images.

    Shape:
        c: `(*batch, C)`  ->  batch_shape `(*batch)`, event_shape `(D,)`, values in 0, …, K − 1.

    Raises:
        TypeError: if `net` is no network.
        ValueError: for fewer than 2 levels; if the network's last dim is no multiple of `levels`.

    Example:
        >>> import torch
        >>> Categorical(nn.Linear(2, 9 * 4), levels=4)(torch.zeros(5, 2)).event_shape
        torch.Size([9])
    """

    def __init__(self, net: nn.Module, levels: int, event_dim: int = 1):
        super().__init__()
        require_network("Categorical", net)
        require_levels("Categorical", levels)
        require_event_dim("Categorical", event_dim)
        self.net = net
        self.levels = levels
        self.event_dim = event_dim

    def forward(self, *contexts: Tensor) -> dist.TorchDistribution:
        raw = network_output(self.net(*contexts))
        parts = f"the logits of one dim side by side, levels={self.levels}"
        require_chunks("Categorical", raw, self.levels, parts, self.event_dim)
        logits = raw.unflatten(-self.event_dim, (-1, self.levels))
        logits = logits.movedim(-self.event_dim, -1)
        return binary.Categorical(logits=logits).to_event(self.event_dim)

    def extra_repr(self) -> str:
        return f"levels={self.levels}, event_dim={self.event_dim}"
