"""Increasing maps of single numbers, whose parameters a network gives: transformers of couplings and MADEs."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

ValueAndLogSlope = tuple[Tensor, Tensor]
MAX_LOG_SCALE = 3.0
NUM_BISECTIONS = 22
NUM_NEWTON_STEPS = 4


class Elementwise:
    r"""$y_d = f(x_d; r_d)$, increasing in $x_d$: a *transformer*; abstract, without parameters of its own.

    The identity at $r = 0$, unless the transformer says otherwise.

    Shape:
        value `(*batch, D)`, raw `(*batch, num_params, D)`  ->  value and log-slope, both `(*batch, D)`.
    """

    num_params: int

    def forward(self, x: Tensor, raw: Tensor) -> ValueAndLogSlope:
        r"""$(f(x_d; r_d),\ \log f'(x_d; r_d))$ for every d."""
        raise NotImplementedError(
            f"{type(self).__name__} has no forward pass. Fix: define forward(x, raw) in it."
        )

    def inverse(self, y: Tensor, raw: Tensor) -> ValueAndLogSlope:
        r"""$(x_d,\ -\log f'(x_d; r_d))$ with $x_d = f^{-1}(y_d; r_d)$, for every d."""
        raise NotImplementedError(
            f"{type(self).__name__} has no inverse. Fix: define inverse(y, raw) in it."
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def check_transformer(owner: str, value: Any) -> None:
    """Raise unless the value is an elementwise transformer or `None`, the default."""
    if value is None or isinstance(value, Elementwise):
        return
    got = f"a {type(value).__name__}"
    fix = "transformer=Affine()"
    if isinstance(value, type):
        got = f"the class {value.__name__}"
        if issubclass(value, Elementwise):
            fix = f"transformer={value.__name__}(): an instance"
    raise TypeError(
        f"{owner} (transformer): expected an elementwise transformer, got {got}. Fix: {fix}."
    )


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
        return shift, _bounded_log_scale(r)


def _bounded_log_scale(r: Tensor) -> Tensor:
    r"""$s_{\max} \tanh(r / s_{\max})$: a log-scale within ±3."""
    return MAX_LOG_SCALE * (r / MAX_LOG_SCALE).tanh()


# A mixture of logistics ----------------------------------------------------------------------------------------------


class LogisticMixture(Elementwise):
    r"""$y = \mathrm{logit}(\sum_k \pi_k\, \sigma((x - \mu_k) / s_k))\, e^a + b$; $\log s_k$ and a within ±3.

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
                f"LogisticMixture: expected num_components >= 1, got {num_components}. "
                "Fix: LogisticMixture(8)."
            )
        self.num_components = num_components
        self.num_params = 2 + 3 * num_components

    def __repr__(self) -> str:
        return f"LogisticMixture({self.num_components})"

    def forward(self, x: Tensor, raw: Tensor) -> ValueAndLogSlope:
        shift, log_scale, mixture = self._params(raw)
        log_odds, log_slope = mixture.log_odds(x)
        y = log_odds * log_scale.exp() + shift
        return y, log_slope + log_scale

    def inverse(self, y: Tensor, raw: Tensor) -> ValueAndLogSlope:
        shift, log_scale, mixture = self._params(raw)
        wanted = (y - shift) * (-log_scale).exp()
        x = _quantile(wanted.detach(), mixture.detach())

        # A Newton step without its value, which is rounding alone: it carries the gradient of the implicit
        # function.
        log_odds, log_slope = mixture.log_odds(x)
        step = (wanted - log_odds) * _inverse_slope(log_slope).detach()
        x = x + (step - step.detach())
        _, log_slope = mixture.log_odds(x)
        return x, -log_slope - log_scale

    def _params(self, raw: Tensor) -> tuple[Tensor, Tensor, _Mixture]:
        """Shift, log-scale, and the mixture of logistics."""
        num = self.num_components
        sizes = [1, 1, num, num, num]
        shift, r, weight, loc, width = raw.split(sizes, dim=-2)
        spread = _spread_locations(num, raw)
        mixture = _Mixture(
            log_weight=weight.log_softmax(-2),
            loc=loc + spread[:, None],
            log_width=_bounded_log_scale(width),
        )
        log_scale = _bounded_log_scale(r)
        return shift.squeeze(-2), log_scale.squeeze(-2), mixture


def _spread_locations(num: int, like: Tensor) -> Tensor:
    """Locations spread over [−1, 1]; one alone at 0."""
    if num == 1:
        return like.new_zeros(1)
    return torch.linspace(-1.0, 1.0, num, dtype=like.dtype, device=like.device)


class _Mixture(NamedTuple):
    """Log-weights, locations and log-widths of logistic components, each `(*batch, K, D)`."""

    log_weight: Tensor
    loc: Tensor
    log_width: Tensor

    def detach(self) -> _Mixture:
        return _Mixture(self.log_weight.detach(), self.loc.detach(), self.log_width.detach())

    def log_odds(self, x: Tensor) -> ValueAndLogSlope:
        r"""$\log F(x) - \log(1 - F(x))$ of the mixture, and the log of its slope $p / (F (1 - F))$."""
        log_weight, loc, log_width = self
        z = (x[..., None, :] - loc) * (-log_width).exp()
        log_below = log_weight + logsigmoid(z)
        log_above = logsigmoid(-z)
        log_cdf = log_below.logsumexp(-2)
        log_survival = (log_weight + log_above).logsumexp(-2)
        log_density = (log_below + log_above - log_width).logsumexp(-2)
        log_slope = log_density - log_cdf - log_survival
        return log_cdf - log_survival, log_slope


def _inverse_slope(log_slope: Tensor) -> Tensor:
    r"""$1 / f'$, at most 1 / ε of the floats, which can't tell a flatter f; and 0 · ∞ would be no step."""
    largest = 1 / torch.finfo(log_slope.dtype).eps
    return (-log_slope).exp().clamp(max=largest)


def _quantile(log_odds: Tensor, mixture: _Mixture) -> Tensor:
    """The x of given log-odds: by bisection, then Newton steps that stay within the bracket."""
    low, high = _bisect(log_odds, mixture)
    x = (low + high) / 2
    for _ in range(NUM_NEWTON_STEPS):
        found, log_slope = mixture.log_odds(x)
        step = (log_odds - found) * _inverse_slope(log_slope)
        x = torch.maximum(x + step, low)
        x = torch.minimum(x, high)
    return x


def _bisect(log_odds: Tensor, mixture: _Mixture) -> tuple[Tensor, Tensor]:
    """A bracket of x, which lies between the least and the greatest of the components' own quantiles."""
    width = mixture.log_width.exp()
    own_quantiles = mixture.loc + width * log_odds[..., None, :]
    low = own_quantiles.amin(-2)
    high = own_quantiles.amax(-2)
    for _ in range(NUM_BISECTIONS):
        x = (low + high) / 2
        found, _ = mixture.log_odds(x)
        too_high = found > log_odds
        low = torch.where(too_high, low, x)
        high = torch.where(too_high, x, high)
    return low, high
