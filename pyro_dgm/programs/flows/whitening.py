"""A fixed affine map, which puts a flow at the place and scale of what it is to fit."""

from __future__ import annotations

import torch
from torch import Tensor

from .bijector import Bijector, ValueAndLogDet, check_sizes
from .linear import matvec


class FixedAffine(Bijector):
    r"""$y = L x + m$ with fixed lower triangular L: $\log|\det| = \sum_d \log L_{dd}$.

    Buffers, not parameters: training leaves them alone. A flow in coordinates where its target is near a
    standard normal trains with one step size, whatever the units of the coordinates.

    Args:
        dim: size D of the event.
        scale: L is this number times the identity at the start; `place` sets it.

    Example:
        >>> layer = FixedAffine(2)
        >>> layer.place(torch.tensor([1.0, 2.0]), torch.tensor([[2.0, 0.0], [1.0, 1.0]]))
        >>> layer(torch.ones(2))[0].tolist()
        [3.0, 4.0]
    """

    loc: Tensor
    scale_tril: Tensor
    num_forward = 0
    num_inverse = 0

    def __init__(self, dim: int, scale: float = 1.0):
        super().__init__()
        check_sizes("FixedAffine", dim=dim)
        self.dim = dim
        self.register_buffer("loc", torch.zeros(dim))
        self.register_buffer("scale_tril", scale * torch.eye(dim))

    def extra_repr(self) -> str:
        return f"{self.dim}"

    @torch.no_grad()
    def place(self, loc: Tensor, scale_tril: Tensor) -> None:
        """Set m `(D,)` and L `(D, D)`, from here on.

        Raises:
            ValueError: for other shapes, for numbers that are not finite, or an L without a positive diagonal.
        """
        dim = self.dim
        is_sound = (
            loc.shape == (dim,)
            and scale_tril.shape == (dim, dim)
            and bool(loc.isfinite().all() & scale_tril.isfinite().all())
            and bool((scale_tril.diagonal() > 0).all())
        )
        if not is_sound:
            raise ValueError(
                f"FixedAffine: expected a finite loc ({dim},) and a finite scale_tril ({dim}, {dim}) with a "
                f"positive diagonal, got shapes {tuple(loc.shape)} and {tuple(scale_tril.shape)}. "
                "Fix: layer.place(x.mean(0), torch.linalg.cholesky(x.T.cov()))."
            )
        self.loc.copy_(loc)
        self.scale_tril.copy_(scale_tril.tril())

    def forward(self, x: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        y = matvec(self.scale_tril, x) + self.loc
        log_det = self.scale_tril.diagonal().log().sum()
        return y, log_det.expand(y.shape[:-1])

    def inverse(self, y: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        centred = (y - self.loc)[..., None]
        x = torch.linalg.solve_triangular(self.scale_tril, centred, upper=False)[..., 0]
        log_det = -self.scale_tril.diagonal().log().sum()
        return x, log_det.expand(x.shape[:-1])
