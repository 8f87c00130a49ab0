"""Strided convolutions between an image and a vector: an encoder and the decoder that mirrors it."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import Tensor, nn

from ...display.representation import SettingsFirst
from .dense import cast


class ConvEncoder(SettingsFirst):
    r"""$c = W\, \mathrm{vec}(h_L \circ \dots \circ h_1(x)) + b$ with strided convolutions $h_i$.

    Args:
        shape: `(channels, height, width)` of the image.
        out: size of the vector.
        channels: output channels of the stride-2 convolutions; each one halves height and width (rounded up).

    Shape:
        `(*batch, channels, height, width)` of any dtype  ->  `(*batch, out)`.

    Raises:
        ValueError: if `shape` is no image's, or x is an image of another shape.

    Example:
        >>> import torch
        >>> ConvEncoder((1, 28, 28), out=16)(torch.zeros(7, 5, 1, 28, 28)).shape
        torch.Size([7, 5, 16])
    """

    def __init__(
        self,
        shape: Sequence[int],
        out: int,
        channels: Sequence[int] = (32, 64),
    ):
        super().__init__()
        require_image_shape("ConvEncoder", shape)
        self.shape = tuple(shape)
        self.out = out
        self.channels = tuple(channels)
        self.convolutions = nn.Sequential()
        num_in = shape[0]
        for num_out in channels:
            convolution = nn.Conv2d(num_in, num_out, 3, stride=2, padding=1)
            self.convolutions.append(convolution)
            self.convolutions.append(nn.SiLU())
            num_in = num_out
        coarsest = _pyramid(shape, channels)[-1]
        self.last = nn.Linear(prod(coarsest), out)

    def forward(self, x: Tensor) -> Tensor:
        require_images("ConvEncoder", x, self.shape)
        images = cast(x, self).reshape(-1, *self.shape)
        features = self.convolutions(images).flatten(1)
        vectors = self.last(features)
        return vectors.reshape(*x.shape[:-3], -1)

    def extra_repr(self) -> str:
        return f"{self.shape}, out={self.out}, channels={self.channels}"


class ConvDecoder(SettingsFirst):
    r"""$x = h_1 \circ \dots \circ h_L(W z + b)$ with transposed convolutions $h_i$: `ConvEncoder` mirrored.

    Args:
        code: size of the vector z.
        shape: `(channels, height, width)` of the output.
        channels: hidden channels, finest level first, as in `ConvEncoder`.

    Shape:
        `(*batch, code)`  ->  `(*batch, channels, height, width)`.

    Raises:
        ValueError: if `shape` is no image's.

    Example:
        >>> import torch
        >>> ConvDecoder(16, (1, 28, 28))(torch.zeros(7, 5, 16)).shape
        torch.Size([7, 5, 1, 28, 28])
    """

    def __init__(
        self,
        code: int,
        shape: Sequence[int],
        channels: Sequence[int] = (32, 64),
    ):
        super().__init__()
        require_image_shape("ConvDecoder", shape)
        self.code = code
        self.shape = tuple(shape)
        self.channels = tuple(channels)
        *finer_shapes, coarsest = _pyramid(shape, channels)
        self.coarsest = coarsest
        self.first = nn.Linear(code, prod(coarsest))
        self.convolutions = nn.Sequential()
        coarse = coarsest
        for fine in reversed(finer_shapes):
            self.convolutions.append(nn.SiLU())
            self.convolutions.append(_undo_stride(coarse, fine))
            coarse = fine

    def forward(self, z: Tensor) -> Tensor:
        features = self.first(cast(z, self))
        coarsest = features.reshape(-1, *self.coarsest)
        images = self.convolutions(coarsest)
        return images.reshape(*z.shape[:-1], *images.shape[1:])

    def extra_repr(self) -> str:
        return f"code={self.code}, shape={self.shape}, channels={self.channels}"


def _undo_stride(
    coarse: tuple[int, ...],
    fine: tuple[int, ...],
) -> nn.ConvTranspose2d:
    """The transposed convolution from one level of the pyramid to the next finer one."""
    # A size of n becomes 2 n - 1 by itself, which is odd: an even one lacks one pixel.
    extra_rows = 1 - fine[1] % 2
    extra_columns = 1 - fine[2] % 2
    return nn.ConvTranspose2d(
        coarse[0],
        fine[0],
        kernel_size=3,
        stride=2,
        padding=1,
        output_padding=(extra_rows, extra_columns),
    )


def _pyramid(
    shape: Sequence[int],
    channels: Sequence[int],
) -> list[tuple[int, ...]]:
    """Shapes (channels, height, width) after each stride-2 convolution, the input first."""
    num, height, width = shape
    shapes: list[tuple[int, ...]] = [(num, height, width)]
    for num in channels:
        height = (height + 1) // 2
        width = (width + 1) // 2
        shapes.append((num, height, width))
    return shapes


def require_image_shape(owner: str, shape: Sequence[int]) -> None:
    """Refuse the shape of anything but one image.

    Raises:
        ValueError: if there are not three sizes.
    """
    if len(shape) != 3:
        raise ValueError(
            f"{owner}: expected shape (channels, height, width), got {tuple(shape)}. "
            "Fix: shape=(1, 28, 28) for grey images of 28 × 28."
        )


def require_images(owner: str, x: Tensor, shape: tuple[int, ...]) -> None:
    """Refuse images of another shape than a network was built for.

    Raises:
        ValueError: if the last three dims of x are not `shape`.
    """
    if x.shape[-3:] != shape:
        channels, height, width = shape
        raise ValueError(
            f"{owner}: expected images (*batch, {channels}, {height}, {width}), "
            f"got {tuple(x.shape)}. Fix: reshape the data, "
            "or pass shape=(channels, height, width) of your images."
        )
