"""Bijectors that put numbers in other places, in vectors and images: every log-det is 0 or another layer's."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Size, Tensor
from torch.distributions import constraints
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from .bijector import Bijector, ValueAndLogDet, check_bijector, check_sizes

REAL_IMAGE = constraints.independent(constraints.real, 3)


class Permutation(Bijector):
    r"""$y_i = x_{\pi(i)}$ with $\log|\det| = 0$; the default reverses the order.

    The permutation is a buffer: it travels in the state dict and is the same on every rank. A context is passed over.

    Args:
        dim: size D of the event.
        order: the permutation π as D indices.

    Raises:
        ValueError: if the order is no permutation of `range(dim)`.

    Example:
        >>> Permutation(3)(torch.tensor([1., 2., 3.]))[0]
        tensor([3., 2., 1.])
    """

    order: Tensor
    inverse_order: Tensor
    num_forward = num_inverse = 0

    def __init__(self, dim: int, order: Sequence[int] | None = None):
        super().__init__()
        check_sizes("Permutation", dim=dim)
        indices = torch.arange(dim).flip(0) if order is None else torch.as_tensor(order)
        if not torch.equal(indices.sort().values, torch.arange(dim)):
            raise ValueError(
                f"Permutation: expected a permutation of range({dim}), got {indices.tolist()}. "
                f"Fix: Permutation({dim}, torch.randperm({dim}))."
            )
        self.dim = dim
        self.register_buffer("order", indices)
        self.register_buffer("inverse_order", indices.argsort())

    def extra_repr(self) -> str:
        order = self.order.tolist()
        is_default = order == list(reversed(range(self.dim)))
        return f"{self.dim}" if is_default else f"{self.dim}, order={order}"

    def forward(self, x: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        y = x[..., self.order]
        return y, y.new_zeros(y.shape[:-1])

    def inverse(self, y: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        x = y[..., self.inverse_order]
        return x, x.new_zeros(x.shape[:-1])


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
        self.shape = tuple(shape)
        if shape[-2] % 2 or shape[-1] % 2:
            raise ValueError(
                "Squeeze: expected an even height and width, "
                f"got an image of shape {self.shape}. Fix: pad the images, or one scale less."
            )

    def extra_repr(self) -> str:
        return f"{self.shape}"

    def forward(self, x: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        y = pixel_unshuffle(x, 2)
        return y, y.new_zeros(y.shape[:-3])

    def inverse(self, y: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        x = pixel_shuffle(y, 2)
        return x, x.new_zeros(x.shape[:-3])

    def forward_shape(self, shape: Sequence[int]) -> Size:
        *batch, channels, height, width = shape
        return Size((*batch, 4 * channels, height // 2, width // 2))

    def inverse_shape(self, shape: Sequence[int]) -> Size:
        *batch, channels, height, width = shape
        return Size((*batch, channels // 4, 2 * height, 2 * width))


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

    def extra_repr(self) -> str:
        return f"{self.shape}"

    def forward(self, x: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        y = x.unflatten(-1, self.shape)
        return y, y.new_zeros(y.shape[:-3])

    def inverse(self, y: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        x = y.flatten(-3)
        return x, x.new_zeros(x.shape[:-1])

    def forward_shape(self, shape: Sequence[int]) -> Size:
        *batch, _ = shape
        return Size((*batch, *self.shape))

    def inverse_shape(self, shape: Sequence[int]) -> Size:
        batch = shape[:-3]
        return Size((*batch, prod(self.shape)))


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
        check_bijector("FactorOut", rest)
        channels, height, width = shape
        self.shape = (channels, height, width)
        num_kept = channels // 2
        self.kept = (num_kept, height, width)
        self.leaving = (channels - num_kept, height, width)
        got = tuple(rest.forward_shape((prod(self.kept),)))
        if channels < 2 or got != self.kept:
            raise ValueError(
                "FactorOut: expected at least 2 channels and a rest onto images of shape "
                f"{self.kept}, half of {self.shape}; got one onto {got}. "
                f"Fix: Unflatten({self.kept}) first in the rest."
            )
        self.rest = rest
        self.num_forward = rest.num_forward
        self.num_inverse = rest.num_inverse
        self.context = rest.context

    def extra_repr(self) -> str:
        return f"{self.shape}"

    def forward(self, x: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        sizes = [prod(self.leaving), prod(self.kept)]
        leaving, coarse = x.split(sizes, dim=-1)
        kept, log_det = self.rest(coarse, context)
        batch = kept.shape[:-3]
        leaving = leaving.unflatten(-1, self.leaving).expand(*batch, *self.leaving)
        return torch.cat([kept, leaving], dim=-3), log_det

    def inverse(self, y: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        channels = [self.kept[0], self.leaving[0]]
        kept, leaving = y.split(channels, dim=-3)
        coarse, log_det = self.rest.inverse(kept, context)
        batch = coarse.shape[:-1]
        leaving = leaving.flatten(-3).expand(*batch, -1)
        return torch.cat([leaving, coarse], dim=-1), log_det

    def forward_shape(self, shape: Sequence[int]) -> Size:
        *batch, _ = shape
        return Size((*batch, *self.shape))

    def inverse_shape(self, shape: Sequence[int]) -> Size:
        *batch, channels, height, width = shape
        return Size((*batch, channels * height * width))


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
        check_bijector("PerPixel", bijector)
        into = bijector.domain.event_dim
        out = bijector.codomain.event_dim
        if (into, out) != (1, 1):
            raise ValueError(
                f"PerPixel: expected a bijector of vectors, got {type(bijector).__name__} "
                f"from events with {into} dims to events with {out}. "
                "Fix: use it without PerPixel."
            )
        self.bijector = bijector
        self.context = bijector.context
        self.num_forward = bijector.num_forward
        self.num_inverse = bijector.num_inverse
        self.domain = constraints.independent(bijector.domain, 2)
        self.codomain = constraints.independent(bijector.codomain, 2)

    def forward(self, x: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        vectors, contexts = _channels_last(x, context)
        return _sum_over_pixels(*self.bijector(vectors, contexts))

    def inverse(self, y: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        vectors, contexts = _channels_last(y, context)
        return _sum_over_pixels(*self.bijector.inverse(vectors, contexts))


def _channels_last(value: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor | None]:
    if context is not None:
        context = context.movedim(-3, -1)
    return value.movedim(-3, -1), context


def _sum_over_pixels(value: Tensor, log_det: Tensor) -> ValueAndLogDet:
    return value.movedim(-1, -3), log_det.sum((-2, -1))
