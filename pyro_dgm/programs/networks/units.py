"""Maps between the units of the data and those of a network's inputs and outputs; they have no parameters."""

from __future__ import annotations

from math import log

import torch
from torch import Tensor, nn

from ..distributions.requirements import require_levels


class Rescale(nn.Module):
    r"""$x \mapsto 2 \frac{x - \mathrm{low}}{\mathrm{high} - \mathrm{low}} - 1$: a range onto $[-1, 1]$.

    Args:
        low: what is sent to −1.
        high: what is sent to 1, such as the highest level.

    Shape:
        any, of any dtype  ->  the same, floating point.

    Raises:
        ValueError: if the range is empty.

    Example:
        >>> Rescale(0, 16)(torch.tensor([0, 8, 16]))
        tensor([-1.,  0.,  1.])
    """

    def __init__(self, low: float, high: float):
        super().__init__()
        if not low < high:
            raise ValueError(
                f"Rescale: expected low < high, got low={low}, high={high}. "
                "Fix: Rescale(0, 255) for bytes, Rescale(0, levels - 1) for levels."
            )
        # As floats they lift uint8 levels to floating point, where the difference can't overflow.
        self.low = float(low)
        self.high = float(high)

    def forward(self, x: Tensor) -> Tensor:
        return 2 * (x - self.low) / (self.high - self.low) - 1

    def extra_repr(self) -> str:
        return f"low={self.low:g}, high={self.high:g}"


class LevelUnits(nn.Module):
    r"""$(r^\mu, r^s) \mapsto ((L - 1)\, \sigma(r^\mu),\ r^s + \log L - 2)$: raw outputs to levels.

    Stands between a network and `DiscretizedLogistic` or `DiscretizedNormal`: locations stay within the
    levels, and outputs of 0 are one bump in the middle, whose scale is 0.14 of the range.

    Args:
        levels: number L of levels.
        dim: the dim whose halves are locations and log-scales: -1 for vectors, -3 for the channels of images.

    Shape:
        `(*batch, 2 * D)`  ->  the same.

    Raises:
        ValueError: if there are fewer than 2 levels, or that dim has an odd size.

    Example:
        >>> LevelUnits(256)(torch.zeros(2))
        tensor([127.5000,   3.5452])
    """

    def __init__(self, levels: int, dim: int = -1):
        super().__init__()
        require_levels("LevelUnits", levels)
        self.levels = levels
        self.dim = dim

    def forward(self, raw: Tensor) -> Tensor:
        if raw.shape[self.dim] % 2:
            raise ValueError(
                "LevelUnits: expected locations then log-scales, "
                f"halves of dim {self.dim}; got {tuple(raw.shape)}. "
                "Fix: LevelUnits(levels, dim=-3) for images, or an even number of outputs."
            )
        raw_loc, raw_log_scale = raw.chunk(2, dim=self.dim)
        loc = (self.levels - 1) * raw_loc.sigmoid()
        log_scale = raw_log_scale + log(self.levels) - 2
        return torch.cat([loc, log_scale], dim=self.dim)

    def extra_repr(self) -> str:
        return f"levels={self.levels}, dim={self.dim}"
