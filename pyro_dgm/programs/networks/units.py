"""Maps between the units of data and those that networks read and write: no parameters."""

from __future__ import annotations

from math import log

import torch
from torch import Tensor, nn


class Rescale(nn.Module):
    r"""$x \mapsto 2 \frac{x - \mathrm{low}}{\mathrm{high} - \mathrm{low}} - 1$: levels onto $[-1, 1]$.

    Example:
        >>> Rescale(0, 16)(torch.tensor([0, 8, 16]))
        tensor([-1.,  0.,  1.])
    """

    def __init__(self, low: float, high: float):
        super().__init__()
        if not low < high:
            raise ValueError(f"Rescale: expected low < high, got low={low}, high={high}.")
        self.low, self.high = (
            float(low),
            float(high),
        )  # floats lift uint8 levels, which would overflow

    def forward(self, x: Tensor) -> Tensor:
        return 2 * (x - self.low) / (self.high - self.low) - 1


class LevelUnits(nn.Module):
    r"""$(r^\mu, r^s) \mapsto ((L - 1)\, \sigma(r^\mu),\ r^s + \log L - 2)$: raw outputs to the units of levels.

    Stands between a network and `DiscretizedLogistic` or `DiscretizedNormal`: locations stay within the levels, and
    outputs of 0 are one bump in the middle, whose scale is 0.14 of the range.

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
        if levels < 2:
            raise ValueError(f"LevelUnits: expected at least 2 levels, got {levels}.")
        self.levels, self.dim = levels, dim

    def forward(self, raw: Tensor) -> Tensor:
        if raw.shape[self.dim] % 2:
            raise ValueError(
                f"LevelUnits: expected locations then log-scales, halves of dim {self.dim}; got {tuple(raw.shape)}. "
                "Fix: LevelUnits(levels, dim=-3) for images, or an even number of outputs."
            )
        loc, log_scale = raw.chunk(2, dim=self.dim)
        return torch.cat(
            [(self.levels - 1) * loc.sigmoid(), log_scale + log(self.levels) - 2], dim=self.dim
        )
