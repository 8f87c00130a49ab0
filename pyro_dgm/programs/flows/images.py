"""Coupling layers of images, whose masks are tensors: both directions cost one network call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from ...deprecation import renamed_argument
from ..networks.convolutions import GatedConvNet
from ..networks.dense import concat_inputs, zeroed
from .bijector import Bijector, Inverse, Stack, ValueAndLogDet, check_sizes
from .elementwise import Affine, Elementwise, check_transformer
from .shapes import REAL_IMAGE, FactorOut, Squeeze, Unflatten

MakeMask = Callable[..., Tensor]


def checkerboard_mask(shape: Sequence[int], *, flip: bool = False) -> Tensor:
    """Booleans `(C, H, W)`: true, which is kept, where row plus column is even, or odd if flipped.

    Example:
        >>> checkerboard_mask((1, 2, 3)).int().tolist()
        [[[1, 0, 1], [0, 1, 0]]]
    """
    rows = torch.arange(shape[-2])[:, None]
    columns = torch.arange(shape[-1])
    kept = (rows + columns) % 2 == int(flip)
    return kept.expand(*shape).clone()


def channel_mask(shape: Sequence[int], *, flip: bool = False) -> Tensor:
    """Booleans `(C, H, W)`: true, which is kept, in the first half of the channels, or in the second if flipped.

    Example:
        >>> channel_mask((2, 1, 1)).flatten().tolist()
        [True, False]
    """
    in_first_half = torch.arange(shape[0]) < shape[0] // 2
    kept = in_first_half != flip
    return kept[:, None, None].expand(*shape).clone()


class ImageCoupling(Bijector):
    r"""$y = m \odot x + (1 - m) \odot f(x;\ \mathrm{net}(m \odot x, c))$, $\log|\det| = \sum_{d: m_d = 0} \log f'_d$.

    The identity at the start, if the transformer is (the last layer of the network is zero). Both directions cost one
    network call. The network is a `GatedConvNet`; another one, of as many channels, can take its place as `layer.net`.

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
        TypeError: for anything but an elementwise transformer, its class included.

    References:
        Dinh, Sohl-Dickstein, Bengio 2017, *Density estimation using Real NVP*, arXiv:1605.08803.

    Example:
        >>> layer = ImageCoupling(checkerboard_mask((1, 4, 4)), hidden=8, blocks=1)
        >>> layer(torch.zeros(7, 1, 4, 4))[1].shape
        torch.Size([7])
    """

    domain = codomain = REAL_IMAGE
    mask: Tensor

    @renamed_argument(law="transformer")
    def __init__(
        self,
        mask: Tensor,
        context: int = 0,
        hidden: int = 32,
        blocks: int = 3,
        transformer: Elementwise | None = None,
    ):
        super().__init__()
        check_sizes("ImageCoupling", hidden=hidden, blocks=blocks, context=context)
        check_transformer("ImageCoupling", transformer)
        _check_mask(mask, context)
        self.context = context
        self.transformer = transformer or Affine()
        self.register_buffer("mask", mask.bool(), persistent=False)
        channels = len(mask)
        num_raw = self.transformer.num_params * channels
        self.net = zeroed(GatedConvNet(channels + context, num_raw, hidden, blocks))

    def extra_repr(self) -> str:
        shape = tuple(self.mask.shape)
        return f"{shape}, context={self.context}, transformer={self.transformer}"

    def forward(self, x: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        changed, log_slope = self.transformer.forward(x.flatten(-3), self._raw(x, context))
        return self._where_changed(x, changed, log_slope)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        changed, log_slope = self.transformer.inverse(y.flatten(-3), self._raw(y, context))
        return self._where_changed(y, changed, log_slope)

    def _raw(self, x: Tensor, context: Tensor | None) -> Tensor:
        """Parameters `(*batch, num_params, C H W)` of every number, those of the kept ones for nothing."""
        self._check_context(context)
        inputs = torch.where(self.mask, x, 0.0)
        if context is not None:
            inputs = concat_inputs(inputs, context, event_dim=3)
        raw = self.net(inputs)
        return raw.unflatten(-3, (self.transformer.num_params, -1)).flatten(-3)

    def _where_changed(self, x: Tensor, changed: Tensor, log_slope: Tensor) -> ValueAndLogDet:
        """The kept numbers of x, the changed ones elsewhere, and the log-det of the latter."""
        log_det = torch.where(self.mask.flatten(), 0.0, log_slope).sum(-1)
        changed = changed.unflatten(-1, self.mask.shape)
        return torch.where(self.mask, x, changed), log_det

    def _check_context(self, context: Tensor | None) -> None:
        """Raise unless the context is an image of the declared channels and of the mask's height and width."""
        expected = (self.context, *self.mask.shape[1:]) if self.context else None
        got = None if context is None else tuple(context.shape[-3:])
        if got == expected:
            return
        wanted = "none"
        if expected is not None:
            sizes = ", ".join(str(size) for size in expected)
            wanted = f"an image of shape (*batch, {sizes})"
        channels = got[0] if got else 0
        raise ValueError(
            f"{type(self).__name__}: expected as context {wanted}, got {got or 'none'}. "
            f"Fix: context={channels} in the stack, or Flow(…, embed=net) onto that shape."
        )


