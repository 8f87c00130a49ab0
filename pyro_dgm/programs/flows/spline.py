"""The monotone rational-quadratic spline, whose inverse holds in float32."""

from __future__ import annotations

from math import expm1, log
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

from .elementwise import Elementwise, ValueAndLogSlope

MIN_BIN = 1e-2
MIN_SLOPE = 1e-2
SOFT_CLIP = 3.0
LEAK = 1e-2


class Spline(Elementwise):
    r"""Monotone rational-quadratic spline on $[-B, B]$ with K bins, the identity outside; $C^1$ everywhere.

    With $\theta = (x - x_k)/w_k$, $s_k = h_k/w_k$: $y = y_k + h_k \frac{s_k \theta^2 + d_k \theta(1-\theta)}
    {s_k + (d_{k+1} + d_k - 2 s_k)\theta(1-\theta)}$. Raw parameters of any size give a spline that float32 can invert.

    Args:
        num_bins: K.
        bound: B; it should hold the bulk of the base distribution.

    Raises:
        ValueError: for fewer than 2 or more than 50 bins, or `bound <= 0`.

    References:
        Durkan, Bekasov, Murray, Papamakarios 2019, *Neural spline flows*, arXiv:1906.04032.
    """

    def __init__(self, num_bins: int = 8, bound: float = 4.0):
        if not 2 <= num_bins <= 0.5 / MIN_BIN or bound <= 0:
            raise ValueError(
                "Spline: expected 2 to 50 bins and bound > 0, "
                f"got num_bins={num_bins}, bound={bound}. Fix: Spline(8, bound=4.0)."
            )
        self.num_bins = num_bins
        self.bound = bound
        self.num_params = 3 * num_bins - 1

    def __repr__(self) -> str:
        return f"Spline({self.num_bins}, bound={self.bound})"

    def forward(self, x: Tensor, raw: Tensor) -> ValueAndLogSlope:
        x, raw = self._broadcast(x, raw)
        inside = self._is_inside(x)
        bin_ = self._bin_of(x, raw, by_height=False)
        slopes = bin_.slopes
        theta = (x - bin_.x) / bin_.width
        theta = theta.where(inside, 0.5)
        log_slope = _log_slope(theta, slopes)
        y = bin_.y + bin_.height * _rise(theta, slopes)
        return torch.where(inside, y, x), torch.where(inside, log_slope, 0.0)

    def inverse(self, y: Tensor, raw: Tensor) -> ValueAndLogSlope:
        y, raw = self._broadcast(y, raw)
        inside = self._is_inside(y)
        bin_ = self._bin_of(y, raw, by_height=True)
        slopes = bin_.slopes
        share = (y - bin_.y) / bin_.height
        share = share.where(inside, 0.5)
        theta = _solve_rise(share.detach(), slopes.detach())
        # One Newton step mends the cancellation in the closed form, and carries the gradient of the implicit
        # function.
        theta = theta - _newton_step(theta, share, slopes)
        log_slope = _log_slope(theta, slopes)
        x = bin_.x + bin_.width * theta
        return torch.where(inside, x, y), -torch.where(inside, log_slope, 0.0)

    def _is_inside(self, value: Tensor) -> Tensor:
        return (value > -self.bound) & (value < self.bound)

    def _broadcast(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Equal batch dims, and the softly clipped parameters of one number last: `(*batch, D, num_params)`."""
        shape = torch.broadcast_shapes(x.shape, raw.shape[:-2] + raw.shape[-1:])
        raw = raw.movedim(-2, -1).expand(*shape, self.num_params)
        within_clip = SOFT_CLIP * (raw / SOFT_CLIP).tanh()
        return x.expand(shape), LEAK * raw + (1 - LEAK) * within_clip

    def _bin_of(self, value: Tensor, raw: Tensor, *, by_height: bool) -> _Bin:
        """The bin that holds each value: of x, or of y if the bins are told apart by height."""
        num = self.num_bins
        widths, heights, slopes = raw.split([num, num, num - 1], dim=-1)
        x = self._knots(widths)
        y = self._knots(heights)
        slopes = self._slopes(slopes)
        inner = (y if by_height else x)[..., 1:-1]
        left = (value[..., None] >= inner).sum(-1, keepdim=True)
        right = left + 1
        x_left = _pick(x, left)
        y_left = _pick(y, left)
        return _Bin(
            x=x_left,
            y=y_left,
            width=_pick(x, right) - x_left,
            height=_pick(y, right) - y_left,
            left_slope=_pick(slopes, left),
            right_slope=_pick(slopes, right),
        )

    def _knots(self, raw: Tensor) -> Tensor:
        """K + 1 increasing knots with exact ends."""
        shares = MIN_BIN + (1 - MIN_BIN * self.num_bins) * raw.softmax(-1)
        inner = self.bound * (2 * shares[..., :-1].cumsum(-1) - 1)
        end = torch.full_like(inner[..., :1], self.bound)
        return torch.cat([-end, inner, end], dim=-1)

    def _slopes(self, raw: Tensor) -> Tensor:
        """K + 1 positive slopes at the knots: 1 at r = 0 and at both ends, where the identity goes on."""
        inner = MIN_SLOPE + softplus(raw + log(expm1(1 - MIN_SLOPE)))
        end = torch.ones_like(inner[..., :1])
        return torch.cat([end, inner, end], dim=-1)


class _Slopes(NamedTuple):
    """The mean slope s of one bin per value, and the slopes d0 and d1 at its ends."""

    s: Tensor
    d0: Tensor
    d1: Tensor

    def detach(self) -> _Slopes:
        return _Slopes(self.s.detach(), self.d0.detach(), self.d1.detach())


class _Bin(NamedTuple):
    """One bin per value: its left knot (x, y), its size, and the slopes at both ends."""

    x: Tensor
    y: Tensor
    width: Tensor
    height: Tensor
    left_slope: Tensor
    right_slope: Tensor

    @property
    def slopes(self) -> _Slopes:
        mean_slope = self.height / self.width
        return _Slopes(mean_slope, self.left_slope, self.right_slope)


def _pick(knots: Tensor, index: Tensor) -> Tensor:
    return knots.gather(-1, index).squeeze(-1)


# Within one bin: θ in [0, 1] is the share of its width, `share` that of its height -----------------------------------


def _rise(theta: Tensor, slopes: _Slopes) -> Tensor:
    r"""$\frac{s \theta^2 + d_0 \theta(1-\theta)}{s + (d_1 + d_0 - 2s)\theta(1-\theta)}$, of the bin's height."""
    s, d0, d1 = slopes
    t = theta * (1 - theta)
    numerator = s * theta.square() + d0 * t
    denominator = s + (d1 + d0 - 2 * s) * t
    return numerator / denominator


def _log_slope(theta: Tensor, slopes: _Slopes) -> Tensor:
    r"""$\log \frac{s^2 (d_1 \theta^2 + 2 s t + d_0 (1-\theta)^2)}{(s + (d_1 + d_0 - 2s) t)^2}$, t as in `_rise`."""
    s, d0, d1 = slopes
    t = theta * (1 - theta)
    numerator = d1 * theta.square() + 2 * s * t + d0 * (1 - theta).square()
    denominator = s + (d1 + d0 - 2 * s) * t
    return 2 * s.log() + numerator.log() - 2 * denominator.log()


def _solve_rise(share: Tensor, slopes: _Slopes) -> Tensor:
    r"""The θ with $\mathrm{rise}(\theta) = \mathrm{share}$: the stable root of a quadratic, and one Newton step."""
    s, d0, d1 = slopes
    excess = share * (d0 + d1 - 2 * s)
    a = s - d0 + excess
    b = d0 - excess
    c = -s * share
    discriminant = (b.square() - 4 * a * c).clamp(min=0.0)
    theta = 2 * c / (-b - discriminant.sqrt())
    theta = theta.clamp(0.0, 1.0)
    theta = theta - _newton_step(theta, share, slopes)
    return theta.clamp(0.0, 1.0)


def _newton_step(theta: Tensor, share: Tensor, slopes: _Slopes) -> Tensor:
    r"""$(\mathrm{rise}(\theta) - \mathrm{share}) / \mathrm{rise}'(\theta)$."""
    slope_of_rise = _log_slope(theta, slopes).exp() / slopes.s
    return (_rise(theta, slopes) - share) / slope_of_rise
