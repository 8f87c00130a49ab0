"""Coupling layers: both directions cost one network call."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...deprecation import renamed_argument
from ..networks.dense import MLP, concat_inputs, zeroed
from .bijector import (
    Bijector,
    Stack,
    ValueAndLogDet,
    check_hidden,
    check_sizes,
)
from .elementwise import Affine, Elementwise, check_transformer
from .spline import Spline
from .transform import gradient_of


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
        TypeError: for anything but an elementwise transformer, its class included.

    References:
        Dinh, Sohl-Dickstein, Bengio 2017, *Density estimation using Real NVP*, arXiv:1605.08803.
    """

    @renamed_argument(law="transformer")
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
        check_sizes("Coupling", dim=dim, context=context)
        check_hidden("Coupling", hidden)
        check_transformer("Coupling", transformer)
        if dim < 2 and not context:
            raise ValueError(
                f"Coupling: expected dim >= 2, got dim={dim} and no context: "
                "one half would be empty. Fix: maf or iaf for one dimension."
            )
        self.dim = dim
        self.context = context
        self.transformer = transformer or Affine()
        self.flip = flip and dim > 1
        self.halves = [dim // 2, dim - dim // 2]

        num_kept, num_transformed = self.halves
        if self.flip:
            num_kept, num_transformed = num_transformed, num_kept
        num_raw = self.transformer.num_params * num_transformed
        self.net = zeroed(MLP([num_kept + context, *hidden, num_raw]))

    def extra_repr(self) -> str:
        options = f"transformer={self.transformer}, flip={self.flip}"
        return f"{self.dim}, context={self.context}, {options}"

    def forward(self, x: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        kept, changed = self._split(x)
        changed, log_slope = self.transformer.forward(changed, self._raw(kept, context))
        return self._concat(kept, changed), log_slope.sum(-1)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        kept, changed = self._split(y)
        changed, log_slope = self.transformer.inverse(changed, self._raw(kept, context))
        return self._concat(kept, changed), log_slope.sum(-1)

    def push_score(
        self, x: Tensor, score: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        kept, changed = self._split(x)
        score_kept, score_changed = self._split(score)
        y_changed, log_slope = self.transformer.forward(changed, self._raw(kept, context))
        curvature = gradient_of(log_slope.sum(), changed)
        pushed_changed = (score_changed - curvature) * (-log_slope.detach()).exp()
        through_net = gradient_of(log_slope.sum() + (y_changed * pushed_changed).sum(), kept)
        pushed = self._concat(score_kept - through_net, pushed_changed)
        return self._concat(kept, y_changed), log_slope.sum(-1), pushed

    def _raw(self, kept: Tensor, context: Tensor | None) -> Tensor:
        """The transformer's parameters `(*batch, num_params, D_B)`."""
        self._check_context(context)
        inputs = kept if context is None else concat_inputs(kept, context)
        return self.net(inputs).unflatten(-1, (self.transformer.num_params, -1))

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The half that is kept and the half that is transformed."""
        first, second = x.split(self.halves, dim=-1)
        if self.flip:
            return second, first
        return first, second

    def _concat(self, kept: Tensor, changed: Tensor) -> Tensor:
        # The context may bring batch dims that x does not have.
        kept = kept.expand(*changed.shape[:-1], -1)
        if self.flip:
            return torch.cat([changed, kept], dim=-1)
        return torch.cat([kept, changed], dim=-1)


@renamed_argument(law="transformer")
def coupling(
    dim: int,
    layers: int,
    context: int = 0,
    hidden: Sequence[int] = (128,),
    transformer: Elementwise | None = None,
) -> Stack:
    r"""Couplings that alternate which half they transform: one network call per layer, to sample and to score.

    Args:
        dim: size D of the event.
        layers: number of couplings; two of them transform every coordinate.
        context: size C of the context, 0 for none.
        hidden: hidden sizes of each network.
        transformer: the elementwise map; default `Affine()`.

    Raises:
        ValueError: for no layers, or `dim < 2` without a context.
        TypeError: for anything but an elementwise transformer.
    """
    check_sizes("coupling", dim=dim, layers=layers)
    couplings = []
    for i in range(layers):
        flip = i % 2 == 1
        couplings.append(Coupling(dim, context, hidden, transformer, flip=flip))
    return Stack(couplings)


def realnvp(dim: int, layers: int, context: int = 0, hidden: Sequence[int] = (128,)) -> Stack:
    r"""Affine `coupling`: $y_B = x_B\, e^{s(x_A, c)} + t(x_A, c)$.

    Example:
        >>> realnvp(4, layers=6)(torch.zeros(7, 4))[1].shape
        torch.Size([7])
    """
    check_sizes("realnvp", dim=dim, layers=layers)
    return coupling(dim, layers, context, hidden)


def spline_coupling(
    dim: int, layers: int, context: int = 0, hidden: Sequence[int] = (128,)
) -> Stack:
    r"""Rational-quadratic spline `coupling`: for other bins or bounds, `coupling(…, transformer=Spline(8, 6.0))`.

    Example:
        >>> spline_coupling(4, layers=2)(torch.zeros(7, 4))[0].shape
        torch.Size([7, 4])
    """
    check_sizes("spline_coupling", dim=dim, layers=layers)
    return coupling(dim, layers, context, hidden, Spline())