def _check_mask(mask: Tensor, context: int) -> None:
    """A mask that keeps all leaves nothing to do, and one that keeps nothing no input to the network."""
    is_image = mask.dim() == 3
    num_kept = int(mask.bool().sum())
    least = 0 if context else 1
    if is_image and least <= num_kept < mask.numel():
        return
    raise ValueError(
        "ImageCoupling: expected a mask (C, H, W) that keeps some numbers and moves others, "
        f"got one of shape {tuple(mask.shape)} that keeps {num_kept} of {mask.numel()}. "
        "Fix: checkerboard_mask((C, H, W)); channel_mask needs two channels."
    )


def _check_image_shape(owner: str, shape: Sequence[int]) -> None:
    if not isinstance(shape, Sequence) or len(shape) != 3 or min(shape) < 1:
        raise ValueError(
            f"{owner} (shape): expected the shape (C, H, W) of an image, got {shape!r}. "
            f"Fix: {owner}((1, 28, 28), …)."
        )


def _couplings(
    make_coupling: Callable[[Tensor], ImageCoupling],
    make_mask: MakeMask,
    shape: Sequence[int],
    layers: int,
) -> list[Bijector]:
    """Couplings of one scale, whose masks alternate."""
    couplings: list[Bijector] = []
    for i in range(layers):
        mask = make_mask(shape, flip=i % 2 == 1)
        couplings.append(make_coupling(mask))
    return couplings


@renamed_argument(law="transformer")
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

    Raises:
        ValueError: for no layers, or a shape of anything but an image.

    Example:
        >>> from pyro_dgm import Flow, StandardNormal
        >>> flow = Flow(StandardNormal((1, 4, 4)), image_realnvp((1, 4, 4), layers=2, hidden=8))
        >>> flow().log_prob(flow().sample((5,))).shape
        torch.Size([5])
    """
    check_sizes("image_realnvp", layers=layers)
    _check_image_shape("image_realnvp", shape)
    make_coupling = partial(
        ImageCoupling, context=context, hidden=hidden, blocks=blocks, transformer=transformer
    )
    return Stack(_couplings(make_coupling, checkerboard_mask, shape, layers))


@renamed_argument(law="transformer")
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
    check_sizes("multiscale_realnvp", layers=layers, scales=len(hidden))
    _check_image_shape("multiscale_realnvp", shape)
    make_coupling = partial(ImageCoupling, blocks=blocks, transformer=transformer)
    coarser = _coarser_scales(make_coupling, shape, hidden[1:], layers)
    make_finest = partial(make_coupling, hidden=hidden[0])
    return Stack([*coarser, *_couplings(make_finest, checkerboard_mask, shape, layers)])


def _coarser_scales(
    make_coupling: Callable[..., ImageCoupling],
    shape: Sequence[int],
    hidden: Sequence[int],
    layers: int,
) -> list[Bijector]:
    """Bijectors from a vector of noise to an image of this shape, through all coarser scales.

    In the order of sampling: noise joins as further channels, couplings act, and channels become pixels.
    """
    if not hidden:
        return [Unflatten(shape)]
    squeeze = Squeeze(shape)
    channels, height, width = squeeze.forward_shape(shape)
    squeezed = (channels, height, width)
    coarsest = len(hidden) == 1
    num = 2 * layers if coarsest else layers
    make_here = partial(make_coupling, hidden=hidden[0])
    couplings = _couplings(make_here, channel_mask, squeezed, num)
    if coarsest:
        return [Unflatten(squeezed), *couplings, Inverse(squeeze)]
    kept = (channels // 2, height, width)
    rest = Stack(_coarser_scales(make_coupling, kept, hidden[1:], layers))
    return [FactorOut(squeezed, rest), *couplings, Inverse(squeeze)]
