"""Images whose channels depend on each other within a pixel: their distribution and its likelihood maker."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor, nn

from ...densities.precision import as_observed, in_float32, network_output
from ..distributions.intervals import log_cell
from ..distributions.requirements import require_levels
from .base import require_tensor
from .discretized import LevelsLikelihood

EVENT_DIMS = {"logits": 3, "loc": 4, "scale": 4, "coefficients": 4}


class ColourLevels(dist.TorchDistribution):
    r"""$P(x) = \prod_{\text{pixels}} \sum_k \pi_k \prod_c [F_{ck}(x_c + ½) - F_{ck}(x_c - ½)]$.

    The edge levels take the tails. F is logistic, and its location moves with the channels before it,
    $\mu_{ck} + \sum_{j < c} a_{cjk} (x_j - m)$ with $m = (L - 1) / 2$. All channels of a pixel share their
    component k. Exact mass, in nats, in one pass; a draw is one pass per channel, is not reparameterized, and
    has no mean in closed form.

    Args:
        logits: of the components, `(*batch, H, W, K)`.
        loc: μ in levels, `(*batch, C, H, W, K)`.
        scale: in levels, `(*batch, C, H, W, K)`.
        coefficients: a in [-1, 1], `(*batch, C (C - 1) / 2, H, W, K)`: of channel 1, then of channel 2, ….
        levels: number L of levels.

    Shape:
        batch_shape `(*batch)`, event_shape `(C, H, W)`.

    Raises:
        ValueError: if there are fewer than 2 levels, or the number of coefficients is another.

    References:
        Salimans et al. 2017, *PixelCNN++*, arXiv:1701.05517, section 2.2 (there without the open ends'
        normalisation).

    Example:
        >>> loc = torch.zeros(3, 2, 2, 5)
        >>> coefficients = torch.zeros(3, 2, 2, 5)
        >>> ColourLevels(torch.zeros(2, 2, 5), loc, loc.exp(), coefficients, levels=256).event_shape
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
        self,
        logits: Tensor,
        loc: Tensor,
        scale: Tensor,
        coefficients: Tensor,
        levels: int,
    ):
        require_levels("ColourLevels", levels)
        _require_one_coefficient_per_pair(coefficients, channels=loc.shape[-4])
        self.logits = in_float32(logits)
        self.loc = in_float32(loc)
        self.scale = in_float32(scale)
        self.coefficients = in_float32(coefficients)
        self.levels = levels
        batch_shape = torch.broadcast_shapes(
            logits.shape[:-3],
            loc.shape[:-4],
            scale.shape[:-4],
            coefficients.shape[:-4],
        )
        event_shape = loc.shape[-4:-1]
        super().__init__(batch_shape, event_shape)

    @constraints.dependent_property(is_discrete=True, event_dim=3)
    def support(self) -> constraints.Constraint:
        levels = constraints.integer_interval(0, self.levels - 1)
        return constraints.independent(levels, 3)

    def expand(self, batch_shape: Any, _instance: Any = None) -> ColourLevels:
        new = self._get_checked_instance(ColourLevels, _instance)
        batch_shape = torch.Size(batch_shape)
        for name, event_dims in EVENT_DIMS.items():
            tensor = getattr(self, name)
            event_shape = tensor.shape[-event_dims:]
            setattr(new, name, tensor.expand(batch_shape + event_shape))
        new.levels = self.levels
        super(ColourLevels, new).__init__(
            batch_shape,
            self.event_shape,
            validate_args=False,
        )
        new._validate_args = self._validate_args
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        value = as_observed(self, value)
        if self._validate_args:
            self._validate_sample(value)
        x = value[..., None]
        locations = []
        for channel in range(self.loc.shape[-4]):
            locations.append(self._location(channel, self.loc, self.coefficients, x))
        logistic = dist.Logistic(torch.stack(locations, dim=-4), self.scale)
        first = x <= 0
        last = x >= self.levels - 1
        log_mass_of_pixel = log_cell(logistic, x, 1.0, first, last).sum(-4)
        log_joint = self.logits.log_softmax(-1) + log_mass_of_pixel
        return log_joint.logsumexp(-1).sum((-2, -1))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """A component for each pixel, then its channels in turn."""
        with torch.no_grad():
            batch_shape = torch.Size(sample_shape) + self.batch_shape
            k = self._draw_components(batch_shape)
            loc = _gather_component(self.loc, k)
            scale = _gather_component(self.scale, k)
            coefficients = _gather_component(self.coefficients, k)
            x = torch.zeros_like(loc)
            for channel in range(loc.shape[-4]):
                location = self._location(channel, loc, coefficients, x)
                draw = dist.Logistic(location, scale.select(-4, channel)).sample()
                level = draw.round().clamp(0, self.levels - 1)
                x.select(-4, channel).copy_(level)
            return x[..., 0]

    def _draw_components(self, batch_shape: torch.Size) -> Tensor:
        """One component for each pixel, `(*batch, 1, H, W, 1)`."""
        pixels = self.event_shape[1:]
        components = dist.Categorical(logits=self.logits).expand(batch_shape + pixels)
        return components.sample()[..., None, :, :, None]

    def _location(self, c: int, loc: Tensor, coefficients: Tensor, x: Tensor) -> Tensor:
        r"""$\mu_c + \sum_{j < c} a_{cj} (x_j - m)$, components on the last dim."""
        first = c * (c - 1) // 2
        a = coefficients.narrow(-4, first, c)
        middle = (self.levels - 1) / 2
        shifts = a * (x.narrow(-4, 0, c) - middle)
        return loc.select(-4, c) + shifts.sum(-4)


