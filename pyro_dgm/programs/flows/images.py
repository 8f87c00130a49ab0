"""Coupling layers of images, whose masks are tensors: both directions cost one network call."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..networks.convolutions import GatedConvNet
from ..networks.dense import concat_inputs, zeroed
from .bijector import Bijector, Inverse, Stack, ValueAndLogDet
from .elementwise import Affine, Elementwise
from .shapes import REAL_IMAGE, FactorOut, Squeeze, Unflatten

MakeMask = Callable[..., Tensor]


def checkerboard_mask(shape: Sequence[int], *, flip: bool = False) -> Tensor:
    """Booleans `(C, H, W)`: true, which is kept, where row plus column is even, or odd if flipped.

    Example:
        >>> checkerboard_mask((1, 2, 3)).int().tolist()
        [[[1, 0, 1], [0, 1, 0]]]
    """
    rows, columns = torch.arange(shape[-2])[:, None], torch.arange(shape[-1])
    return ((rows + columns) % 2 == int(flip)).expand(*shape).clone()


def channel_mask(shape: Sequence[int], *, flip: bool = False) -> Tensor:
    """Booleans `(C, H, W)`: true, which is kept, in the first half of the channels, or in the second if flipped.

    Example:
        >>> channel_mask((2, 1, 1)).flatten().tolist()
        [True, False]
    """
    first = torch.arange(shape[0]) < shape[0] // 2
    return (first != flip)[:, None, None].expand(*shape).clone()


class ImageCoupling(Bijector):
    r"""$y = m \odot x + (1 - m) \odot f(x;\ \mathrm{net}(m \odot x, c))$, $\log|\det| = \sum_{d: m_d = 0} \log f'_d$.

    The identity at the start, if the law is (the last layer of the network is zero). Both directions cost one network
    call. The network is a `GatedConvNet`; another one, of as many channels, can take its place as `layer.net`.

    Args:
        mask: m, booleans `(C, H, W)`, true where x is kept, such as `checkerboard_mask((1, 28, 28))`.
        context: channels of the context, an image of the same height and width; 0 for none.
        hidden: channels of the network's hidden layers.
        blocks: number of the network's gated blocks.
        transformer: the elementwise map f; default `Affine()`.

    Shape:
        value `(*batch, C, H, W)`, context `(*batch, context, H, W)`  ->  value `(*batch, C, H, W)`, log-det `(*batch)`.

    Raises:
        ValueError: if the mask is no image, keeps all or, without a context, nothing; for a context of another shape.

    References:
        Dinh, Sohl-Dickstein, Bengio 2017, *Density estimation using Real NVP*, arXiv:1605.08803.

    Example:
        >>> layer = ImageCoupling(checkerboard_mask((1, 4, 4)), hidden=8, blocks=1)
        >>> layer(torch.zeros(7, 1, 4, 4))[1].shape
        torch.Size([7])
    """

    domain = codomain = REAL_IMAGE
    mask: Tensor

    def __init__(
        self,
        mask: Tensor,
        context: int = 0,
        hidden: int = 32,
        blocks: int = 3,
        transformer: Elementwise | None = None,
    ):
        super().__init__()
        _check_mask(mask, context)
        self.context, self.transformer = context, transformer or Affine()
        self.register_buffer("mask", mask.bool(), persistent=False)
        channels = len(mask)
        self.net = zeroed(
            GatedConvNet(channels + context, self.transformer.num_params * channels, hidden, blocks)
        )

    def forward(self, x: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        return self._merged(x, *self.transformer.forward(x.flatten(-3), self._raw(x, context)))

    def inverse(self, y: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        return self._merged(y, *self.transformer.inverse(y.flatten(-3), self._raw(y, context)))

    def _raw(self, x: Tensor, context: Tensor | None) -> Tensor:
        """Parameters `(*batch, num_params, C H W)` of every number, those of the kept ones for nothing."""
        self._check_image(context)
        kept = torch.where(self.mask, x, 0.0)
        raw = self.net(kept if context is None else concat_inputs(kept, context, event_dim=3))
        return raw.unflatten(-3, (self.transformer.num_params, -1)).flatten(-3)

    def _merged(self, x: Tensor, moved: Tensor, log_slope: Tensor) -> ValueAndLogDet:
        log_det = torch.where(self.mask.flatten(), 0.0, log_slope).sum(-1)
        return torch.where(self.mask, x, moved.unflatten(-1, self.mask.shape)), log_det

    def _check_image(self, context: Tensor | None) -> None:
        expected = (self.context, *self.mask.shape[1:])
        got = None if context is None else tuple(context.shape[-3:])
        if got != (expected if self.context else None):
            wanted = (
                f"an image of shape (*batch, {', '.join(map(str, expected))})"
                if self.context
                else "none"
            )
            raise ValueError(
                f"{type(self).__name__}: expected as context {wanted}, got {got or 'none'}. "
                f"Fix: context={got[0] if got else 0} in the stack, or Flow(…, embed=net) onto that shape."
            )


def _check_mask(mask: Tensor, context: int) -> None:
    if mask.dim() != 3 or mask.bool().all() or (not context and not mask.any()):
        raise ValueError(
            "ImageCoupling: expected a mask (C, H, W) that keeps some numbers and moves others, got one of shape "
            f"{tuple(mask.shape)} that keeps {int(mask.bool().sum())} of {mask.numel()}. "
            "Fix: checkerboard_mask((C, H, W)); channel_mask needs two channels."
        )


def image_realnvp(
    shape: Sequence[int],
    layers: int = 8,
    context: int = 0,
    hidden: int = 32,
    blocks: int = 3,
    transformer: Elementwise | None = None,
) -> Stack:
    r"""Couplings of images with checkerboard masks that alternate: one network call per layer each way.

    A density over pixels, a variational dequantizer (its last layer `Levels(1, event_dim=3)`, its context
    the image), or a flow likelihood.

    Args:
        shape: `(C, H, W)` of the image.
        layers: number of couplings; two of them move every pixel.
        context: channels of the context, an image of the same height and width; 0 for none.
        hidden: channels of each network's hidden layers.
        blocks: number of each network's gated blocks.
        transformer: the elementwise map; default `Affine()`.

    Example:
        >>> from pyro_dgm import Flow, StandardNormal
        >>> flow = Flow(StandardNormal((1, 4, 4)), image_realnvp((1, 4, 4), layers=2, hidden=8))
        >>> flow().log_prob(flow().sample((5,))).shape
        torch.Size([5])
    """
    masks = [checkerboard_mask(shape, flip=bool(i % 2)) for i in range(layers)]
    return Stack([ImageCoupling(mask, context, hidden, blocks, transformer) for mask in masks])


def multiscale_realnvp(
    shape: Sequence[int],
    hidden: Sequence[int] = (32, 48, 64),
    layers: int = 2,
    blocks: int = 3,
    transformer: Elementwise | None = None,
) -> Stack:
    r"""Couplings at several scales, from a **vector** of noise to an image: `Flow(StandardNormal(C * H * W), …)`.

    Scoring: checkerboard couplings; then, scale by scale, a squeeze, couplings with channel masks, and half of the
    channels leave as noise. At the last scale nothing leaves and the couplings are twice as many. One network call per
    coupling each way.

    Args:
        shape: `(C, H, W)` of the image; its sides can be halved `len(hidden) - 1` times.
        hidden: channels of the networks' hidden layers at every scale, finest first.
        layers: number of couplings at every scale but the last.
        blocks: number of each network's gated blocks.
        transformer: the elementwise map; default `Affine()`.

    Raises:
        ValueError: if a side is odd at some scale.

    References:
        Dinh, Sohl-Dickstein, Bengio 2017, arXiv:1605.08803; Lippe, *UvA deep learning tutorials*, 11, whose
        multi-scale flow this is for 28×28 pixels.

    Example:
        >>> from pyro_dgm import Flow, StandardNormal
        >>> flow = Flow(StandardNormal(16), multiscale_realnvp((1, 4, 4), hidden=(8, 8), blocks=1))
        >>> flow().sample((5,)).shape
        torch.Size([5, 1, 4, 4])
    """

    def couplings(
        make_mask: MakeMask, shape: Sequence[int], num: int, channels: int
    ) -> list[Bijector]:
        masks = [make_mask(shape, flip=bool(i % 2)) for i in range(num)]
        return [ImageCoupling(mask, 0, channels, blocks, transformer) for mask in masks]

    def from_noise(shape: Sequence[int], hidden: Sequence[int]) -> list[Bijector]:
        """Bijectors from a vector to an image of this shape, through all coarser scales."""
        if not hidden:
            return [Unflatten(shape)]
        squeeze, first, *coarser = Squeeze(shape), *hidden
        inner = squeeze.forward_shape(shape)
        here = couplings(channel_mask, inner, layers if coarser else 2 * layers, first)
        kept = (inner[0] // 2, *inner[1:])
        below = FactorOut(inner, Stack(from_noise(kept, coarser))) if coarser else Unflatten(inner)
        return [below, *here, Inverse(squeeze)]

    return Stack(
        [*from_noise(shape, hidden[1:]), *couplings(checkerboard_mask, shape, layers, hidden[0])]
    )
