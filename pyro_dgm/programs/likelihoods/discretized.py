"""Likelihood makers for integer levels in their order: a continuous distribution, discretized."""

from __future__ import annotations

from math import log
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ..distributions.discretized import Discretized

MAX_LOG_SCALE = 12.0


class LevelsLikelihood(nn.Module):
    """What the discretized likelihoods share: how they read locations and log-scales from a network. Abstract."""

    chunks: tuple[str, ...] = ("locations", "log-scales")

    def __init__(
        self, net: nn.Module, levels: int, min_scale: float, event_dim: int, num_components: int = 1
    ):
        super().__init__()
        if min_scale < 0:
            raise ValueError(f"{type(self).__name__}: expected min_scale >= 0, got {min_scale}.")
        if num_components < 1:
            raise ValueError(
                f"{type(self).__name__}: expected num_components >= 1, got {num_components}."
            )
        self.net, self.levels, self.min_scale, self.event_dim = net, levels, min_scale, event_dim
        self.num_components = num_components

    def read(self, *contexts: Tensor) -> tuple[Tensor, ...]:
        """The chunks of the network's output."""
        raw, num = self.net(*contexts), len(self.chunks) * self.num_components
        if raw.dim() < self.event_dim or raw.shape[-self.event_dim] % num:
            raise ValueError(
                f"{type(self).__name__}: expected a network output (*batch, {num} * D), {' then '.join(self.chunks)}, "
                f"got {tuple(raw.shape)}. Fix: end the network with nn.Linear(hidden, {num} * D)."
            )
        return raw.chunk(len(self.chunks), dim=-self.event_dim)

    def scale(self, log_scale: Tensor) -> Tensor:
        r"""$s = s_{\min} + e^r$, r clamped to ±12."""
        return log_scale.clamp(-MAX_LOG_SCALE, MAX_LOG_SCALE).exp() + self.min_scale

    def by_component(self, chunk: Tensor) -> Tensor:
        """`(*batch, K * D)` to `(*batch, D, K)`, for images `(*batch, channels, height, width, K)`."""
        return chunk.unflatten(-self.event_dim, (-1, self.num_components)).movedim(
            -self.event_dim, -1
        )

    def spread(self, loc: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
        """Locations and scales in levels from the raw ones, components on the last dim."""
        k, num = (
            torch.arange(self.num_components, dtype=loc.dtype, device=loc.device),
            self.num_components,
        )
        return self.levels * (loc + (k + 0.5) / num) - 0.5, self.scale(
            log_scale + log(self.levels / (2 * num))
        )


class OneBump(LevelsLikelihood):
    """A discretized likelihood with one law of a family of locations and scales for every dim. Abstract."""

    family: type[Any]

    def __init__(self, net: nn.Module, levels: int, min_scale: float = 0.0, event_dim: int = 1):
        super().__init__(net, levels, min_scale, event_dim)

    def forward(self, *contexts: Tensor) -> dist.TorchDistribution:
        loc, log_scale = self.read(*contexts)
        return Discretized(self.family(loc, self.scale(log_scale)), self.levels).to_event(
            self.event_dim
        )


class DiscretizedLogistic(OneBump):
    r"""$P(x \mid c) = \prod_d [F(x_d + ½) - F(x_d - ½)]$, F logistic, open tails at the edge levels. Exact, normalised.

    Args:
        net: maps contexts to `(*batch, 2 * D)`: D locations, then D log-scales, both in level units; for images
            `(*batch, 2 * channels, height, width)`.
        levels: number L of levels; x takes the values 0, …, L − 1.
        min_scale: $s_{\min}$ in $s = s_{\min} + e^r$, r the network's log-scale, clamped to ±12. Where training shows
            one level only, an unbounded scale shrinks to 0, and a test datum of another level then costs hundreds of
            nats.
        event_dim: number of event dims: 1 for vectors, 3 for images.

    Shape:
        c: `(*batch, C)`  ->  batch_shape `(*batch)`, event_shape `(D,)`.

    Raises:
        ValueError: if the network's last dim is odd, or `min_scale` is negative.

    References:
        Kingma et al. 2016, arXiv:1606.04934; the density is `Discretized`.

    Example:
        >>> law = DiscretizedLogistic(nn.Identity(), levels=3)(torch.zeros(1, 2))
        >>> sum(law.log_prob(torch.tensor([[float(y)]])).exp().item() for y in range(3))  # doctest: +ELLIPSIS
        1.000...
    """

    family = dist.Logistic


class DiscretizedNormal(OneBump):
    r"""$P(x \mid c) = \prod_d [F(x_d + ½) - F(x_d - ½)]$, F normal, open tails at the edge levels. Exact, normalised.

    Network, arguments and units are those of `DiscretizedLogistic`; the tails are lighter, and a level far from the
    location costs the square of its distance.

    Args:
        net: maps contexts to `(*batch, 2 * D)`: D locations, then D log-scales, both in level units.
        levels: number L of levels; x takes the values 0, …, L − 1.
        min_scale: added to the scales, as in `DiscretizedLogistic`.
        event_dim: number of event dims: 1 for vectors, 3 for images.

    Raises:
        ValueError: if the network's last dim is odd, or `min_scale` is negative.

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
        net: maps contexts to `(*batch, 3 * K * D)`: logits, raw locations, raw log-scales, in each the K components of
            one dim side by side; for images `(*batch, 3 * K * channels, height, width)`.
        levels: number L of levels; x takes the values 0, …, L − 1.
        num_components: K.
        min_scale: $s_{\min}$ in levels, as in `DiscretizedLogistic`.
        event_dim: number of event dims: 1 for vectors, 3 for images.

    Raises:
        ValueError: if that dim of the network's output is no multiple of 3 K, or if `min_scale` or `num_components`
            is out of range.

    References:
        Salimans et al. 2017, *PixelCNN++*, arXiv:1701.05517; with channels that depend on each other
        `ColourLogisticMixture`.

    Example:
        >>> law = DiscretizedLogisticMixture(nn.Identity(), levels=256, num_components=5)(torch.zeros(3 * 5 * 2))
        >>> law.mean
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
        logits, loc, log_scale = (self.by_component(chunk) for chunk in self.read(*contexts))
        kernels = dist.Logistic(*self.spread(loc, log_scale))
        mixture = dist.MixtureSameFamily(dist.Categorical(logits=logits), kernels)
        return Discretized(mixture, self.levels).to_event(self.event_dim)
