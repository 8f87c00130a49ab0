"""Likelihood makers for integer levels in their order: continuous distributions, discretized."""

from __future__ import annotations

from math import log
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ...densities.precision import network_output
from ...display.representation import SettingsFirst
from ..distributions.discretized import Discretized
from ..distributions.requirements import require_levels
from ..requirements import require_network
from .base import require_chunks, require_event_dim

MAX_LOG_SCALE = 12.0


class LevelsLikelihood(SettingsFirst):
    """How all discretized likelihoods read locations and scales from a network's output. Abstract.

    Args:
        net: maps contexts to `(*batch, num * D)`, for images `(*batch, num * channels, height, width)`, where
            `num` is the number of chunks times that of components.
        levels: number L of levels.
        min_scale: added to the scales, in levels.
        event_dim: number of event dims: 1 for vectors, 3 for images.
        num_components: number K of components of each dim.

    Attributes:
        chunks: what the equal parts of the network's output are, in their order.

    Raises:
        TypeError: if `net` is no network.
        ValueError: for fewer than 2 levels, or an argument out of range.
    """

    chunks: tuple[str, ...] = ("locations", "log-scales")

    def __init__(
        self,
        net: nn.Module,
        levels: int,
        min_scale: float,
        event_dim: int,
        num_components: int = 1,
    ):
        super().__init__()
        owner = type(self).__name__
        require_network(owner, net)
        require_levels(owner, levels)
        require_event_dim(owner, event_dim)
        if min_scale < 0:
            raise ValueError(
                f"{owner}: expected min_scale >= 0, got {min_scale}. "
                "Fix: min_scale=0.1, a scale in levels; it is no log-scale."
            )
        if num_components < 1:
            raise ValueError(
                f"{owner}: expected num_components >= 1, got {num_components}. "
                "Fix: num_components=5."
            )
        self.net = net
        self.levels = levels
        self.min_scale = min_scale
        self.event_dim = event_dim
        self.num_components = num_components

    def read_chunks(self, *contexts: Tensor) -> tuple[Tensor, ...]:
        """The chunks of the network's output."""
        raw = network_output(self.net(*contexts))
        num_chunks = len(self.chunks)
        num = num_chunks * self.num_components
        parts = " then ".join(self.chunks)
        require_chunks(type(self).__name__, raw, num, parts, self.event_dim)
        return raw.chunk(num_chunks, dim=-self.event_dim)

    def scale(self, log_scale: Tensor) -> Tensor:
        r"""$s = s_{\min} + e^r$, r clamped to ±12."""
        clamped = log_scale.clamp(-MAX_LOG_SCALE, MAX_LOG_SCALE)
        return clamped.exp() + self.min_scale

    def split_components(self, chunk: Tensor) -> Tensor:
        """`(*batch, K * D)` to `(*batch, D, K)`, for images `(*batch, channels, height, width, K)`."""
        components = chunk.unflatten(-self.event_dim, (-1, self.num_components))
        return components.movedim(-self.event_dim, -1)

    def space_evenly(self, raw_loc: Tensor, raw_log_scale: Tensor) -> tuple[Tensor, Tensor]:
        r"""$\mu_k = L\, (r^\mu_k + \frac{k + ½}{K}) - ½$ and $s_k = s_{\min} + \frac{L}{2 K} e^{r^s_k}$."""
        num = self.num_components
        k = torch.arange(num, dtype=raw_loc.dtype, device=raw_loc.device)
        loc = self.levels * (raw_loc + (k + 0.5) / num) - 0.5
        scale = self.scale(raw_log_scale + log(self.levels / (2 * num)))
        return loc, scale

    def extra_repr(self) -> str:
        return f"levels={self.levels}, min_scale={self.min_scale}, event_dim={self.event_dim}"


class SingleComponent(LevelsLikelihood):
    r"""$P(x \mid c) = \prod_d [F(x_d + ½) - F(x_d - ½)]$ with F of one family. Abstract.

    Attributes:
        family: the class of F, a Pyro distribution with parameters `loc` and `scale`.
    """

    family: type[Any]

    def __init__(
        self,
        net: nn.Module,
        levels: int,
        min_scale: float = 0.0,
        event_dim: int = 1,
    ):
        super().__init__(net, levels, min_scale, event_dim)

    def forward(self, *contexts: Tensor) -> dist.TorchDistribution:
        loc, log_scale = self.read_chunks(*contexts)
        base = self.family(loc, self.scale(log_scale))
        return Discretized(base, self.levels).to_event(self.event_dim)


