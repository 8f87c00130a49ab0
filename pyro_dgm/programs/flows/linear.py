"""Linear layers: mix, rotate or scale all coordinates; both directions cost one matrix product."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..networks.dense import MLP, zeroed
from .bijector import Bijector, ValueAndLogDet

MAX_SHIFT = 3.0


class ContextParameters(nn.Module):
    r"""$r(c) = r_0 + s_{\max} \tanh(\mathrm{net}(c) / s_{\max})$: parameters that a context moves by at most 3.

    One network for all parameters of a layer; its last layer is zero: at the start they are $r_0$ at every context.

    Args:
        context: size C of the context; 0: the parameters are $r_0$ everywhere and a context is passed over.
        hidden: hidden sizes of the network; none: a linear map.
        starts: $r_0$ by name.

    Shape:
        c: `(*batch, C)` or `None`  ->  the parameters in their order, each `(*batch, *shape)`, or `shape` without
        a context.
    """

    def __init__(self, context: int, hidden: Sequence[int], **starts: Tensor):
        super().__init__()
        self.context, self.names = context, list(starts)  # a ParameterDict sorts its names
        self.sizes = [start.numel() for start in starts.values()]
        self.starts = nn.ParameterDict(starts)
        self.net = zeroed(MLP([context, *hidden, sum(self.sizes)])) if context else None

    def forward(self, context: Tensor | None = None) -> list[Tensor]:
        starts = [self.starts[name] for name in self.names]
        if self.net is None:
            return starts
        if context is None or context.shape[-1] != self.context:
            got = "none" if context is None else context.shape[-1]
            raise ValueError(
                f"expected a context of size {self.context}, got {got}. Fix: Flow(…, embed=net) with "
                f"{self.context} outputs, or context={got} in the layer."
            )
        shifts = (MAX_SHIFT * (self.net(context) / MAX_SHIFT).tanh()).split(self.sizes, dim=-1)
        batch = context.shape[:-1]
        return [
            start + shift.reshape(batch + start.shape)
            for start, shift in zip(starts, shifts, strict=True)
        ]


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
        self.context, self.num_forward, self.num_inverse = (
            context,
            int(context > 0),
            int(context > 0),
        )
        starts = {
            "entries": torch.zeros(dim, dim),
            "log_diagonal": torch.zeros(dim),
            "bias": torch.zeros(dim),
        }
        self.params = ContextParameters(context, hidden, **starts)

    def forward(self, x: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        lower, upper, log_diagonal, bias = self._factors(context)
        y = _apply(lower, _apply(upper, x)) + bias
        return y, log_diagonal.sum(-1).expand(y.shape[:-1])

    def inverse(self, y: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        lower, upper, log_diagonal, bias = self._factors(context)
        centred = (y - bias)[..., None]
        half = torch.linalg.solve_triangular(lower, centred, upper=False, unitriangular=True)
        x = torch.linalg.solve_triangular(upper, half, upper=True)[..., 0]
        return x, -log_diagonal.sum(-1).expand(x.shape[:-1])

    def _factors(self, context: Tensor | None) -> tuple[Tensor, ...]:
        entries, log_diagonal, bias = self.params(context)
        lower = entries.tril(-1) + torch.eye(
            entries.shape[-1], dtype=entries.dtype, device=entries.device
        )
        return lower, entries.triu(1) + torch.diag_embed(log_diagonal.exp()), log_diagonal, bias


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
        num_pairs = max(1, (dim + 1) // 2) if num_pairs is None else num_pairs
        if num_pairs < 1:
            raise ValueError(f"Orthogonal: expected num_pairs >= 1, got {num_pairs}.")
        self.context, self.num_forward, self.num_inverse = (
            context,
            int(context > 0),
            int(context > 0),
        )
        self.params = ContextParameters(
            context, hidden, vectors=torch.randn(num_pairs, dim).repeat_interleave(2, dim=0)
        )

    def forward(self, x: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        y = _apply(reflected(*self.params(context)), x)
        return y, y.new_zeros(y.shape[:-1])

    def inverse(self, y: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        x = _apply(reflected(*self.params(context)).mT, y)
        return x, x.new_zeros(x.shape[:-1])


def reflected(vectors: Tensor) -> Tensor:
    r"""$H_K \cdots H_1$ `(*batch, D, D)` of vectors `(*batch, K, D)`."""
    matrix = torch.eye(vectors.shape[-1], dtype=vectors.dtype, device=vectors.device)
    for v in vectors.unbind(-2):
        row = v[..., None, :]
        matrix = matrix - 2 * row.mT @ (row @ matrix) / row.square().sum(-1, keepdim=True)
    return matrix


def _apply(matrix: Tensor, x: Tensor) -> Tensor:
    r"""$A x$ of vectors `(*batch, D)`; one plain matrix product where A has no batch dims."""
    return x @ matrix.mT if matrix.dim() == 2 else (x[..., None, :] @ matrix.mT)[..., 0, :]


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
        self.context, self.num_forward, self.num_inverse = (
            context,
            int(context > 0),
            int(context > 0),
        )
        self.params = ContextParameters(
            context, hidden, log_scale=torch.zeros(dim), shift=torch.zeros(dim)
        )

    @torch.no_grad()
    def initialize(self, x: Tensor) -> None:
        """Standardize data `(*batch, D)` from here on; what a context adds is left as it is.

        Raises:
            ValueError: if a coordinate is constant: no scale would make its variance 1.
        """
        x = x.flatten(0, -2)
        spread = x.std(0)
        if not bool((spread > 0).all()):
            raise ValueError(
                f"ActNorm: expected coordinates that vary, got {int((spread <= 0).sum())} of {len(spread)} "
                "constant. Fix: drop them, or add a little noise."
            )
        self.params.starts["log_scale"].copy_(-spread.log())
        self.params.starts["shift"].copy_(-x.mean(0) / spread)

    def forward(self, x: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        log_scale, shift = self.params(context)
        y = x * log_scale.exp() + shift
        return y, log_scale.sum(-1).expand(y.shape[:-1])

    def inverse(self, y: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        log_scale, shift = self.params(context)
        x = (y - shift) * (-log_scale).exp()
        return x, -log_scale.sum(-1).expand(x.shape[:-1])