def _gather_component(tensor: Tensor, k: Tensor) -> Tensor:
    """The entries `(*batch, n, H, W, 1)` of component k `(*batch, 1, H, W, 1)`."""
    shape = k.shape[:-4] + tensor.shape[-4:-1]
    num_components = tensor.shape[-1]
    expanded = tensor.expand(*shape, num_components)
    return expanded.gather(-1, k.expand(*shape, 1))


def _require_one_coefficient_per_pair(coefficients: Tensor, channels: int) -> None:
    pairs = channels * (channels - 1) // 2
    if coefficients.shape[-4] != pairs:
        raise ValueError(
            f"ColourLevels: expected {pairs} coefficients "
            f"(*batch, {pairs}, H, W, K) for {channels} channels, "
            f"got {tuple(coefficients.shape)}. Fix: one for each pair of channels."
        )


class ColourLogisticMixture(LevelsLikelihood):
    r"""A mixture of K logistics over the colours of each pixel, later channels given earlier ones.

    The distribution is `ColourLevels`; locations and scales are those of `DiscretizedLogisticMixture`,
    coefficients $a = \tanh r$: outputs of 0 are K equal bumps along the grey diagonal, with independent
    channels within each. Exact.

    Args:
        net: maps contexts to `(*batch, P * K, H, W)` with $P = 1 + 2 C + C (C - 1) / 2$, which is 10 for
            three channels: logits, C raw locations, C raw log-scales and the raw coefficients, in each the K
            components side by side.
        levels: number L of levels; x takes the values 0, …, L − 1.
        num_components: K.
        channels: C.
        min_scale: added to the scales, in levels, as in `DiscretizedLogistic`.

    Shape:
        c: `(*batch, …)`  ->  batch_shape `(*batch)`, event_shape `(C, H, W)`.

    Raises:
        TypeError: if `net` is no network.
        ValueError: for fewer than 2 levels; if the network's number of channels is another, or an argument is
            out of range.

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
            raise ValueError(
                f"ColourLogisticMixture: expected channels >= 1, got {channels}. "
                "Fix: channels=3 for colours, channels=1 for grey images."
            )
        self.channels = channels

    def forward(self, *contexts: Tensor) -> dist.TorchDistribution:
        raw = network_output(self.net(*contexts))
        num_pairs = self.channels * (self.channels - 1) // 2
        parts = (1, self.channels, self.channels, num_pairs)
        self._require_channels(raw, sum(parts) * self.num_components)
        by_component = self.split_components(raw)
        logits, raw_loc, raw_log_scale, coefficients = by_component.split(parts, dim=-4)
        loc, scale = self.space_evenly(raw_loc, raw_log_scale)
        return ColourLevels(
            logits.squeeze(-4),
            loc,
            scale,
            coefficients.tanh(),
            self.levels,
        )

    def _require_channels(self, raw: Tensor, num: int) -> None:
        require_tensor("ColourLogisticMixture", raw)
        if raw.dim() < 3 or raw.shape[-3] != num:
            raise ValueError(
                "ColourLogisticMixture: expected a network output "
                f"(*batch, {num}, H, W) for {self.channels} channels and "
                f"{self.num_components} components, got {tuple(raw.shape)}. "
                f"Fix: end the network with {num} channels, nn.Conv2d(hidden, {num}, 1)."
            )

    def extra_repr(self) -> str:
        return (
            f"levels={self.levels}, "
            f"num_components={self.num_components}, "
            f"channels={self.channels}, "
            f"min_scale={self.min_scale}"
        )
