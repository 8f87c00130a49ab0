"""Bijectors that move numbers to other places, vectors to images among them: every log-det is 0 or another layer's."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
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


class FactorOut(Bijector):
    r"""$y = [\mathrm{rest}(x_{> n}),\ x_{\le n}]$: a vector to an image whose last half of channels starts the vector.

    Sampling puts fine noise beside what `rest` makes of the other numbers; scoring lets half of the channels leave.
    Nested, as `rest` of one another, these are the scales of Real NVP. The log-det is that of `rest`.

    Args:
        shape: `(C, H, W)` of the image.
        rest: bijector of vectors of size `(C // 2) H W` onto images `(C // 2, H, W)`; both pass on to it.

    Shape:
        value `(*batch, C H W)`  ->  value `(*batch, C, H, W)`, log-det `(*batch)`.

    Raises:
        ValueError: if `rest` makes images of another shape.

    References:
        Dinh, Sohl-Dickstein, Bengio 2017, *Density estimation using Real NVP*, arXiv:1605.08803, section 3.6.

    Example:
        >>> FactorOut((2, 4, 4), Unflatten((1, 4, 4)))(torch.zeros(5, 32))[0].shape
        torch.Size([5, 2, 4, 4])
    """

    codomain = REAL_IMAGE

    def __init__(self, shape: Sequence[int], rest: Bijector):
        super().__init__()
        num, *size = shape
        self.kept, self.leaving = (num // 2, *size), (num - num // 2, *size)
        got = tuple(rest.forward_shape((prod(self.kept),)))
        if num < 2 or got != self.kept:
            raise ValueError(
                f"FactorOut: expected at least 2 channels and a rest onto images of shape {self.kept}, half of "
                f"{tuple(shape)}; got one onto {got}. Fix: Unflatten({self.kept}) first in the rest."
            )
        self.rest, self.num_forward, self.num_inverse = rest, rest.num_forward, rest.num_inverse
        self.context = rest.context

    def forward(self, x: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        leaving, coarse = x.split([prod(self.leaving), prod(self.kept)], dim=-1)
        kept, log_det = self.rest(coarse, context)
        leaving = leaving.unflatten(-1, self.leaving).expand(*kept.shape[:-3], *self.leaving)
        return torch.cat([kept, leaving], dim=-3), log_det

    def inverse(self, y: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        kept, leaving = y.split([self.kept[0], self.leaving[0]], dim=-3)
        coarse, log_det = self.rest.inverse(kept, context)
        leaving = leaving.flatten(-3).expand(*coarse.shape[:-1], -1)
        return torch.cat([leaving, coarse], dim=-1), log_det

    def forward_shape(self, shape: Sequence[int]) -> Size:
        return Size((*shape[:-1], self.kept[0] + self.leaving[0], *self.kept[1:]))

    def inverse_shape(self, shape: Sequence[int]) -> Size:
        return Size((*shape[:-3], prod(shape[-3:])))


class PerPixel(Bijector):
    r"""A bijector of vectors on the channels of every pixel, with $\log|\det|$ summed over the pixels.

    `PerPixel(LULinear(C))` is the invertible 1×1 convolution of Glow, `PerPixel(ActNorm(C))` its norm, to be
    initialized by `layer.bijector.initialize(images.movedim(-3, -1))`.

    Args:
        bijector: acts on vectors of C channels; a context image gives each pixel a context of its own.

    Shape:
        value `(*batch, C, H, W)`, context `(*batch, C', H, W)`  ->  value `(*batch, C, H, W)`, log-det `(*batch)`.

    Raises:
        ValueError: if the bijector acts on events of another kind.

    References:
        Kingma, Dhariwal 2018, *Glow*, arXiv:1807.03039.

    Example:
        >>> from pyro_dgm.flows import LULinear
        >>> PerPixel(LULinear(3))(torch.zeros(5, 3, 4, 4))[1].shape
        torch.Size([5])
    """

    def __init__(self, bijector: Bijector):
        super().__init__()
        dims = bijector.domain.event_dim, bijector.codomain.event_dim
        if dims != (1, 1):
            raise ValueError(
                f"PerPixel: expected a bijector of vectors, got {type(bijector).__name__} from events with {dims[0]} "
                f"dims to events with {dims[1]}. Fix: use it without PerPixel."
            )
        self.bijector, self.context = bijector, bijector.context
        self.num_forward, self.num_inverse = bijector.num_forward, bijector.num_inverse
        self.domain = constraints.independent(bijector.domain, 2)
        self.codomain = constraints.independent(bijector.codomain, 2)

    def forward(self, x: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        return _summed(*self.bijector(*_channels_last(x, context)))

    def inverse(self, y: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        return _summed(*self.bijector.inverse(*_channels_last(y, context)))


def _channels_last(value: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor | None]:
    return value.movedim(-3, -1), None if context is None else context.movedim(-3, -1)


def _summed(value: Tensor, log_det: Tensor) -> ValueAndLogDet:
    return value.movedim(-1, -3), log_det.sum((-2, -1))
