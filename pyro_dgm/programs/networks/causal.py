"""Causal convolutions: networks of images whose output at a pixel has seen the pixels before it alone."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from .dense import cast


class GatedPixelCNN(nn.Module):
    r"""$\eta_{ij} = f(x_{<ij}, c)$, where $<$ is raster order: the network of a `PixelCNN`, without a blind spot.

    Two stacks of convolutions with gates $\tanh(a + V_a c) \odot \sigma(b + V_b c)$: the vertical one has seen the rows
    above, the horizontal one the pixels on the left and, through 1 × 1 convolutions, the vertical one. The image is
    shifted by one pixel once, so that no weight is masked. With
    $r = (\mathrm{blocks} + 1)(\mathrm{kernel} - 1) / 2$, its `reach`, a pixel sees the r + 1 rows above, r columns to
    each side, and the r + 1 pixels on its left: every earlier one, once r + 1 is neither below height nor below width.

    Args:
        shape: `(channels, height, width)` of the image.
        out_channels: raw outputs per pixel, such as channels · levels.
        context: size of the context vector; 0 for none.
        channels: hidden channels of each stack.
        blocks: number of gated blocks.
        kernel: width of the convolutions, odd.

    Shape:
        x: `(*batch, channels, height, width)` of any dtype; c: `(*batch, context)`; their leading dims broadcast
        ->  `(*batch, out_channels, height, width)`.

    Raises:
        ValueError: for an even kernel, a kernel of 1 or no block; for images of another shape; for a context of another
            size, or none where one is expected.

    References:
        van den Oord et al. 2016, *Conditional image generation with PixelCNN decoders*, arXiv:1606.05328.

    Example:
        >>> GatedPixelCNN((1, 8, 8), out_channels=17, context=2)(torch.zeros(5, 1, 8, 8), torch.zeros(3, 5, 2)).shape
        torch.Size([3, 5, 17, 8, 8])
    """

    def __init__(
        self,
        shape: Sequence[int],
        out_channels: int,
        context: int = 0,
        channels: int = 32,
        blocks: int = 4,
        kernel: int = 3,
    ):
        super().__init__()
        if kernel < 3 or kernel % 2 == 0:
            raise ValueError(
                f"GatedPixelCNN: expected an odd kernel >= 3, got {kernel}. Fix: kernel=3."
            )
        if blocks < 1:
            raise ValueError(
                f"GatedPixelCNN: expected at least 1 block, got {blocks}. Fix: blocks=4."
            )
        self.shape, self.out_channels, self.context = tuple(shape), out_channels, context
        self.reach = (blocks + 1) * (kernel // 2)
        num_in = shape[0] + 1  # a channel of ones tells a dark pixel from the padding
        self.above, self.left = (
            _rows_above(num_in, channels, kernel),
            _row_left(num_in, channels, kernel),
        )
        self.down = nn.ModuleList(VerticalBlock(channels, kernel, context) for _ in range(blocks))
        self.across = nn.ModuleList(HorizontalBlock(channels, kernel) for _ in range(blocks))
        self.last = nn.Sequential(
            nn.SiLU(),
            nn.Conv2d(channels, channels, 1),
            nn.SiLU(),
            nn.Conv2d(channels, out_channels, 1),
        )

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        if x.shape[-3:] != self.shape:
            raise ValueError(
                f"GatedPixelCNN: expected images (*batch, {', '.join(map(str, self.shape))}), got {tuple(x.shape)}. "
                "Fix: reshape the data, or pass shape=(channels, height, width) of your images."
            )
        batch = torch.broadcast_shapes(x.shape[:-3], *(c.shape[:-1] for c in context))
        x = x.expand(*batch, *self.shape).reshape(prod(batch), *self.shape)
        raw = self.horizontal(x, self.vertical(x, *flattened(context, batch)))
        return raw.reshape(*batch, *raw.shape[1:])

    def vertical(self, x: Tensor, *context: Tensor) -> list[Tensor]:
        """What the rows above and the context add to the horizontal gate of each block, `(N, 2 * channels, rows, W)`.

        Args:
            x: neighbouring rows of images, `(N, C, rows, W)`. Unless they begin with the first one, the first
                `reach + 1` rows of the result know too little.
            context: one tensor `(N, context)`, or none.
        """
        self._check(context)
        v = self.above(pad(self._read(x), (0, 0, 1, -1)))
        links = []
        for block in self.down:
            v, link = block(v, *(cast(c, self) for c in context))
            links.append(link)
        return links

    def horizontal(self, x: Tensor, links: Sequence[Tensor]) -> Tensor:
        """Raw outputs `(N, out_channels, rows, cols)` of any rows, and their first columns, of images.

        Args:
            x: `(N, C, rows, cols)`.
            links: `vertical` at these pixels.
        """
        h = self.left(pad(self._read(x), (1, -1)))
        for block, link in zip(self.across, links, strict=True):
            h = block(h, link)
        return self.last(h)

    def _read(self, x: Tensor) -> Tensor:
        return pad(cast(x, self), (0, 0, 0, 0, 0, 1), value=1.0)

    def _check(self, context: tuple[Tensor, ...]) -> None:
        sizes = [c.shape[-1] for c in context]
        if sizes != [self.context] * bool(self.context):
            expected = f"one context of size {self.context}" if self.context else "no context"
            raise ValueError(
                f"GatedPixelCNN: expected {expected}, got sizes {sizes}. Fix: context= the size of the vector; "
                "PixelCNN(…, embed=Concat(mlp(…))) joins several."
            )


class VerticalBlock(nn.Module):
    r"""$v' = g(K v + V_v c)$ and the link $L (K v + V_v c) + V_h c$, $g(a, b) = \tanh a \odot \sigma(b)$.

    Args:
        channels: channels of the stack.
        kernel: width of the convolution, odd.
        context: size of c; 0 for none.
    """

    def __init__(self, channels: int, kernel: int, context: int):
        super().__init__()
        self.above = _rows_above(channels, 2 * channels, kernel)
        self.link = nn.Conv2d(2 * channels, 2 * channels, 1)
        self.of_context = nn.Linear(context, 4 * channels, bias=False) if context else None

    def forward(self, v: Tensor, *context: Tensor) -> tuple[Tensor, Tensor]:
        v = self.above(v)
        if self.of_context is None:
            return gated(v), self.link(v)
        of_v, of_h = self.of_context(*context)[..., None, None].chunk(2, dim=1)
        return gated(v + of_v), self.link(v + of_v) + of_h


class HorizontalBlock(nn.Module):
    r"""$h' = h + W g(K h + \mathrm{link})$.

    Args:
        channels: channels of the stack.
        kernel: width of the convolution, odd.
    """

    def __init__(self, channels: int, kernel: int):
        super().__init__()
        self.left, self.out = (
            _row_left(channels, 2 * channels, kernel),
            nn.Conv2d(channels, channels, 1),
        )

    def forward(self, h: Tensor, link: Tensor) -> Tensor:
        return h + self.out(gated(self.left(h) + link))


class CausalConv(nn.Conv2d):
    """A convolution of stride 1 over an image with zeros around it.

    Args:
        num_in: channels of the input.
        num_out: channels of the output.
        kernel: its (rows, cols).
        zeros: how many to the left, to the right, above and below.
    """

    def __init__(
        self, num_in: int, num_out: int, kernel: tuple[int, int], zeros: tuple[int, int, int, int]
    ):
        super().__init__(num_in, num_out, kernel)
        self.zeros = zeros

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(pad(x, self.zeros))


def _rows_above(num_in: int, num_out: int, kernel: int) -> CausalConv:
    """Over the own row and those above, to both sides."""
    reach = kernel // 2
    return CausalConv(num_in, num_out, (reach + 1, kernel), (reach, reach, reach, 0))


def _row_left(num_in: int, num_out: int, kernel: int) -> CausalConv:
    """Over the own pixel and those on its left."""
    reach = kernel // 2
    return CausalConv(num_in, num_out, (1, reach + 1), (reach, 0, 0, 0))


def gated(x: Tensor) -> Tensor:
    r"""$\tanh(a) \odot \sigma(b)$ of the two halves of the channels."""
    a, b = x.chunk(2, dim=1)
    return a.tanh() * b.sigmoid()


def flattened(context: Sequence[Tensor], batch: Sequence[int]) -> tuple[Tensor, ...]:
    """Contexts `(*batch, C)`, broadcast to `batch`, as `(N, C)`."""
    return tuple(c.expand(*batch, c.shape[-1]).reshape(prod(batch), c.shape[-1]) for c in context)
