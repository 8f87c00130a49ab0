"""Causal convolutions: networks of images whose output at a pixel has seen the pixels before it alone."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from ...display.representation import SettingsFirst
from .dense import cast, flatten_contexts
from .images import require_image_shape, require_images


class GatedPixelCNN(SettingsFirst):
    r"""$\eta_{ij} = f(x_{<ij}, c)$, where $<$ is raster order: the network of a `PixelCNN`, no blind spot.

    Two stacks of convolutions with gates $\tanh(a + V_a c) \odot \sigma(b + V_b c)$: the vertical one has
    seen the rows above, the horizontal one the pixels on the left and, through 1 × 1 convolutions, the
    vertical one. The image is shifted by one pixel once, so that no weight is masked. With
    $r = (\mathrm{blocks} + 1)(\mathrm{kernel} - 1) / 2$, its `reach`, a pixel sees the r + 1 rows above, r
    columns to each side, and the r + 1 pixels on its left: every earlier one, once r + 1 is neither below
    height nor below width.

    Args:
        shape: `(channels, height, width)` of the image.
        out_channels: raw outputs per pixel, such as channels · levels.
        context: size of the context vector; 0 for none.
        channels: hidden channels of each stack.
        blocks: number of gated blocks.
        kernel: width of the convolutions, odd.

    Shape:
        x: `(*batch, channels, height, width)` of any dtype; c: `(*batch, context)`; leading dims broadcast
        ->  `(*batch, out_channels, height, width)`.

    Raises:
        ValueError: for an even kernel, a kernel of 1 or no block; for images of another shape; for a context
            of another size, or none where one is expected.

    References:
        van den Oord et al. 2016, *Conditional image generation with PixelCNN decoders*, arXiv:1606.05328.

    Example:
        >>> network = GatedPixelCNN((1, 8, 8), out_channels=17, context=2)
        >>> network(torch.zeros(5, 1, 8, 8), torch.zeros(3, 5, 2)).shape
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
        require_image_shape("GatedPixelCNN", shape)
        _require_depth(blocks, kernel)
        self.shape = tuple(shape)
        self.out_channels = out_channels
        self.context = context
        self.channels = channels
        self.blocks = blocks
        self.kernel = kernel
        num_in = shape[0] + 1  # a channel of ones tells a dark pixel from the padding
        self.above = _rows_above(num_in, channels, kernel)
        self.left = _row_left(num_in, channels, kernel)
        self.down = nn.ModuleList()
        for _ in range(blocks):
            self.down.append(VerticalBlock(channels, kernel, context))
        self.across = nn.ModuleList()
        for _ in range(blocks):
            self.across.append(HorizontalBlock(channels, kernel))
        self.last = _pixel_wise(channels, out_channels)

    @property
    def reach(self) -> int:
        """r: a pixel sees r columns to each side in the r + 1 rows above, and r + 1 pixels on its left."""
        return (self.blocks + 1) * (self.kernel // 2)

    def extra_repr(self) -> str:
        return (
            f"{self.shape}, "
            f"out_channels={self.out_channels}, "
            f"context={self.context}, "
            f"channels={self.channels}, "
            f"blocks={self.blocks}, "
            f"kernel={self.kernel}"
        )

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        require_images("GatedPixelCNN", x, self.shape)
        context_batches = [c.shape[:-1] for c in context]
        batch_shape = torch.broadcast_shapes(x.shape[:-3], *context_batches)
        images = x.expand(*batch_shape, *self.shape)
        images = images.reshape(prod(batch_shape), *self.shape)
        vectors = flatten_contexts(context, batch_shape)
        links = self.vertical(images, *vectors)
        raw = self.horizontal(images, links)
        return raw.reshape(*batch_shape, *raw.shape[1:])

    def vertical(self, x: Tensor, *context: Tensor) -> list[Tensor]:
        """What the rows above and the context add to the horizontal gate of each block.

        Each is `(N, 2 * channels, rows, W)`.

        Args:
            x: neighbouring rows of images, `(N, C, rows, W)`. Unless they begin with the first one, the first
                `reach + 1` rows of the result know too little.
            context: one tensor `(N, context)`, or none.

        Raises:
            ValueError: for a context of another size, or none where one is expected.
        """
        self._require_context(context)
        context = tuple(cast(c, self) for c in context)
        one_row_down = (0, 0, 1, -1)
        v = self.above(pad(self._with_ones(x), one_row_down))
        links = []
        for block in self.down:
            v, link = block(v, *context)
            links.append(link)
        return links

    def horizontal(self, x: Tensor, links: Sequence[Tensor]) -> Tensor:
        """Raw outputs `(N, out_channels, rows, cols)` of any rows, and their first columns, of images.

        Args:
            x: `(N, C, rows, cols)`.
            links: `vertical` at these pixels.
        """
        one_column_right = (1, -1)
        h = self.left(pad(self._with_ones(x), one_column_right))
        for block, link in zip(self.across, links, strict=True):
            h = block(h, link)
        return self.last(h)

    def _with_ones(self, x: Tensor) -> Tensor:
        """The image in the dtype of the weights, with one more channel of ones."""
        one_channel_more = (0, 0, 0, 0, 0, 1)
        return pad(cast(x, self), one_channel_more, value=1.0)

    def _require_context(self, context: Sequence[Tensor]) -> None:
        sizes = [c.shape[-1] for c in context]
        expected_sizes = [self.context] if self.context else []
        if sizes == expected_sizes:
            return
        expected = f"one context of size {self.context}" if self.context else "no context"
        raise ValueError(
            f"GatedPixelCNN: expected {expected}, got sizes {sizes}. "
            "Fix: context= the size of the vector; "
            "PixelCNN(…, embed=Concat(mlp(…))) joins several."
        )


class VerticalBlock(SettingsFirst):
    r"""$v' = g(K v + V_v c)$ and the link $L (K v + V_v c) + V_h c$, $g(a, b) = \tanh a \odot \sigma(b)$.

    Args:
        channels: channels of the stack.
        kernel: width of the convolution, odd.
        context: size of c; 0 for none.

    Shape:
        v: `(N, channels, rows, W)`, c: `(N, context)`  ->  v' of the shape of v, link
            `(N, 2 * channels, rows, W)`.
    """

    def __init__(self, channels: int, kernel: int, context: int):
        super().__init__()
        self.channels = channels
        self.kernel = kernel
        self.context = context
        self.above = _rows_above(channels, 2 * channels, kernel)
        self.link = nn.Conv2d(2 * channels, 2 * channels, kernel_size=1)
        self.of_context = nn.Linear(context, 4 * channels, bias=False) if context else None

    def extra_repr(self) -> str:
        return f"channels={self.channels}, kernel={self.kernel}, context={self.context}"

    def forward(self, v: Tensor, *context: Tensor) -> tuple[Tensor, Tensor]:
        v = self.above(v)
        if self.of_context is None:
            return gated_activation(v), self.link(v)
        of_pixels = self.of_context(*context)[..., None, None]
        of_v, of_link = of_pixels.chunk(2, dim=1)
        v = v + of_v
        return gated_activation(v), self.link(v) + of_link


class HorizontalBlock(SettingsFirst):
    r"""$h' = h + W g(K h + \mathrm{link})$ with $g(a, b) = \tanh a \odot \sigma(b)$.

    Args:
        channels: channels of the stack.
        kernel: width of the convolution, odd.

    Shape:
        h: `(N, channels, rows, W)`, link: `(N, 2 * channels, rows, W)`  ->  the shape of h.
    """

    def __init__(self, channels: int, kernel: int):
        super().__init__()
        self.channels = channels
        self.kernel = kernel
        self.left = _row_left(channels, 2 * channels, kernel)
        self.out = nn.Conv2d(channels, channels, kernel_size=1)

    def extra_repr(self) -> str:
        return f"channels={self.channels}, kernel={self.kernel}"

    def forward(self, h: Tensor, link: Tensor) -> Tensor:
        return h + self.out(gated_activation(self.left(h) + link))


class CausalConv(nn.Conv2d):
    """A convolution of stride 1 over an image with zeros around it.

    Args:
        num_in: channels of the input.
        num_out: channels of the output.
        kernel: its (rows, cols).
        zeros: how many to the left, to the right, above and below.
    """

    def __init__(
        self,
        num_in: int,
        num_out: int,
        kernel: tuple[int, int],
        zeros: tuple[int, int, int, int],
    ):
        super().__init__(num_in, num_out, kernel)
        self.zeros = zeros

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, zeros={self.zeros}"

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(pad(x, self.zeros))


def _rows_above(
    num_in: int,
    num_out: int,
    kernel: int,
) -> CausalConv:
    """A convolution over the own row and those above, to both sides."""
    reach = kernel // 2
    size = (reach + 1, kernel)
    zeros = (reach, reach, reach, 0)
    return CausalConv(num_in, num_out, size, zeros)


def _row_left(
    num_in: int,
    num_out: int,
    kernel: int,
) -> CausalConv:
    """A convolution over the own pixel and those on its left."""
    reach = kernel // 2
    size = (1, reach + 1)
    zeros = (reach, 0, 0, 0)
    return CausalConv(num_in, num_out, size, zeros)


def _pixel_wise(channels: int, out_channels: int) -> nn.Sequential:
    """Two layers that see one pixel each."""
    return nn.Sequential(
        nn.SiLU(),
        nn.Conv2d(channels, channels, kernel_size=1),
        nn.SiLU(),
        nn.Conv2d(channels, out_channels, kernel_size=1),
    )


def gated_activation(x: Tensor) -> Tensor:
    r"""$\tanh(a) \odot \sigma(b)$ of the two halves of the channels."""
    a, b = x.chunk(2, dim=1)
    return a.tanh() * b.sigmoid()


def _require_depth(blocks: int, kernel: int) -> None:
    if kernel < 3 or kernel % 2 == 0:
        raise ValueError(
            f"GatedPixelCNN: expected an odd kernel >= 3, got {kernel}. Fix: kernel=3."
        )

    if blocks < 1:
        raise ValueError(f"GatedPixelCNN: expected at least 1 block, got {blocks}. Fix: blocks=4.")
