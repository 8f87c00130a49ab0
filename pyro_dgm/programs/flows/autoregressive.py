"""Autoregressive layers: one network call in one direction, D calls in the other. The direction is in the name."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, silu

from ...deprecation import renamed_argument
from ...display.representation import SettingsFirst
from ..networks.dense import cast
from .bijector import (
    Bijector,
    Inverse,
    Stack,
    ValueAndLogDet,
    check_hidden,
    check_sizes,
)
from .elementwise import Affine, Elementwise, check_transformer
from .spline import Spline
from .transform import gradient_of


class MaskedLinear(nn.Linear):
    r"""$x \mapsto (M \odot W) x + b$ with a fixed 0/1 mask M `(out, in)`."""

    mask: Tensor

    def __init__(self, mask: Tensor):
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask.to(self.weight.dtype))

    def forward(self, x: Tensor, rows: slice = slice(None)) -> Tensor:
        return linear(x, self.mask[rows] * self.weight[rows], self.bias[rows])


class MADE(SettingsFirst):
    r"""$r_i = \mathrm{net}_i(x_{\pi < i}, c)$: the parameters of i see only the coordinates before it, and the context.

    Args:
        dim: size D of the event.
        context: size C of the context, 0 for none; it enters every hidden layer unmasked.
        hidden: hidden sizes.
        num_params: number P of parameters per coordinate.
        reverse: whether the order of the coordinates is D, …, 1 in place of 1, …, D.

    Shape:
        x `(*batch, D)`, context `(*batch, C)`  ->  raw parameters `(*batch, P, D)`; `(*batch, P, 1)` of one coordinate.

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
        check_sizes("MADE", dim=dim, context=context, num_params=num_params)
        check_hidden("MADE", hidden)
        self.dim = dim
        self.context = context
        self.num_params = num_params
        self.reverse = reverse

        *hidden_masks, last_mask = _masks(dim, context, hidden, reverse=reverse)
        self.layers = nn.ModuleList([MaskedLinear(mask) for mask in hidden_masks])
        self.last = MaskedLinear(last_mask.repeat(num_params, 1))
        self.contexts = nn.ModuleList()
        if context:
            for size in hidden:
                self.contexts.append(nn.Linear(context, size, bias=False))
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def extra_repr(self) -> str:
        options = f"num_params={self.num_params}, reverse={self.reverse}"
        return f"{self.dim}, context={self.context}, {options}"

    def forward(
        self, x: Tensor, context: Tensor | None = None, coordinate: int | None = None
    ) -> Tensor:
        if context is not None:
            context = cast(context, self)
        for i, layer in enumerate(self.layers):
            h = layer(x)
            if context is not None:
                h = h + self.contexts[i](context)
            x = silu(h)
        if coordinate is None:
            return self.last(x).unflatten(-1, (self.num_params, -1))
        # The rows of the last layer are the first parameter of each coordinate, then the second, …
        return self.last(x, slice(coordinate, None, self.dim))[..., None]


def degrees_of(dim: int, *, reverse: bool) -> Tensor:
    """The place of every coordinate in the order: 0, …, D - 1, or the reverse."""
    degree = torch.arange(dim)
    return degree.flip(0) if reverse else degree


def _masks(dim: int, context: int, hidden: Sequence[int], *, reverse: bool) -> list[Tensor]:
    """Masks `(out, in)` of the hidden layers, and of the last one for one parameter per coordinate."""
    degree = degrees_of(dim, reverse=reverse)
    masks = []
    before = degree
    for size in hidden:
        after = _hidden_degrees(size, dim, context)
        masks.append(after[:, None] >= before[None, :])
        before = after
    masks.append(degree[:, None] > before[None, :])
    return masks


