"""Linear layers: mix, rotate or scale all coordinates; both directions cost one matrix product."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..networks.dense import MLP, cast, zeroed
from .bijector import Bijector, ValueAndLogDet, check_context, check_hidden, check_sizes

MAX_SHIFT = 3.0


def dim_and_context(layer: Any) -> str:
    """The settings that every layer of this room has, as `extra_repr` prints them."""
    return f"{layer.dim}, context={layer.context}" if layer.context else f"{layer.dim}"


class ContextParameters(nn.Module):
    r"""$r(c) = r_0 + s_{\max} \tanh(\mathrm{net}(c) / s_{\max})$: parameters that a context moves by at most 3.

    One network for all parameters of a layer; its last layer is zero: at the start they are $r_0$ at every context.

    Args:
        context: size C of the context; 0: the parameters are $r_0$ everywhere and a context is passed over.
        hidden: hidden sizes of the network; none: a linear map.
        layer: name of the layer whose parameters these are, for its errors.
        starts: $r_0$ by name.

    Shape:
        c: `(*batch, C)` or `None`  ->  the parameters in their order, each `(*batch, *shape)`, or `shape` without
        a context.
    """

    def __init__(
        self,
        context: int,
        hidden: Sequence[int],
        *,
        layer: str = "ContextParameters",
        **starts: Tensor,
    ):
        super().__init__()
        check_sizes(layer, context=context)
        check_hidden(layer, hidden)
        self.context = context
        self.layer = layer
        self.names = list(starts)  # a ParameterDict sorts its names
        self.sizes = [start.numel() for start in starts.values()]
        self.starts = nn.ParameterDict(starts)
        self.net = zeroed(MLP([context, *hidden, sum(self.sizes)])) if context else None

    def extra_repr(self) -> str:
        return f"context={self.context}"

    def forward(self, context: Tensor | None = None) -> list[Tensor]:
        starts = [self.starts[name] for name in self.names]
        if self.net is None:
            return starts
        check_context(self.layer, context, self.context)
        assert context is not None
        shifts = MAX_SHIFT * (self.net(context) / MAX_SHIFT).tanh()
        batch = context.shape[:-1]
        parameters = []
        for start, shift in zip(starts, shifts.split(self.sizes, dim=-1), strict=True):
            parameters.append(start + shift.reshape(batch + start.shape))
        return parameters


class LULinear(Bijector):
    r"""$y = L U x + b$ with unit lower triangular L and upper triangular U: $\log|\det| = \sum_d \log U_{dd}$.

    The identity at the start; the diagonal of U is $e^{s}$ and stays positive.

    Args:
        dim: size D of the event.
        context: size C of the context that moves L, U and b; 0: they are the same everywhere.
        hidden: hidden sizes of the context's network.

    References:
        Kingma, Dhariwal 2018, *Glow*, arXiv:1807.03039; Oliva et al. 2018, arXiv:1801.09819.

    Example:
        >>> LULinear(3)(torch.ones(3))[0].tolist()
        [1.0, 1.0, 1.0]
    """

    def __init__(self, dim: int, context: int = 0, hidden: Sequence[int] = ()):
        super().__init__()
        check_sizes("LULinear", dim=dim, context=context)
        self.dim = dim
        self.context = context
        self.num_forward = self.num_inverse = int(context > 0)
        self.params = ContextParameters(
            context,
            hidden,
            layer="LULinear",
            entries=torch.zeros(dim, dim),
            log_diagonal=torch.zeros(dim),
            bias=torch.zeros(dim),
        )

    def extra_repr(self) -> str:
        return dim_and_context(self)

    def forward(self, x: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        lower, upper, log_diagonal, bias = self._factors(context)
        y = matvec(lower, matvec(upper, x)) + bias
        log_det = log_diagonal.sum(-1)
        return y, log_det.expand(y.shape[:-1])

    def inverse(self, y: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        lower, upper, log_diagonal, bias = self._factors(context)
        centred = (y - bias)[..., None]
        ux = torch.linalg.solve_triangular(lower, centred, upper=False, unitriangular=True)
        x = torch.linalg.solve_triangular(upper, ux, upper=True)[..., 0]
        log_det = -log_diagonal.sum(-1)
        return x, log_det.expand(x.shape[:-1])

    def _factors(self, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """L, U, the log of U's diagonal, and b."""
        entries, log_diagonal, bias = self.params(context)
        lower = entries.tril(-1) + _eye_like(entries)
        upper = entries.triu(1) + torch.diag_embed(log_diagonal.exp())
        return lower, upper, log_diagonal, bias


