"""Deterministic decoders, x = G(z): the likelihood of a GAN, and the G of any other likelihood."""

from __future__ import annotations

import pyro.distributions as dist
from torch import Tensor, nn

from ...display.representation import SettingsFirst
from ..requirements import require_conditional, require_network


class Deterministic(SettingsFirst):
    r"""$x = G(c)$ with $G = \mathrm{net}$: an implicit density, to be trained adversarially.

    It generates, and scores no datum: `GANTrainer` and `Sleep` take it, an ELBO is refused. For a likelihood
    of data around its output see `MeanOf`.

    Args:
        net: maps contexts to `(*batch, *event)`.
        event_dim: number of event dims: 1 for vectors, 3 for images.

    Raises:
        TypeError: if `net` is no network.

    Example:
        >>> import torch
        >>> Deterministic(nn.Linear(2, 9))(torch.zeros(4, 2)).event_shape
        torch.Size([9])
    """

    def __init__(self, net: nn.Module, event_dim: int = 1):
        super().__init__()
        require_network("Deterministic", net)
        self.net = net
        self.event_dim = event_dim

    def extra_repr(self) -> str:
        return f"event_dim={self.event_dim}"

    def forward(self, *contexts: Tensor) -> dist.TorchDistribution:
        return dist.Delta(self.net(*contexts), event_dim=self.event_dim)


class MeanOf(SettingsFirst):
    r"""$G(c) = E[x \mid c]$ of a likelihood, as the network of another likelihood.

    `Normal(MeanOf(generator.likelihood), scale=0.1)` is the observation model $\mathcal N(G(z), \sigma^2)$ of
    a GAN's generator, which has then a density; its network is shared, not copied.

    Args:
        likelihood: a conditional whose distributions have a mean, such as `Deterministic(net)`.

    Raises:
        TypeError: if it is no conditional.

    Example:
        >>> import torch
        >>> decoder = Deterministic(nn.Linear(2, 9))
        >>> z = torch.zeros(4, 2)
        >>> torch.equal(MeanOf(decoder)(z), decoder.net(z))
        True
    """

    def __init__(self, likelihood: nn.Module):
        super().__init__()
        require_conditional("likelihood", likelihood, "Deterministic(net)")
        self.likelihood = likelihood

    def forward(self, *contexts: Tensor) -> Tensor:
        return self.likelihood(*contexts).mean
