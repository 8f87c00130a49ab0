"""Likelihood makers for real numbers and for intensities in [0, 1]."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ...densities.precision import network_output
from ...display.representation import SettingsFirst
from ..conditionals.conditional import positive, raw_of_positive
from ..distributions.continuous_bernoulli import ContinuousBernoulliLogits
from ..requirements import require_network
from .base import FamilyLikelihood, require_event_dim, require_tensor


class Normal(SettingsFirst):
    r"""$p(x \mid c) = \mathcal N(x;\ \mathrm{net}(c),\ \sigma^2 I)$ with one learned σ. Exact, in nats.

    For a scale per dim and datum use `Conditional(dist.Normal, net)`; `refit_scale` gives a trained VAE its
    optimal σ.

    Args:
        net: maps contexts to locations `(*batch, *event)`.
        scale: σ at the start, in the unit of the data.
        event_dim: number of event dims: 1 for vectors, 3 for images.

    Shape:
        c: `(*batch, C)`  ->  batch_shape `(*batch)`, event_shape that of the network's output.

    Raises:
        TypeError: if `net` is no network.
        ValueError: if `scale` is not positive.

    Example:
        >>> Normal(nn.Linear(2, 9), scale=0.1)(torch.zeros(4, 2)).event_shape
        torch.Size([9])
    """

    def __init__(self, net: nn.Module, scale: float = 1.0, event_dim: int = 1):
        super().__init__()
        require_network("Normal", net)
        require_event_dim("Normal", event_dim)
        if not scale > 0:
            raise ValueError(
                f"Normal: expected scale > 0, got {scale}. "
                "Fix: scale=1.0, or the spread of the noise."
            )
        self.net = net
        self.initial_scale = scale
        self.event_dim = event_dim
        self.raw_scale = nn.Parameter(torch.tensor(raw_of_positive(scale)))

    @property
    def scale(self) -> Tensor:
        """σ, 0-dim."""
        return positive(self.raw_scale)

    def set_scale(self, scale: float) -> None:
        """Give σ another value, such as the one that `refit_scale` finds."""
        with torch.no_grad():
            self.raw_scale.fill_(raw_of_positive(scale))

    def forward(self, *contexts: Tensor) -> dist.TorchDistribution:
        loc = network_output(self.net(*contexts))
        require_tensor("Normal", loc)
        return dist.Normal(loc, self.scale).to_event(self.event_dim)

    def extra_repr(self) -> str:
        return f"scale={self.initial_scale}, event_dim={self.event_dim}"


class Laplace(FamilyLikelihood):
    r"""$p(x \mid c) = \prod_d \frac{1}{2 b_d} e^{-|x_d - \mu_d| / b_d}$: the L1 loss with a scale. Exact.

    Args:
        net: maps contexts to `(*batch, 2 * D)`: D locations μ, then D raw scales b (softplus).
        event_dim: number of event dims: 1 for vectors, 3 for images.

    Raises:
        TypeError: if `net` is no network.
        ValueError: if the network's last dim is odd.

    Example:
        >>> Laplace(nn.Linear(2, 2 * 9))(torch.zeros(4, 2)).event_shape
        torch.Size([9])
    """

    family = dist.Laplace
    params = ("loc", "scale")


class StudentT(FamilyLikelihood):
    r"""$p(x \mid c) = \prod_d t_{\nu_d}(x_d;\ \mu_d, s_d)$: tails $|x|^{-\nu - 1}$. Exact, in nats.

    For one ν of your own: `Conditional(dist.StudentT, net, fixed={"df": 5.0})`.

    Args:
        net: maps contexts to `(*batch, 3 * D)`: D raw degrees of freedom ν (softplus), D locations, D raw
            scales.
        event_dim: number of event dims: 1 for vectors, 3 for images.

    Raises:
        TypeError: if `net` is no network.
        ValueError: if the network's last dim is no multiple of 3.

    Example:
        >>> StudentT(nn.Linear(2, 3 * 9))(torch.zeros(4, 2)).event_shape
        torch.Size([9])
    """

    family = dist.StudentT
    params = ("df", "loc", "scale")


class ContinuousBernoulli(FamilyLikelihood):
    r"""$p(x \mid c) = \prod_d e^{\ell_d x_d - A(\ell_d)}$ on $[0, 1]^D$, $\ell = \mathrm{net}(c)$. Exact.

    The normalised density of intensities in [0, 1], where `Bernoulli` is for zeros and ones alone.

    Args:
        net: maps contexts to logits `(*batch, *event)`.
        event_dim: number of event dims: 1 for vectors, 3 for images.

    Raises:
        TypeError: if `net` is no network.

    References:
        Loaiza-Ganem, Cunningham 2019, arXiv:1907.06845; the density is `ContinuousBernoulliLogits`.

    Example:
        >>> ContinuousBernoulli(nn.Linear(2, 9))(torch.zeros(4, 2)).event_shape
        torch.Size([9])
    """

    family = ContinuousBernoulliLogits
    params = ("logits",)
