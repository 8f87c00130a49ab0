"""Layers that can be computed one way only: for guides, whose own draws are scored from the forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from math import expm1, log

import torch
from torch import Tensor
from torch.nn.functional import softplus

from .bijector import Bijector, Stack, ValueAndLogDet, check_sizes
from .linear import ContextParameters, dim_and_context, matvec, reflected

LOG_E_MINUS_1 = log(expm1(1.0))
# Kept from the singular map: in floats softplus and tanh reach their limits, and the log-det -inf.
MARGIN = 1e-4


class Planar(Bijector):
    r"""$y = x + \hat u \tanh(w^\top x + b)$ with $\log|\det| = \log(1 + (1 - \tanh^2(w^\top x + b))\, w^\top \hat u)$.

    $\hat u = u + (\mathrm{softplus}(w^\top u + \log(e - 1)) - 1 - w^\top u)\, w / \|w\|^2$ keeps
    $w^\top \hat u > -1$, so that the map is invertible; its inverse has no closed form and is not offered: a guide
    scores its own draws and never needs it. The identity at the start (u = 0).

    Args:
        dim: size D of the event.
        context: size C of the context that moves u, w and b.
        hidden: hidden sizes of the context's network.

    References:
        Rezende, Mohamed 2015, *Variational inference with normalizing flows*, arXiv:1505.05770.
    """

    num_inverse = None

    def __init__(self, dim: int, context: int = 0, hidden: Sequence[int] = ()):
        super().__init__()
        check_sizes("Planar", dim=dim, context=context)
        self.dim = dim
        self.context = context
        self.num_forward = int(context > 0)
        self.params = ContextParameters(
            context,
            hidden,
            layer="Planar",
            u=torch.zeros(dim),
            w=torch.randn(dim) / dim**0.5,
            b=torch.zeros(()),
        )

    def extra_repr(self) -> str:
        return dim_and_context(self)

    def forward(self, x: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        self._check_context(context)
        u, w, b = self.params(context)
        slope = (w * u).sum(-1, keepdim=True)
        slope_hat = (softplus(slope + LOG_E_MINUS_1) - 1).clamp(min=MARGIN - 1)
        square_norm = w.square().sum(-1, keepdim=True)
        u_hat = u + (slope_hat - slope) * w / square_norm
        unit = (w * x).sum(-1) + b
        h = unit.tanh()
        y = x + u_hat * h[..., None]
        stretch = (1 - h.square()) * slope_hat[..., 0]
        return y, stretch.log1p()


class Sylvester(Bijector):
    r"""$y = x + Q R \tanh(\tilde R Q^\top x + b)$, $\log|\det| = \sum_m \log(1 + (1 - h_m^2) R_{mm} \tilde R_{mm})$.

    Q `(D, M)` has orthonormal columns (Householder reflections), R and $\tilde R$ are upper triangular with diagonals
    in (−1, 1), so that the map is invertible; the inverse has no closed form and is not offered. It is a planar layer
    with M hidden units, the identity at the start (R = 0).

    Args:
        dim: size D of the event.
        context: size C of the context that moves Q, R, $\tilde R$ and b.
        hidden: hidden sizes of the context's network.
        num_units: M; default: D.

    Raises:
        ValueError: unless 1 ≤ `num_units` ≤ `dim`.

    References:
        van den Berg, Hasenclever, Tomczak, Welling 2018, *Sylvester normalizing flows*, arXiv:1803.05649.
    """

    num_inverse = None

    def __init__(
        self, dim: int, context: int = 0, hidden: Sequence[int] = (), num_units: int | None = None
    ):
        super().__init__()
        check_sizes("Sylvester", dim=dim, context=context)
        num = dim if num_units is None else num_units
        if not 1 <= num <= dim:
            raise ValueError(
                f"Sylvester: expected 1 <= num_units <= dim={dim}, got {num}. Fix: num_units={dim}."
            )
        self.dim = dim
        self.num_units = num
        self.context = context
        self.num_forward = int(context > 0)
        self.params = ContextParameters(
            context,
            hidden,
            layer="Sylvester",
            vectors=torch.randn(num, dim),
            outer=torch.zeros(num, num),
            inner=torch.eye(num) + torch.randn(num, num) / num,
            b=torch.zeros(num),
        )

    def extra_repr(self) -> str:
        return f"{dim_and_context(self)}, num_units={self.num_units}"

    def forward(self, x: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        self._check_context(context)
        vectors, raw_outer, raw_inner, b = self.params(context)
        q = reflected(vectors)[..., : self.num_units]
        outer = _bounded_triangular(raw_outer)
        inner = _bounded_triangular(raw_inner)
        h = (matvec(inner, matvec(q.mT, x)) + b).tanh()
        y = x + matvec(q, matvec(outer, h))
        slopes = (outer * inner).diagonal(dim1=-2, dim2=-1)
        stretch = (1 - h.square()) * slopes
        return y, stretch.log1p().sum(-1)


def _bounded_triangular(raw: Tensor) -> Tensor:
    """Upper triangular with a diagonal in (−1, 1)."""
    diagonal = raw.diagonal(dim1=-2, dim2=-1).tanh()
    diagonal = diagonal.clamp(MARGIN - 1, 1 - MARGIN)
    return raw.triu(1) + torch.diag_embed(diagonal)


def planar(dim: int, layers: int, context: int = 0, hidden: Sequence[int] = ()) -> Stack:
    r"""A stack of `Planar` layers: **samples only**, for guides.

    Example:
        >>> planar(4, layers=3)(torch.zeros(7, 4))[1].shape
        torch.Size([7])
    """
    check_sizes("planar", dim=dim, layers=layers)
    return Stack([Planar(dim, context, hidden) for _ in range(layers)])


def sylvester(
    dim: int,
    layers: int,
    context: int = 0,
    hidden: Sequence[int] = (),
    num_units: int | None = None,
) -> Stack:
    r"""A stack of `Sylvester` layers: **samples only**, for guides.

    Example:
        >>> sylvester(4, layers=2, num_units=2)(torch.zeros(7, 4))[0].shape
        torch.Size([7, 4])
    """
    check_sizes("sylvester", dim=dim, layers=layers)
    return Stack([Sylvester(dim, context, hidden, num_units) for _ in range(layers)])