class Orthogonal(Bijector):
    r"""$y = H_K \cdots H_1 x$ with Householder reflections $H_k = I - 2 v_k v_k^\top / \|v_k\|^2$: $\log|\det| = 0$.

    The identity at the start: reflections come in equal pairs, which training parts.

    Args:
        dim: size D of the event.
        num_pairs: pairs of reflections; D / 2 of them reach every rotation. Default: all of them.
        context: size C of the context that moves every $v_k$; 0: they are the same everywhere.
        hidden: hidden sizes of the context's network.

    References:
        Tomczak, Welling 2016, *Improving VAEs using Householder flow*, arXiv:1611.09630.

    Example:
        >>> x = torch.tensor([3.0, 4.0])
        >>> round(Orthogonal(2)(x)[0].norm().item(), 4)
        5.0
    """

    def __init__(
        self, dim: int, num_pairs: int | None = None, context: int = 0, hidden: Sequence[int] = ()
    ):
        super().__init__()
        check_sizes("Orthogonal", dim=dim, context=context)
        if num_pairs is None:
            num_pairs = max(1, (dim + 1) // 2)
        if num_pairs < 1:
            raise ValueError(
                f"Orthogonal: expected num_pairs >= 1, got {num_pairs}. "
                f"Fix: Orthogonal({dim}), which reaches every rotation."
            )
        self.dim = dim
        self.num_pairs = num_pairs
        self.context = context
        self.num_forward = self.num_inverse = int(context > 0)
        vectors = torch.randn(num_pairs, dim).repeat_interleave(2, dim=0)
        self.params = ContextParameters(context, hidden, layer="Orthogonal", vectors=vectors)

    def extra_repr(self) -> str:
        return f"{dim_and_context(self)}, num_pairs={self.num_pairs}"

    def forward(self, x: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        (vectors,) = self.params(context)
        y = matvec(reflected(vectors), x)
        return y, y.new_zeros(y.shape[:-1])

    def inverse(self, y: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        (vectors,) = self.params(context)
        x = matvec(reflected(vectors).mT, y)
        return x, x.new_zeros(x.shape[:-1])


def reflected(vectors: Tensor) -> Tensor:
    r"""$H_K \cdots H_1$ `(*batch, D, D)` of vectors `(*batch, K, D)`."""
    matrix = _eye_like(vectors)
    for v in vectors.unbind(-2):
        row = v[..., None, :]
        square_norm = row.square().sum(-1, keepdim=True)
        matrix = matrix - 2 * row.mT @ (row @ matrix) / square_norm
    return matrix


def _eye_like(matrices: Tensor) -> Tensor:
    """The identity `(D, D)` for matrices or vectors `(*batch, D)`."""
    return torch.eye(matrices.shape[-1], dtype=matrices.dtype, device=matrices.device)


def matvec(matrix: Tensor, x: Tensor) -> Tensor:
    r"""$A x$ of vectors `(*batch, D)`; one plain matrix product where A has no batch dims."""
    if matrix.dim() == 2:
        return x @ matrix.mT
    return (x[..., None, :] @ matrix.mT)[..., 0, :]


class ActNorm(Bijector):
    r"""$y = e^{s} \odot x + t$ with $\log|\det| = \sum_d s_d$; `initialize(x)` makes y zero-mean and unit-variance.

    Initialization is explicit, once, on data; nothing happens behind a forward pass and nothing depends on a batch.

    Args:
        dim: size D of the event.
        context: size C of the context that moves s and t; 0: they are the same everywhere.
        hidden: hidden sizes of the context's network.

    References:
        Kingma, Dhariwal 2018, *Glow*, arXiv:1807.03039.

    Example:
        >>> layer = ActNorm(1)
        >>> layer.initialize(torch.tensor([[0.0], [2.0], [4.0]]))
        >>> layer(torch.tensor([2.0]))[0].tolist()
        [0.0]
    """

    def __init__(self, dim: int, context: int = 0, hidden: Sequence[int] = ()):
        super().__init__()
        check_sizes("ActNorm", dim=dim, context=context)
        self.dim = dim
        self.context = context
        self.num_forward = self.num_inverse = int(context > 0)
        self.params = ContextParameters(
            context,
            hidden,
            layer="ActNorm",
            log_scale=torch.zeros(dim),
            shift=torch.zeros(dim),
        )

    def extra_repr(self) -> str:
        return dim_and_context(self)

    @torch.no_grad()
    def initialize(self, x: Tensor) -> None:
        """Standardize data `(*batch, D)` from here on; what a context adds is left as it is.

        Raises:
            ValueError: for data of another size, for fewer than two, or if a coordinate is constant: no scale would
                make its variance 1.
        """
        self._check_data(x)
        data = x.flatten(0, -2)
        if not data.is_floating_point():
            data = cast(data, self)
        spread = data.std(0)
        num_constant = int((spread <= 0).sum())
        if num_constant:
            raise ValueError(
                f"ActNorm: expected coordinates that vary, got {num_constant} of {self.dim} "
                "constant. Fix: drop them, or add a little noise."
            )
        starts = self.params.starts
        starts["log_scale"].copy_(-spread.log())
        starts["shift"].copy_(-data.mean(0) / spread)

    def _check_data(self, x: Tensor) -> None:
        if x.dim() < 2 or x.shape[-1] != self.dim:
            raise ValueError(
                f"ActNorm: expected data of shape (N, {self.dim}), got {tuple(x.shape)}. "
                f"Fix: layer.initialize(data.reshape(-1, {self.dim}))."
            )
        num_data = x.shape[:-1].numel()
        if num_data < 2:
            raise ValueError(
                f"ActNorm: expected at least 2 data to measure their spread, got {num_data}. "
                "Fix: layer.initialize(batch) with a batch of a hundred or more."
            )
        num_finite = int(x.isfinite().all(-1).sum())
        if num_finite < num_data:
            raise ValueError(
                "ActNorm: expected finite data, "
                f"got NaN or inf in {num_data - num_finite} of {num_data}. "
                "Fix: layer.initialize(x[x.isfinite().all(-1)])."
            )

    def forward(self, x: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        log_scale, shift = self.params(context)
        y = x * log_scale.exp() + shift
        log_det = log_scale.sum(-1)
        return y, log_det.expand(y.shape[:-1])

    def inverse(self, y: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        log_scale, shift = self.params(context)
        x = (y - shift) * (-log_scale).exp()
        log_det = -log_scale.sum(-1)
        return x, log_det.expand(x.shape[:-1])
