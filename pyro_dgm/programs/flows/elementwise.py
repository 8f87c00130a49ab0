"""Monotone maps of single numbers, whose parameters a network gives: what coupling and autoregressive layers share."""

from __future__ import annotations

from math import expm1, log

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

ValueAndLogSlope = tuple[Tensor, Tensor]
MAX_LOG_SCALE = 3.0
MIN_BIN = 1e-2
MIN_SLOPE = 1e-2
SOFT_CLIP = 3.0
LEAK = 1e-2
NUM_BISECTIONS = 22
NUM_NEWTON_STEPS = 4


class Elementwise:
    r"""$y_d = f(x_d; r_d)$, increasing in $x_d$; abstract, without parameters of its own.

    The identity at $r = 0$, unless the law says otherwise.

    Shape:
        value `(*batch, D)`, raw `(*batch, num_params, D)`  ->  value and log-slope, both `(*batch, D)`.
    """

    num_params: int

    def forward(self, x: Tensor, raw: Tensor) -> ValueAndLogSlope:
        r"""$(f(x_d; r_d),\ \log f'(x_d; r_d))$ for every d."""
        raise NotImplementedError(f"{type(self).__name__} has no forward pass.")

    def inverse(self, y: Tensor, raw: Tensor) -> ValueAndLogSlope:
        r"""$(x_d,\ -\log f'(x_d; r_d))$ with $x_d = f^{-1}(y_d; r_d)$, for every d."""
        raise NotImplementedError(f"{type(self).__name__} has no inverse.")


class Additive(Elementwise):
    r"""$y = x + t$ with $f' = 1$.

    References:
        Dinh, Krueger, Bengio 2015, *NICE*, arXiv:1410.8516.
    """

    num_params = 1

    def forward(self, x: Tensor, raw: Tensor) -> ValueAndLogSlope:
        y = x + raw.squeeze(-2)
        return y, torch.zeros_like(y)

    def inverse(self, y: Tensor, raw: Tensor) -> ValueAndLogSlope:
        x = y - raw.squeeze(-2)
        return x, torch.zeros_like(x)


