"""Convolutional networks that keep the size of an image, for couplings of images to read parameters from."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import elu

from ...display.representation import SettingsFirst
from .dense import cast


class ConcatELU(nn.Module):
    r"""$x \mapsto [\mathrm{elu}(x), \mathrm{elu}(-x)]$ along the channels: no sign of x is cut off.

    Shape:
        `(*batch, C, H, W)`  ->  `(*batch, 2 C, H, W)`.
    """

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([elu(x), elu(-x)], dim=-3)


class ChannelNorm(nn.LayerNorm):
    r"""$\gamma \frac{x - \mathrm{mean}_C(x)}{\sqrt{\mathrm{var}_C(x) + \epsilon}} + \beta$ over the channels.

    Shape:
        `(*batch, C, H, W)`  ->  the same.
    """

    def forward(self, x: Tensor) -> Tensor:
        channels_last = x.movedim(-3, -1)
        return super().forward(channels_last).movedim(-1, -3)


class GatedBlock(SettingsFirst, nn.Sequential):
    r"""$x + v \odot \sigma(g)$ with $[v, g]$ of two convolutions, 3×3 and 1×1, each behind a `ConcatELU`.

    Args:
        channels: channels C.

    Shape:
        `(B, C, H, W)`  ->  the same.
    """

    def __init__(self, channels: int):
        super().__init__(
            ConcatELU(),
            nn.Conv2d(2 * channels, channels, kernel_size=3, padding=1),
            ConcatELU(),
            nn.Conv2d(2 * channels, 2 * channels, kernel_size=1),
        )
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        value, gate = super().forward(x).chunk(2, dim=-3)
        return x + value * gate.sigmoid()

    def extra_repr(self) -> str:
        return f"channels={self.channels}"


class GatedConvNet(SettingsFirst, nn.Sequential):
    r"""A 3×3 convolution, gated residual blocks with a norm over the channels each, a 3×3 convolution.

    An output sees the `2 (blocks + 2) + 1` pixels a side around it.

    Args:
        num_in: channels of the input.
        num_out: channels of the output.
        hidden: channels h in between.
        blocks: number of gated blocks.

    Shape:
        `(*batch, num_in, H, W)` of any dtype  ->  `(*batch, num_out, H, W)`.

    References:
        Ho et al. 2019, *Flow++*, arXiv:1902.00275; Lippe, *UvA deep learning tutorials*, 11: normalizing
        flows for image modeling, whose network this is.

    Example:
        >>> GatedConvNet(1, 2, hidden=8)(torch.zeros(7, 5, 1, 4, 4)).shape
        torch.Size([7, 5, 2, 4, 4])
    """

    def __init__(
        self,
        num_in: int,
        num_out: int,
        hidden: int = 32,
        blocks: int = 3,
    ):
        layers: list[nn.Module] = [nn.Conv2d(num_in, hidden, kernel_size=3, padding=1)]
        for _ in range(blocks):
            layers.append(GatedBlock(hidden))
            layers.append(ChannelNorm(hidden))
        layers.append(ConcatELU())
        layers.append(nn.Conv2d(2 * hidden, num_out, kernel_size=3, padding=1))
        super().__init__(*layers)
        self.num_in = num_in
        self.num_out = num_out
        self.hidden = hidden
        self.blocks = blocks

    def forward(self, x: Tensor) -> Tensor:
        *batch_shape, channels, height, width = x.shape
        images = cast(x, self).reshape(-1, channels, height, width)
        out = super().forward(images)
        return out.reshape(*batch_shape, *out.shape[-3:])

    def extra_repr(self) -> str:
        return f"{self.num_in}, {self.num_out}, hidden={self.hidden}, blocks={self.blocks}"
