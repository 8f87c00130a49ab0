"""Bijectors that move numbers to other places, vectors to images among them: every log-det is 0 or another layer's."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import Size, Tensor
from torch.distributions import constraints
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from .bijector import Bijector, ValueAndLogDet

REAL_IMAGE = constraints.independent(constraints.real, 3)


class Squeeze(Bijector):
    r"""Every 2×2 square of pixels to one pixel of four times the channels, with $\log|\det| = 0$.

    Args:
        shape: `(C, H, W)` of the image.

    Shape:
        value `(*batch, C, H, W)`  ->  value `(*batch, 4 C, H / 2, W / 2)`, log-det `(*batch)`.

    Raises:
        ValueError: if height or width are odd.

    References:
        Dinh, Sohl-Dickstein, Bengio 2017, *Density estimation using Real NVP*, arXiv:1605.08803.

    Example:
        >>> Squeeze((1, 2, 2))(torch.arange(4.0).reshape(1, 2, 2))[0].flatten().tolist()
        [0.0, 1.0, 2.0, 3.0]
    """

    domain = codomain = REAL_IMAGE
    num_forward = num_inverse = 0

    def __init__(self, shape: Sequence[int]):
        super().__init__()
        if shape[-2] % 2 or shape[-1] % 2:
            raise ValueError(
                f"Squeeze: expected an even height and width, got an image of shape {tuple(shape)}. "
                "Fix: pad the images, or one scale less."
            )

    def forward(self, x: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        return pixel_unshuffle(x, 2), x.new_zeros(x.shape[:-3])

    def inverse(self, y: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        return pixel_shuffle(y, 2), y.new_zeros(y.shape[:-3])

    def forward_shape(self, shape: Sequence[int]) -> Size:
        return Size((*shape[:-3], 4 * shape[-3], shape[-2] // 2, shape[-1] // 2))

    def inverse_shape(self, shape: Sequence[int]) -> Size:
        return Size((*shape[:-3], shape[-3] // 4, 2 * shape[-2], 2 * shape[-1]))


class Unflatten(Bijector):
    r"""A vector to an image, row by row and channel by channel, with $\log|\det| = 0$.

    Args:
        shape: `(C, H, W)` of the image.

    Shape:
        value `(*batch, C H W)`  ->  value `(*batch, C, H, W)`, log-det `(*batch)`.

    Example:
        >>> Unflatten((1, 2, 3))(torch.zeros(5, 6))[0].shape
        torch.Size([5, 1, 2, 3])
    """

    codomain = REAL_IMAGE
    num_forward = num_inverse = 0

    def __init__(self, shape: Sequence[int]):
        super().__init__()
        self.shape = tuple(shape)

    def forward(self, x: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        return x.unflatten(-1, self.shape), x.new_zeros(x.shape[:-1])

    def inverse(self, y: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        return y.flatten(-3), y.new_zeros(y.shape[:-3])

    def forward_shape(self, shape: Sequence[int]) -> Size:
        return Size((*shape[:-1], *self.shape))

    def inverse_shape(self, shape: Sequence[int]) -> Size:
        return Size((*shape[:-3], prod(self.shape)))
