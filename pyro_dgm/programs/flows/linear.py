"""Linear layers: mix, rotate or scale all coordinates; both directions cost one matrix product."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .bijector import Bijector, ValueAndLogDet


class LULinear(Bijector):
    r"""$y = L U x + b$ with unit lower triangular L and upper triangular U: $\log|\det| = \sum_d \log U_{dd}$.

    The identity at the start; the diagonal of U is $e^{s}$ and stays positive.

    Args:
        dim: size D of the event.

    References:
        Kingma, Dhariwal 2018, *Glow*, arXiv:1807.03039; Oliva et al. 2018, arXiv:1801.09819.

    Example:
        >>> LULinear(3)(torch.ones(3))[0].tolist()
        [1.0, 1.0, 1.0]
    """

    def __init__(self, dim: int):
        super().__init__()
        self.entries = nn.Parameter(torch.zeros(dim, dim))
        self.log_diagonal = nn.Parameter(torch.zeros(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        lower, upper = self._factors()
        y = (x @ upper.mT) @ lower.mT + self.bias
        return y, self.log_diagonal.sum().expand(y.shape[:-1])

    def inverse(self, y: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        lower, upper = self._factors()
        centred = (y - self.bias)[..., None]
        half = torch.linalg.solve_triangular(lower, centred, upper=False, unitriangular=True)
        x = torch.linalg.solve_triangular(upper, half, upper=True)[..., 0]
        return x, -self.log_diagonal.sum().expand(x.shape[:-1])

    def _factors(self) -> tuple[Tensor, Tensor]:
        identity = torch.eye(len(self.bias), dtype=self.bias.dtype, device=self.bias.device)
        return self.entries.tril(-1) + identity, self.entries.triu(1) + torch.diag_embed(self.log_diagonal.exp())


class Orthogonal(Bijector):
    r"""$y = H_K \cdots H_1 x$ with Householder reflections $H_k = I - 2 v_k v_k^\top / \|v_k\|^2$: $\log|\det| = 0$.

    The identity at the start: reflections come in equal pairs, which training parts.

    Args:
        dim: size D of the event.
        num_pairs: pairs of reflections; D / 2 of them reach every rotation. Default: all of them.

    References:
        Tomczak, Welling 2016, *Improving VAEs using Householder flow*, arXiv:1611.09630.

    Example:
        >>> x = torch.tensor([3.0, 4.0])
        >>> round(Orthogonal(2)(x)[0].norm().item(), 4)
        5.0
    """

    def __init__(self, dim: int, num_pairs: int | None = None):
        super().__init__()
        num_pairs = max(1, (dim + 1) // 2) if num_pairs is None else num_pairs
        if num_pairs < 1:
            raise ValueError(f"Orthogonal: expected num_pairs >= 1, got {num_pairs}.")
        self.vectors = nn.Parameter(torch.randn(num_pairs, dim).repeat_interleave(2, dim=0))

    def forward(self, x: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        y = x @ self._matrix().mT
        return y, y.new_zeros(y.shape[:-1])

    def inverse(self, y: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        x = y @ self._matrix()
        return x, x.new_zeros(x.shape[:-1])

    def _matrix(self) -> Tensor:
        matrix = torch.eye(self.vectors.shape[-1], dtype=self.vectors.dtype, device=self.vectors.device)
        for v in self.vectors:
            matrix = matrix - 2 * torch.outer(v, v @ matrix) / v.square().sum()
        return matrix


class ActNorm(Bijector):
    r"""$y = e^{s} \odot x + t$ with $\log|\det| = \sum_d s_d$; `initialize(x)` makes y zero-mean and unit-variance.

    Initialization is explicit, once, on data; nothing happens behind a forward pass and nothing depends on a batch.

    Args:
        dim: size D of the event.

    References:
        Kingma, Dhariwal 2018, *Glow*, arXiv:1807.03039.

    Example:
        >>> layer = ActNorm(1)
        >>> layer.initialize(torch.tensor([[0.0], [2.0], [4.0]]))
        >>> layer(torch.tensor([2.0]))[0].tolist()
        [0.0]
    """

    def __init__(self, dim: int):
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(dim))
        self.shift = nn.Parameter(torch.zeros(dim))

    @torch.no_grad()
    def initialize(self, x: Tensor) -> None:
        """Standardize data `(N, D)` from here on.

        Raises:
            ValueError: if a coordinate is constant: no scale would make its variance 1.
        """
        spread = x.std(0)
        if not bool((spread > 0).all()):
            raise ValueError(
                f"ActNorm: expected coordinates that vary, got {int((spread <= 0).sum())} of {len(spread)} "
                "constant. Fix: drop them, or add a little noise."
            )
        self.log_scale.copy_(-spread.log())
        self.shift.copy_(-x.mean(0) / spread)

    def forward(self, x: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        y = x * self.log_scale.exp() + self.shift
        return y, self.log_scale.sum().expand(y.shape[:-1])

    def inverse(self, y: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        x = (y - self.shift) * (-self.log_scale).exp()
        return x, -self.log_scale.sum().expand(x.shape[:-1])