def _hidden_degrees(size: int, dim: int, context: int) -> Tensor:
    """A hidden unit of degree h sees the coordinates up to h; those of degree -1 see the context alone.

    Spread evenly, so that a narrow layer still reaches the highest degree and no coordinate is lost.
    """
    highest = dim - 2
    lowest = -1 if context else 0
    return torch.linspace(lowest, max(highest, lowest), size).round()


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

    Raises:
        ValueError: for no coordinates.
        TypeError: for anything but an elementwise transformer, its class included.
    """

    degree: Tensor

    @renamed_argument(law="transformer")
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
        check_sizes("Autoregressive", dim=dim, context=context)
        check_hidden("Autoregressive", hidden)
        check_transformer("Autoregressive", transformer)
        self.dim = dim
        self.context = context
        self.transformer = transformer or Affine()
        self.reverse = reverse
        self.num_inverse = dim
        self.made = MADE(dim, context, hidden, self.transformer.num_params, reverse=reverse)
        self.register_buffer("degree", degrees_of(dim, reverse=reverse))

    def extra_repr(self) -> str:
        options = f"transformer={self.transformer}, reverse={self.reverse}"
        return f"{self.dim}, context={self.context}, {options}"

    def forward(self, x: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        self._check_context(context)
        y, log_slope = self.transformer.forward(x, self.made(x, context))
        return y, log_slope.sum(-1)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        self._check_context(context)
        x = torch.zeros_like(y)  # the network does not see coordinates that are not yet reached
        log_slopes = []
        for step in range(self.dim):
            i = self.dim - 1 - step if self.reverse else step
            raw = self.made(x, context, i)
            found, log_slope = self.transformer.inverse(y[..., i : i + 1], raw)
            x = torch.where(self.degree == step, found, x)
            log_slopes.append(log_slope)
        if self.reverse:
            log_slopes.reverse()
        return x, torch.cat(log_slopes, -1).sum(-1)

    def push_score(
        self, x: Tensor, score: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The D vector-Jacobian products of one network call, side by side, and a triangular system."""
        self._check_context(context)
        raw = self.made(x, context)
        y, log_slope = self.transformer.forward(x, raw)
        order = self.degree.argsort()
        right = score - gradient_of(log_slope.sum(), x)
        # In the order of the coordinates the transposed Jacobian is upper triangular.
        slope = log_slope.detach().exp().index_select(-1, order)
        transposed = self._through_network(x, raw, y, order) + torch.diag_embed(slope)
        solved = torch.linalg.solve_triangular(
            transposed, right.index_select(-1, order)[..., None], upper=True
        )
        pushed = torch.empty_like(right).index_copy(-1, order, solved[..., 0])
        return y, log_slope.sum(-1), pushed

    def _through_network(self, x: Tensor, raw: Tensor, y: Tensor, order: Tensor) -> Tensor:
        r"""$\partial y_i / \partial r_i \cdot \partial r_i / \partial x_j$ `(*batch, D, D)`: rows j, columns i.

        Both in the order of the coordinates.
        The D products go through the network alone, and not through the transformer, which is elementwise.
        """
        rows = torch.eye(self.dim).to(y)[order].reshape(self.dim, *[1] * y.dim(), self.dim)
        by_raw = rows * gradient_of(y.sum(), raw).detach()
        (jacobian,) = torch.autograd.grad(raw, x, by_raw, retain_graph=True, is_grads_batched=True)
        return jacobian.movedim(0, -1).index_select(-2, order)


@renamed_argument(law="transformer")
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

    Raises:
        ValueError: for no coordinates or no layers.
        TypeError: for anything but an elementwise transformer.

    Example:
        >>> iaf(4, layers=2, context=3)(torch.zeros(7, 4), torch.zeros(7, 3))[0].shape
        torch.Size([7, 4])
    """
    check_sizes("iaf", dim=dim, layers=layers)
    bijectors = []
    for i in range(layers):
        reverse = i % 2 == 1
        bijectors.append(Autoregressive(dim, context, hidden, transformer, reverse=reverse))
    return Stack(bijectors)


@renamed_argument(law="transformer")
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
    check_sizes("maf", dim=dim, layers=layers)
    return Stack([Inverse(layer) for layer in iaf(dim, layers, context, hidden, transformer)])


def spline_iaf(dim: int, layers: int, context: int = 0, hidden: Sequence[int] = (128,)) -> Stack:
    """`iaf` with rational-quadratic splines: samples fast."""
    return iaf(dim, layers, context, hidden, Spline())


def spline_maf(dim: int, layers: int, context: int = 0, hidden: Sequence[int] = (128,)) -> Stack:
    """`maf` with rational-quadratic splines: scores fast."""
    return maf(dim, layers, context, hidden, Spline())
