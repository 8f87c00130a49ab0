"""The bijector from real numbers to the range of levels, and onto the unit cell of a dequantizer."""

from __future__ import annotations

from math import log, log1p

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.nn.functional import logsigmoid

from .bijector import Bijector, ValueAndLogDet


class Levels(Bijector):
    r"""$y = L\, \frac{\sigma(x) - \alpha}{1 - 2 \alpha}$: a sigmoid onto the range of the levels.

    $\log \frac{\partial y}{\partial x} = \log \frac{L}{1 - 2 \alpha} + \log \sigma(x) + \log \sigma(-x)$, summed over
    the event.

    The last layer of a flow over dequantized levels, `y = level + u` in [0, L), in units of one level. α keeps x finite
    at both ends, y = 0 included; the range of y is wider than [0, L] by α L / (1 − 2 α) on either side. With
    `Levels(1)` it is the sigmoid onto the unit cell, the last layer of a variational dequantizer.

    Both log-sigmoids are taken of their own side, so that log-dets are accurate for x of any size, and x next to L as
    well as next to 0. Values are kept the smallest float from 0 and half an ε from 1, in σ.

    Args:
        levels: number L of levels.
        alpha: α in [0, 1/2); default: $10^{-5}$, but 0 for one level, whose draws must stay in the cell.
        event_dim: how many rightmost dims form one event: 1 for vectors, 3 for images.

    Shape:
        value `(*batch, *event)`  ->  value `(*batch, *event)`, log-det `(*batch)`. A context is passed over.

    Raises:
        ValueError: if `levels < 1`, α is outside of [0, 1/2), or `event_dim < 1`.

    References:
        Dinh, Sohl-Dickstein, Bengio 2017, *Density estimation using Real NVP*, arXiv:1605.08803, section 4.1.

    Example:
        >>> Levels(256)(torch.zeros(3))[0].tolist()
        [128.0, 128.0, 128.0]
    """

    num_forward = num_inverse = 0

    def __init__(self, levels: int, alpha: float | None = None, event_dim: int = 1):
        super().__init__()
        if alpha is None:
            alpha = _default_alpha(levels)
        valid = levels >= 1 and 0 <= alpha < 0.5 and event_dim >= 1
        if not valid:
            raise ValueError(
                "Levels: expected levels >= 1, 0 <= alpha < 0.5 and event_dim >= 1, "
                f"got levels={levels}, alpha={alpha}, event_dim={event_dim}. "
                "Fix: Levels(256, event_dim=1)."
            )
        self.levels = levels
        self.alpha = alpha
        self.event_dim = event_dim
        margin = alpha * levels / (1 - 2 * alpha)
        range_of_levels = constraints.interval(-margin, levels + margin)
        self.domain = constraints.independent(constraints.real, event_dim)
        self.codomain = constraints.independent(range_of_levels, event_dim)

    def extra_repr(self) -> str:
        settings = [f"{self.levels}"]
        if self.alpha != _default_alpha(self.levels):
            settings.append(f"alpha={self.alpha}")
        if self.event_dim != 1:
            settings.append(f"event_dim={self.event_dim}")
        return ", ".join(settings)

    def forward(self, x: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        limits = torch.finfo(x.dtype)
        largest = 1 - limits.eps / 2
        sigma = x.sigmoid().clamp(limits.tiny, largest)
        share = (sigma - self.alpha) / (1 - 2 * self.alpha)
        log_slope = logsigmoid(x) + logsigmoid(-x)
        return self.levels * share, self._log_det(log_slope)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        limits = torch.finfo(y.dtype)
        below = self._sigma(y).clamp(min=limits.tiny)
        above = self._sigma(self.levels - y).clamp(min=limits.eps / 2)
        log_below = below.log()
        log_above = above.log()
        log_det = self._log_det(log_below + log_above)
        return log_below - log_above, -log_det

    def _sigma(self, part: Tensor) -> Tensor:
        r"""$\sigma = \alpha + (1 - 2 \alpha) y / L$, of y or of what is left of y to L."""
        return self.alpha + (1 - 2 * self.alpha) * part / self.levels

    def _log_det(self, log_slope: Tensor) -> Tensor:
        r"""The sum over the event of $\log \sigma(x) + \log \sigma(-x)$ and the constant $\log L / (1 - 2 \alpha)$."""
        constant = log(self.levels) - log1p(-2 * self.alpha)
        return (log_slope + constant).flatten(-self.event_dim).sum(-1)


def _default_alpha(levels: int) -> float:
    return 0.0 if levels == 1 else 1e-5
