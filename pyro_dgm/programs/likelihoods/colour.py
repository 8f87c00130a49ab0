"""Images whose channels depend on each other within a pixel: a law and the likelihood that makes it."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor, nn

from ..distributions.intervals import log_cell
from .discretized import LevelsLikelihood

EVENT_DIMS = {"logits": 3, "loc": 4, "scale": 4, "coefficients": 4}


class ColourLevels(dist.TorchDistribution):
    r"""$P(x) = \prod_{\text{pixels}} \sum_k \pi_k \prod_c [F_{ck}(x_c + ½) - F_{ck}(x_c - ½)]$, open at the edges.

    F is logistic, and its location moves with the channels before it: $\mu_{ck} + \sum_{j < c} a_{cjk} (x_j - m)$ with
    $m = (L - 1) / 2$. All channels of a pixel share their component k. Exact mass, in nats, in one pass; a draw is one
    pass per channel, is not reparameterized, and has no mean in closed form.

    Args:
        logits: of the components, `(*batch, H, W, K)`.
        loc: μ in levels, `(*batch, C, H, W, K)`.
        scale: in levels, `(*batch, C, H, W, K)`.
        coefficients: a in [-1, 1], `(*batch, C (C - 1) / 2, H, W, K)`: those of channel 1, then of channel 2, ….
        levels: number L of levels.

    Shape:
        batch_shape `(*batch)`, event_shape `(C, H, W)`.

    Raises:
        ValueError: if there are fewer than 2 levels, or the number of coefficients is another.

    References:
        Salimans et al. 2017, *PixelCNN++*, arXiv:1701.05517, section 2.2 (there without the open ends' normalisation).

    Example:
        >>> of_channels, pairs = torch.zeros(3, 2, 2, 5), torch.zeros(3, 2, 2, 5)
        >>> ColourLevels(torch.zeros(2, 2, 5), of_channels, of_channels.exp(), pairs, levels=256).event_shape
        torch.Size([3, 2, 2])
    """

    arg_constraints = {
        "logits": constraints.independent(constraints.real, 3),
        "loc": constraints.independent(constraints.real, 4),
        "scale": constraints.independent(constraints.positive, 4),
        "coefficients": constraints.independent(constraints.interval(-1.0, 1.0), 4),
    }
    has_rsample = False

    def __init__(
        self, logits: Tensor, loc: Tensor, scale: Tensor, coefficients: Tensor, levels: int
    ):
        channels, pairs = loc.shape[-4], loc.shape[-4] * (loc.shape[-4] - 1) // 2
        if levels < 2:
            raise ValueError(f"ColourLevels: expected at least 2 levels, got {levels}.")
        if coefficients.shape[-4] != pairs:
            raise ValueError(
                f"ColourLevels: expected {pairs} coefficients (*batch, {pairs}, H, W, K) for {channels} channels, got "
                f"{tuple(coefficients.shape)}. Fix: one for each pair of channels."
            )
        self.logits, self.loc, self.scale, self.coefficients = logits, loc, scale, coefficients
        self.levels = levels
        batch = torch.broadcast_shapes(
            *(getattr(self, n).shape[:-d] for n, d in EVENT_DIMS.items())
        )
        super().__init__(batch, loc.shape[-4:-1])

    @constraints.dependent_property(is_discrete=True, event_dim=3)
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.integer_interval(0, self.levels - 1), 3)

    def expand(self, batch_shape: Any, _instance: Any = None) -> ColourLevels:
        new = self._get_checked_instance(ColourLevels, _instance)
        for name, dims in EVENT_DIMS.items():
            tensor = getattr(self, name)
            setattr(new, name, tensor.expand(torch.Size(batch_shape) + tensor.shape[-dims:]))
        new.levels = self.levels
        super(ColourLevels, new).__init__(
            torch.Size(batch_shape), self.event_shape, validate_args=False
        )
        new._validate_args = self._validate_args
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        x = value[..., None]
        channels = range(self.loc.shape[-4])
        loc = torch.stack(
            [self._location(c, self.loc, self.coefficients, x) for c in channels], dim=-4
        )
        log_mass = log_cell(
            dist.Logistic(loc, self.scale), x, 1.0, x <= 0, x >= self.levels - 1
        ).sum(-4)
        return (self.logits.log_softmax(-1) + log_mass).logsumexp(-1).sum((-2, -1))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """A component for each pixel, then its channels in turn."""
        with torch.no_grad():
            shape = torch.Size(sample_shape) + self.batch_shape
            k = dist.Categorical(logits=self.logits).expand(shape + self.event_shape[1:]).sample()
            k = k[..., None, :, :, None]
            loc, scale, coefficients = (
                _chosen(t, k) for t in (self.loc, self.scale, self.coefficients)
            )
            x = torch.zeros_like(loc)
            for c in range(loc.shape[-4]):
                draw = dist.Logistic(
                    self._location(c, loc, coefficients, x), scale.select(-4, c)
                ).sample()
                x.select(-4, c).copy_(draw.round().clamp(0, self.levels - 1))
            return x[..., 0]

    def _location(self, c: int, loc: Tensor, coefficients: Tensor, x: Tensor) -> Tensor:
        r"""$\mu_c + \sum_{j < c} a_{cj} (x_j - m)$, components on the last dim."""
        first = c * (c - 1) // 2
        moved = coefficients.narrow(-4, first, c) * (x.narrow(-4, 0, c) - (self.levels - 1) / 2)
        return loc.select(-4, c) + moved.sum(-4)


def _chosen(tensor: Tensor, k: Tensor) -> Tensor:
    """The entries `(*batch, n, H, W, 1)` of component k `(*batch, 1, H, W, 1)`."""
    shape = k.shape[:-4] + tensor.shape[-4:-1]
    return tensor.expand(shape + tensor.shape[-1:]).gather(-1, k.expand(*shape, 1))


class ColourLogisticMixture(LevelsLikelihood):
    r"""A mixture of K logistics over the colours of each pixel, later channels conditioned on the earlier ones.

    The law is `ColourLevels`; locations and scales are those of `DiscretizedLogisticMixture`, coefficients
    $a = \tanh r$: outputs of 0 are K equal bumps along the grey diagonal, with independent channels within each. Exact.

    Args:
        net: maps contexts to `(*batch, P * K, H, W)` with $P = 1 + 2 C + C (C - 1) / 2$, which is 10 for three
            channels: logits, C raw locations, C raw log-scales and the raw coefficients, in each the K components side
            by side.
        levels: number L of levels; x takes the values 0, …, L − 1.
        num_components: K.
        channels: C.
        min_scale: added to the scales, in levels, as in `DiscretizedLogistic`.

    Shape:
        c: `(*batch, …)`  ->  batch_shape `(*batch)`, event_shape `(C, H, W)`.

    Raises:
        ValueError: if the network's number of channels is another, or an argument is out of range.

    References:
        Salimans et al. 2017, *PixelCNN++*, arXiv:1701.05517.

    Example:
        >>> likelihood = ColourLogisticMixture(nn.Identity(), levels=256, num_components=5)
        >>> likelihood(torch.zeros(7, 10 * 5, 4, 4)).sample().shape
        torch.Size([7, 3, 4, 4])
    """

    def __init__(
        self,
        net: nn.Module,
        levels: int,
        num_components: int,
        channels: int = 3,
        min_scale: float = 0.0,
    ):
        super().__init__(net, levels, min_scale, 3, num_components)
        if channels < 1:
            raise ValueError(f"ColourLogisticMixture: expected channels >= 1, got {channels}.")
        self.channels = channels

    def forward(self, *contexts: Tensor) -> dist.TorchDistribution:
        raw, c = self.net(*contexts), self.channels
        parts = (1, c, c, c * (c - 1) // 2)
        num = sum(parts) * self.num_components
        if raw.dim() < 3 or raw.shape[-3] != num:
            raise ValueError(
                f"ColourLogisticMixture: expected a network output (*batch, {num}, H, W) for {c} channels and "
                f"{self.num_components} components, got {tuple(raw.shape)}. Fix: end the network with {num} channels."
            )
        logits, loc, log_scale, coefficients = self.by_component(raw).split(parts, dim=-4)
        loc, scale = self.spread(loc, log_scale)
        return ColourLevels(logits.squeeze(-4), loc, scale, coefficients.tanh(), self.levels)
