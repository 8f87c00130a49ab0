"""Strided convolutions between an image and a vector: encoder and decoder."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import Tensor, nn

from .dense import cast


class ConvEncoder(nn.Module):
    r"""Strided convolutions, then one linear layer: an image to a context vector.

    Args:
        shape: `(channels, height, width)` of the image.
        out: size of the context.
        channels: output channels of the stride-2 convolutions; each one halves height and width (rounded up).

    Shape:
        `(*batch, channels, height, width)` of any dtype  ->  `(*batch, out)`.
    """

    def __init__(self, shape: Sequence[int], out: int, channels: Sequence[int] = (32, 64)):
        super().__init__()
        self.shape = tuple(shape)
        layers: list[nn.Module] = []
        for num_in, num_out in zip([shape[0], *channels[:-1]], channels, strict=True):
            layers += [nn.Conv2d(num_in, num_out, 3, stride=2, padding=1), nn.SiLU()]
        self.convolutions = nn.Sequential(*layers)
        self.last = nn.Linear(prod(_pyramid(shape, channels)[-1]), out)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-3:] != self.shape:
            raise ValueError(
                f"ConvEncoder: expected images (*batch, {', '.join(map(str, self.shape))}), got {tuple(x.shape)}. "
                "Fix: reshape the data, or pass shape=(channels, height, width) of your images."
            )
        images = cast(x, self).reshape(-1, *self.shape)
        return self.last(self.convolutions(images).flatten(1)).reshape(*x.shape[:-3], -1)


class ConvDecoder(nn.Module):
    r"""One linear layer, then transposed convolutions: a code to an image, the mirror of `ConvEncoder`.

    Args:
        code: size of the code.
        shape: `(channels, height, width)` of the output.
        channels: hidden channels, finest level first, as in `ConvEncoder`.

    Shape:
        `(*batch, code)`  ->  `(*batch, channels, height, width)`.
    """

    def __init__(self, code: int, shape: Sequence[int], channels: Sequence[int] = (32, 64)):
        super().__init__()
        pyramid = _pyramid(shape, channels)
        self.coarsest = pyramid[-1]
        self.first = nn.Linear(code, prod(self.coarsest))
        layers: list[nn.Module] = []
        for small, large in zip(pyramid[:0:-1], pyramid[-2::-1], strict=True):
            extra = (1 - large[1] % 2, 1 - large[2] % 2)
            up = nn.ConvTranspose2d(
                small[0], large[0], 3, stride=2, padding=1, output_padding=extra
            )
            layers += [nn.SiLU(), up]
        self.convolutions = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        images = self.convolutions(self.first(cast(z, self)).reshape(-1, *self.coarsest))
        return images.reshape(*z.shape[:-1], *images.shape[1:])


def _pyramid(shape: Sequence[int], channels: Sequence[int]) -> list[tuple[int, ...]]:
    """Shapes (channels, height, width) after each stride-2 convolution, the input first."""
    shapes = [tuple(shape)]
    for num in channels:
        _, height, width = shapes[-1]
        shapes.append((num, (height + 1) // 2, (width + 1) // 2))
    return shapes
