"""Autoregressive layers: one network call in one direction, D calls in the other. The direction is in the name."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, silu

from ..networks.dense import cast
from .bijector import Bijector, Inverse, Stack, ValueAndLogDet
from .elementwise import Affine, Elementwise, Spline


class MaskedLinear(nn.Linear):
    r"""$x \mapsto (M \odot W) x + b$ with a fixed 0/1 mask M `(out, in)`."""

    mask: Tensor

    def __init__(self, mask: Tensor):
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask.to(self.weight.dtype))

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.mask * self.weight, self.bias)


class MADE(nn.Module):
    r"""$r_i = \mathrm{net}_i(x_{\pi < i}, c)$: the parameters of i see only the coordinates before it, and the context.

    Args:
        dim: size D of the event.
        context: size C of the context, 0 for none; it enters every hidden layer unmasked.
        hidden: hidden sizes.
        num_params: number P of parameters per coordinate.
        reverse: whether the order of the coordinates is D, …, 1 in place of 1, …, D.

    Shape:
        x `(*batch, D)`, context `(*batch, C)`  ->  raw parameters `(*batch, P, D)`.

    References:
        Germain et al. 2015, *MADE: masked autoencoder for distribution estimation*, arXiv:1502.03509.
    """

    def __init__(
        self,
        dim: int,
        context: int = 0,
        hidden: Sequence[int] = (128,),
        num_params: int = 2,
        *,
        reverse: bool = False,
    ):
        super().__init__()
        self.num_params = num_params
        degree = torch.arange(dim).flip(0) if reverse else torch.arange(dim)
        # A hidden unit of degree h sees the coordinates up to h; those of degree -1 see the context alone.
        lowest, num = (-1, dim) if context else (0, max(dim - 1, 1))
        # Spread evenly, so that a narrow layer still reaches the highest degree and no coordinate is lost.
        degrees = [
            degree,
            *(torch.linspace(lowest, lowest + num - 1, size).round() for size in hidden),
        ]
        pairs = zip(degrees[:-1], degrees[1:], strict=True)
        self.layers = nn.ModuleList(
            MaskedLinear(out[:, None] >= into[None, :]) for into, out in pairs
        )
        self.last = MaskedLinear((degree[:, None] > degrees[-1][None, :]).repeat(num_params, 1))
        self.contexts = nn.ModuleList(
            nn.Linear(context, size, bias=False) for size in hidden if context
        )
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        context = None if context is None else cast(context, self)
        for i, layer in enumerate(self.layers):
            x = layer(x)
            x = silu(x if context is None else x + self.contexts[i](context))
        return self.last(x).unflatten(-1, (self.num_params, -1))


class Autoregressive(Bijector):
    r"""$y_i = f(x_i;\ r_i(x_{<i}, c))$, with $\log|\det| = \sum_i \log f'$; affine by default.

    The identity at the start. Forward costs one network call; the inverse costs D sequential calls.

    Args:
        dim: size D of the event.
        context: size C of the context, 0 for none.
        hidden: hidden sizes of the network.
        transformer: the elementwise map f, such as `Affine()` or `Spline()`.
        reverse: whether the order of the coordinates is D, …, 1; stacks alternate it.

    Shape:
        value `(*batch, D)`, context `(*batch, C)`  ->  value `(*batch, D)`, log-det `(*batch)`.

    References:
        Kingma et al. 2016, *Improving variational inference with inverse autoregressive flow*, arXiv:1606.04934;
        Papamakarios et al. 2017, *Masked autoregressive flow for density estimation*, arXiv:1705.07057.
    """

    degree: Tensor

    def __init__(
        self,
        dim: int,
        context: int = 0,
        hidden: Sequence[int] = (128,),
        transformer: Elementwise | None = None,
        *,
        reverse: bool = False,
    ):
        super().__init__()
        self.context, self.transformer, self.num_inverse = context, transformer or Affine(), dim
        self.made = MADE(dim, context, hidden, self.transformer.num_params, reverse=reverse)
        self.register_buffer("degree", torch.arange(dim).flip(0) if reverse else torch.arange(dim))

    def forward(self, x: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        self._check_context(context, self.context)
        y, log_slope = self.transformer.forward(x, self.made(x, context))
        return y, log_slope.sum(-1)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        self._check_context(context, self.context)
        x, raw = torch.zeros_like(y), self.made(torch.zeros_like(y), context)
        for step in range(len(self.degree)):
            # Coordinates not yet reached stay 0, so that their unfinished values can't overflow into the network.
            x = torch.where(self.degree == step, self.transformer.inverse(y, raw)[0], x)
            if step + 1 < len(self.degree):
                raw = self.made(x, context)
        return x, self.transformer.inverse(y, raw)[1].sum(-1)


def iaf(
    dim: int,
    layers: int,
    context: int = 0,
    hidden: Sequence[int] = (128,),
    transformer: Elementwise | None = None,
) -> Stack:
    r"""Inverse autoregressive flow: **samples fast** (one call per layer), scores foreign points in D calls per layer.

    The choice for a posterior: its own draws are scored from the forward pass, so a foreign point is never needed.

    Args:
        dim: size D of the event.
        layers: number of layers; the order of the coordinates alternates.
        context: size C of the context, 0 for none.
        hidden: hidden sizes of each network.
        transformer: the elementwise map; default `Affine()`.

    Example:
        >>> iaf(4, layers=2, context=3)(torch.zeros(7, 4), torch.zeros(7, 3))[0].shape
        torch.Size([7, 4])
    """
    return Stack(
        [
            Autoregressive(dim, context, hidden, transformer, reverse=bool(i % 2))
            for i in range(layers)
        ]
    )


def maf(
    dim: int,
    layers: int,
    context: int = 0,
    hidden: Sequence[int] = (128,),
    transformer: Elementwise | None = None,
) -> Stack:
    r"""Masked autoregressive flow: **scores fast** (one call per layer), samples in D calls per layer.

    The choice for a prior: training only scores the guide's draws. The arguments are those of `iaf`.

    Example:
        >>> maf(4, layers=2).inverse(torch.zeros(7, 4))[1].shape
        torch.Size([7])
    """
    return Stack([Inverse(layer) for layer in iaf(dim, layers, context, hidden, transformer)])


def spline_iaf(dim: int, layers: int, context: int = 0, hidden: Sequence[int] = (128,)) -> Stack:
    """`iaf` with rational-quadratic splines: samples fast."""
    return iaf(dim, layers, context, hidden, Spline())


def spline_maf(dim: int, layers: int, context: int = 0, hidden: Sequence[int] = (128,)) -> Stack:
    """`maf` with rational-quadratic splines: scores fast."""
    return maf(dim, layers, context, hidden, Spline())
