"""Coupling layers: both directions cost one network call."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..networks.dense import MLP, concat_inputs, zeroed
from .bijector import Bijector, Stack, ValueAndLogDet
from .elementwise import Affine, Elementwise, Spline


class Coupling(Bijector):
    r"""$y_A = x_A,\quad y_B = f(x_B;\ \mathrm{net}(x_A, c))$, with $\log|\det| = \sum \log f'$.

    The identity at the start (the last layer is zero). Both directions cost one network call.

    Args:
        dim: size D of the event.
        context: size C of the context, 0 for none.
        hidden: hidden sizes of the network.
        transformer: the elementwise map f, such as `Affine()`, `Additive()` or `Spline()`.
        flip: whether the first half is transformed in place of the second; stacks alternate it.

    Shape:
        value `(*batch, D)`, context `(*batch, C)`  ->  value `(*batch, D)`, log-det `(*batch)`.

    Raises:
        ValueError: if `dim < 2` without a context: then the network would have no input.

    References:
        Dinh, Sohl-Dickstein, Bengio 2017, *Density estimation using Real NVP*, arXiv:1605.08803.
    """

    def __init__(
        self,
        dim: int,
        context: int = 0,
        hidden: Sequence[int] = (128,),
        transformer: Elementwise | None = None,
        *,
        flip: bool = False,
    ):
        super().__init__()
        if dim // 2 + context < 1:
            raise ValueError(
                f"Coupling: expected dim >= 2, got dim={dim} and no context: one half would be empty. "
                "Fix: maf or iaf for one dimension."
            )
        self.context, self.transformer = context, transformer or Affine()
        self.halves, self.flip = [dim // 2, dim - dim // 2], flip and dim > 1
        num_kept, num_moved = reversed(self.halves) if self.flip else self.halves
        self.net = zeroed(
            MLP([num_kept + context, *hidden, self.transformer.num_params * num_moved])
        )

    def forward(self, x: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        kept, moved = self._split(x)
        moved, log_slope = self.transformer.forward(moved, self._raw(kept, context))
        return self._merge(kept, moved), log_slope.sum(-1)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        kept, moved = self._split(y)
        moved, log_slope = self.transformer.inverse(moved, self._raw(kept, context))
        return self._merge(kept, moved), log_slope.sum(-1)

    def _raw(self, kept: Tensor, context: Tensor | None) -> Tensor:
        self._check_context(context, self.context)
        return self.net(kept if context is None else concat_inputs(kept, context)).unflatten(
            -1, (self.transformer.num_params, -1)
        )

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first, second = x.split(self.halves, dim=-1)
        return (second, first) if self.flip else (first, second)

    def _merge(self, kept: Tensor, moved: Tensor) -> Tensor:
        kept = kept.expand(
            *moved.shape[:-1], -1
        )  # the context may bring batch dims that x does not have
        return torch.cat([moved, kept] if self.flip else [kept, moved], dim=-1)


def coupling(
    dim: int,
    layers: int,
    context: int = 0,
    hidden: Sequence[int] = (128,),
    transformer: Elementwise | None = None,
) -> Stack:
    r"""Couplings that alternate which half they move: one network call per layer, to sample and to score.

    Args:
        dim: size D of the event.
        layers: number of couplings; two of them move every coordinate.
        context: size C of the context, 0 for none.
        hidden: hidden sizes of each network.
        transformer: the elementwise map; default `Affine()`.
    """
    return Stack(
        [Coupling(dim, context, hidden, transformer, flip=bool(i % 2)) for i in range(layers)]
    )


def realnvp(dim: int, layers: int, context: int = 0, hidden: Sequence[int] = (128,)) -> Stack:
    r"""Affine `coupling`: $y_B = x_B\, e^{s(x_A, c)} + t(x_A, c)$.

    Example:
        >>> realnvp(4, layers=6)(torch.zeros(7, 4))[1].shape
        torch.Size([7])
    """
    return coupling(dim, layers, context, hidden)


def spline_coupling(
    dim: int, layers: int, context: int = 0, hidden: Sequence[int] = (128,)
) -> Stack:
    r"""Rational-quadratic spline `coupling`; for another bound or number of bins, `coupling(…, transformer=Spline(8, 6.0))`.

    Example:
        >>> spline_coupling(4, layers=2)(torch.zeros(7, 4))[0].shape
        torch.Size([7, 4])
    """
    return coupling(dim, layers, context, hidden, Spline())