class DiscretizedLogistic(SingleComponent):
    r"""$P(x \mid c) = \prod_d [F(x_d + ½) - F(x_d - ½)]$, F logistic. Exact, in nats.

    The edge levels take the tails: the masses sum to 1.

    Args:
        net: maps contexts to `(*batch, 2 * D)`: D locations, then D log-scales, both in level units; for
            images `(*batch, 2 * channels, height, width)`.
        levels: number L of levels; x takes the values 0, …, L − 1.
        min_scale: $s_{\min}$ in $s = s_{\min} + e^r$, r the network's log-scale, clamped to ±12. Where
            training shows one level only, an unbounded scale shrinks to 0, and a test datum of another level
            then costs hundreds of nats.
        event_dim: number of event dims: 1 for vectors, 3 for images.

    Shape:
        c: `(*batch, C)`  ->  batch_shape `(*batch)`, event_shape `(D,)`.

    Raises:
        TypeError: if `net` is no network.
        ValueError: for fewer than 2 levels; if the network's last dim is odd, or `min_scale` is negative.

    References:
        Kingma et al. 2016, arXiv:1606.04934; the density is `Discretized`.

    Example:
        >>> x = DiscretizedLogistic(nn.Identity(), levels=3)(torch.zeros(1, 2))
        >>> round(x.log_prob(torch.arange(3.0)[:, None]).exp().sum().item(), 6)
        1.0
    """

    family = dist.Logistic


class DiscretizedNormal(SingleComponent):
    r"""$P(x \mid c) = \prod_d [F(x_d + ½) - F(x_d - ½)]$, F normal. Exact, in nats.

    Network, arguments and units are those of `DiscretizedLogistic`; the tails are lighter, and a level far
    from the location costs the square of its distance.

    Args:
        net: maps contexts to `(*batch, 2 * D)`: D locations, then D log-scales, both in level units.
        levels: number L of levels; x takes the values 0, …, L − 1.
        min_scale: added to the scales, as in `DiscretizedLogistic`.
        event_dim: number of event dims: 1 for vectors, 3 for images.

    Raises:
        TypeError: if `net` is no network.
        ValueError: for fewer than 2 levels; if the network's last dim is odd, or `min_scale` is negative.

    Example:
        >>> DiscretizedNormal(nn.Linear(2, 2 * 9), levels=16)(torch.zeros(4, 2)).event_shape
        torch.Size([9])
    """

    family = dist.Normal


class DiscretizedLogisticMixture(LevelsLikelihood):
    r"""$P(x \mid c) = \prod_d \sum_k \pi_{dk} [F_{dk}(x_d + ½) - F_{dk}(x_d - ½)]$, F logistic. Exact.

    The network's outputs r become

    $$\pi = \mathrm{softmax}(r^\pi), \quad \mu_k = L\, (r^\mu_k + \tfrac{k + ½}{K}) - ½,
    \quad s_k = s_{\min} + \tfrac{L}{2 K} e^{r^s_k}, \qquad k = 0, \dots, K - 1,$$

    so that outputs of 0 are K equal bumps, spread evenly over the levels.

    Args:
        net: maps contexts to `(*batch, 3 * K * D)`: logits, raw locations, raw log-scales, in each the K
            components of one dim side by side; for images `(*batch, 3 * K * channels, height, width)`.
        levels: number L of levels; x takes the values 0, …, L − 1.
        num_components: K.
        min_scale: $s_{\min}$ in levels, as in `DiscretizedLogistic`.
        event_dim: number of event dims: 1 for vectors, 3 for images.

    Raises:
        TypeError: if `net` is no network.
        ValueError: for fewer than 2 levels; if that dim of the network's output is no multiple of 3 K, or if
            `min_scale` or `num_components` is out of range.

    References:
        Salimans et al. 2017, *PixelCNN++*, arXiv:1701.05517; with channels that depend on each other
        `ColourLogisticMixture`.

    Example:
        >>> likelihood = DiscretizedLogisticMixture(nn.Identity(), levels=256, num_components=5)
        >>> likelihood(torch.zeros(3 * 5 * 2)).mean
        tensor([127.5000, 127.5000])
    """

    chunks = ("logits", "locations", "log-scales")

    def __init__(
        self,
        net: nn.Module,
        levels: int,
        num_components: int,
        min_scale: float = 0.0,
        event_dim: int = 1,
    ):
        super().__init__(net, levels, min_scale, event_dim, num_components)

    def forward(self, *contexts: Tensor) -> dist.TorchDistribution:
        logits, raw_loc, raw_log_scale = self.read_chunks(*contexts)
        logits = self.split_components(logits)
        raw_loc = self.split_components(raw_loc)
        raw_log_scale = self.split_components(raw_log_scale)
        loc, scale = self.space_evenly(raw_loc, raw_log_scale)
        mixture = dist.MixtureSameFamily(
            dist.Categorical(logits=logits),
            dist.Logistic(loc, scale),
        )
        return Discretized(mixture, self.levels).to_event(self.event_dim)

    def extra_repr(self) -> str:
        return f"num_components={self.num_components}, {super().extra_repr()}"