class Affine(Elementwise):
    r"""$y = x e^{s} + t$ with $\log f' = s$ and $s = s_{\max} \tanh(r / s_{\max})$ within ±3."""

    num_params = 2

    def forward(self, x: Tensor, raw: Tensor) -> ValueAndLogSlope:
        shift, log_scale = self._params(raw)
        return x * log_scale.exp() + shift, log_scale

    def inverse(self, y: Tensor, raw: Tensor) -> ValueAndLogSlope:
        shift, log_scale = self._params(raw)
        log_shrink = -log_scale
        return (y - shift) * log_shrink.exp(), log_shrink

    def _params(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        shift, r = raw.unbind(-2)
        return shift, _bounded(r)


def _bounded(r: Tensor) -> Tensor:
    r"""$s_{\max} \tanh(r / s_{\max})$: a log-scale within ±3."""
    return MAX_LOG_SCALE * (r / MAX_LOG_SCALE).tanh()


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
                f"Spline: expected 2 to 50 bins and bound > 0, got num_bins={num_bins}, bound={bound}."
            )
        self.num_bins, self.bound, self.num_params = num_bins, bound, 3 * num_bins - 1

    def forward(self, x: Tensor, raw: Tensor) -> ValueAndLogSlope:
        x, raw = self._aligned(x, raw)
        inside = (x > -self.bound) & (x < self.bound)
        x0, w, y0, h, d0, d1 = self._bins(x, raw, by_height=False)
        theta, s = ((x - x0) / w).where(inside, 0.5), h / w
        log_slope = torch.where(inside, _log_slope(theta, s, d0, d1), 0.0)
        return torch.where(inside, y0 + h * _rise(theta, s, d0, d1), x), log_slope

    def inverse(self, y: Tensor, raw: Tensor) -> ValueAndLogSlope:
        y, raw = self._aligned(y, raw)
        inside = (y > -self.bound) & (y < self.bound)
        x0, w, y0, h, d0, d1 = self._bins(y, raw, by_height=True)
        s, share = h / w, ((y - y0) / h).where(inside, 0.5)
        theta = _solved(share.detach(), s.detach(), d0.detach(), d1.detach())
        # One Newton step mends the cancellation in the closed form, and carries the gradient of the implicit function.
        theta = theta - (_rise(theta, s, d0, d1) - share) / (_log_slope(theta, s, d0, d1).exp() / s)
        log_slope = torch.where(inside, _log_slope(theta, s, d0, d1), 0.0)
        return torch.where(inside, x0 + w * theta, y), -log_slope

    def _aligned(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Equal batch dims, and the parameters of one number side by side: `(*batch, D, num_params)`."""
        shape = torch.broadcast_shapes(x.shape, raw.shape[:-2] + raw.shape[-1:])
        raw = raw.movedim(-2, -1).expand(*shape, self.num_params)
        return x.expand(shape), LEAK * raw + (1 - LEAK) * SOFT_CLIP * (raw / SOFT_CLIP).tanh()

    def _bins(self, value: Tensor, raw: Tensor, *, by_height: bool) -> tuple[Tensor, ...]:
        """Left knot and size in x and in y, and the slopes at both ends, of the bin that holds each value."""
        widths, heights, slopes = raw.split(
            [self.num_bins, self.num_bins, self.num_bins - 1], dim=-1
        )
        x, y = self._knots(widths), self._knots(heights)
        slopes = MIN_SLOPE + softplus(slopes + log(expm1(1 - MIN_SLOPE)))
        end = torch.ones_like(slopes[..., :1])
        slopes = torch.cat([end, slopes, end], dim=-1)
        bin_ = (value[..., None] >= (y if by_height else x)[..., 1:-1]).sum(-1, keepdim=True)

        def at(knots: Tensor, offset: int) -> Tensor:
            return knots.gather(-1, bin_ + offset).squeeze(-1)

        x0, y0 = at(x, 0), at(y, 0)
        return x0, at(x, 1) - x0, y0, at(y, 1) - y0, at(slopes, 0), at(slopes, 1)

    def _knots(self, raw: Tensor) -> Tensor:
        """K + 1 increasing knots with exact ends."""
        shares = MIN_BIN + (1 - MIN_BIN * self.num_bins) * raw.softmax(-1)
        inner = self.bound * (2 * shares[..., :-1].cumsum(-1) - 1)
        end = torch.full_like(inner[..., :1], self.bound)
        return torch.cat([-end, inner, end], dim=-1)


def _rise(theta: Tensor, s: Tensor, d0: Tensor, d1: Tensor) -> Tensor:
    r"""$\frac{s \theta^2 + d_0 \theta(1-\theta)}{s + (d_1 + d_0 - 2s)\theta(1-\theta)}$, of the bin's height."""
    t = theta * (1 - theta)
    return (s * theta.square() + d0 * t) / (s + (d1 + d0 - 2 * s) * t)


def _solved(share: Tensor, s: Tensor, d0: Tensor, d1: Tensor) -> Tensor:
    r"""The θ with $\mathrm{rise}(\theta) = \mathrm{share}$: the stable root of a quadratic, and one Newton step."""
    excess = share * (d0 + d1 - 2 * s)
    a, b, c = s - d0 + excess, d0 - excess, -s * share
    theta = (2 * c / (-b - (b.square() - 4 * a * c).clamp(min=0.0).sqrt())).clamp(0.0, 1.0)
    slope = _log_slope(theta, s, d0, d1).exp() / s
    return (theta - (_rise(theta, s, d0, d1) - share) / slope).clamp(0.0, 1.0)


def _log_slope(theta: Tensor, s: Tensor, d0: Tensor, d1: Tensor) -> Tensor:
    r"""$\log \frac{s^2 (d_1 \theta^2 + 2 s t + d_0 (1-\theta)^2)}{(s + (d_1 + d_0 - 2s) t)^2}$, with t as below."""
    t = theta * (1 - theta)
    rise = d1 * theta.square() + 2 * s * t + d0 * (1 - theta).square()
    return 2 * s.log() + rise.log() - 2 * (s + (d1 + d0 - 2 * s) * t).log()


class LogisticMixture(Elementwise):
    r"""$y = \mathrm{logit}\big(\sum_k \pi_k\, \sigma((x - \mu_k) / s_k)\big)\, e^a + b$; $\log s_k$ and a within ±3.

    The distribution function of a mixture of logistics, sent back to the line, scaled and shifted. **Not** the identity
    at r = 0: the locations start spread over [−1, 1], since equal components would stay equal; the slopes start within
    0.78 to 1. The inverse brackets x exactly, bisects and takes Newton steps, a fixed number of each: it costs about
    25 times the forward map, so a density should score by `forward`, see `Inverse`. Between components that are
    many $s_k$ apart y hardly moves: there the inverse finds an x that meets y to rounding, and floats know no more.

    Args:
        num_components: K.

    Raises:
        ValueError: if `num_components < 1`.

    References:
        Ho, Chen, Srinivas, Duan, Abbeel 2019, *Flow++*, arXiv:1902.00275.
    """

    def __init__(self, num_components: int = 8):
        if num_components < 1:
            raise ValueError(
                f"LogisticMixture: expected num_components >= 1, got {num_components}."
            )
        self.num_components, self.num_params = num_components, 2 + 3 * num_components

    def forward(self, x: Tensor, raw: Tensor) -> ValueAndLogSlope:
        shift, log_scale, mixture = self._params(raw)
        log_odds, log_slope = _log_odds(x, *mixture)
        return log_odds * log_scale.exp() + shift, log_slope + log_scale

    def inverse(self, y: Tensor, raw: Tensor) -> ValueAndLogSlope:
        shift, log_scale, mixture = self._params(raw)
        wanted = (y - shift) * (-log_scale).exp()
        x = _quantile(wanted.detach(), *(part.detach() for part in mixture))
        log_odds, log_slope = _log_odds(x, *mixture)
        # A Newton step without its value, which is rounding alone: it carries the gradient of the implicit function.
        step = (wanted - log_odds) * _inverse_slope(log_slope).detach()
        x = x + (step - step.detach())
        return x, -_log_odds(x, *mixture)[1] - log_scale

    def _params(self, raw: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
        """Shift, log-scale, and the components `(*batch, K, D)`: log-weights, locations and log-widths."""
        num = self.num_components
        shift, log_scale, weight, loc, log_width = raw.split([1, 1, num, num, num], dim=-2)
        spread = (
            torch.linspace(-1.0, 1.0, num, dtype=raw.dtype, device=raw.device)
            if num > 1
            else raw.new_zeros(1)
        )
        components = weight.log_softmax(-2), loc + spread[:, None], _bounded(log_width)
        return shift.squeeze(-2), _bounded(log_scale).squeeze(-2), components


def _log_odds(x: Tensor, log_weight: Tensor, loc: Tensor, log_width: Tensor) -> ValueAndLogSlope:
    r"""$\log F(x) - \log(1 - F(x))$ of the mixture, and the log of its slope $p / (F (1 - F))$."""
    z = (x[..., None, :] - loc) * (-log_width).exp()
    below, above = logsigmoid(z), logsigmoid(-z)
    log_cdf, log_sf = (log_weight + below).logsumexp(-2), (log_weight + above).logsumexp(-2)
    return log_cdf - log_sf, (log_weight + below + above - log_width).logsumexp(
        -2
    ) - log_cdf - log_sf


def _inverse_slope(log_slope: Tensor) -> Tensor:
    r"""$1 / f'$, at most 1 / ε of the floats, which can't tell a flatter f; and 0 · ∞ would be no step."""
    return (-log_slope).exp().clamp(max=1 / torch.finfo(log_slope.dtype).eps)


def _quantile(log_odds: Tensor, log_weight: Tensor, loc: Tensor, log_width: Tensor) -> Tensor:
    """The x of given log-odds: it lies between the least and the greatest of the components' own quantiles."""
    own = loc + log_width.exp() * log_odds[..., None, :]
    low, high = own.amin(-2), own.amax(-2)
    for _ in range(NUM_BISECTIONS):
        x = (low + high) / 2
        over = _log_odds(x, log_weight, loc, log_width)[0] > log_odds
        low, high = torch.where(over, low, x), torch.where(over, x, high)
    x = (low + high) / 2
    for _ in range(NUM_NEWTON_STEPS):
        found, log_slope = _log_odds(x, log_weight, loc, log_width)
        step = (log_odds - found) * _inverse_slope(log_slope)
        x = torch.minimum(torch.maximum(x + step, low), high)
    return x
