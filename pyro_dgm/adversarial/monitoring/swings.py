"""The index of oscillation of a series of losses: does it return after a period, again and again?"""

from __future__ import annotations

from itertools import pairwise
from math import nan

import torch
from torch import Tensor


def oscillation(series: Tensor) -> tuple[float, float]:
    r"""$\omega = \max_\tau \min(1, s_+ / s_-) \min(\rho_\tau, -\rho_{\tau/2})$: how strongly a series swings.

    $\rho_\tau$ is the correlation of the series, less its line of best fit, with itself τ later, over the
    pairs that there are; $s_-$ and $s_+$ are the standard deviations of the earlier and of the later values.
    A swing comes back after a period and is turned round after half of one, so that an undamped or growing
    one has ω = 1, a damped one the share of the swing that is left a period later. A decay to a limit, or a
    trend, has ω = 0. Of white noise one series in a hundred passes 0.26 for T = 100, 0.43 for T = 30.

    Args:
        series: `(T,)`; periods from 4 to T/2 are looked at.

    Returns:
        ω in [0, 1] and the period τ in steps of the series, NaN where ω = 0.

    Example:
        >>> index, period = oscillation(torch.arange(100.0).mul(torch.pi / 10).sin())
        >>> index > 0.95, period
        (True, 20.0)
    """
    residuals = _detrended(series.double())
    periods = range(4, len(residuals) // 2 + 1, 2)
    indices = [_index_at(residuals, period) for period in periods]
    highest = max(indices, default=0.0)
    if highest <= 0:
        return 0.0, nan
    return highest, float(periods[_first_peak(indices, at_least=0.9 * highest)])


def _first_peak(indices: list[float], at_least: float) -> int:
    """Where the first peak is that is high enough: a multiple of the period returns as well."""
    for position, (index, following) in enumerate(pairwise(indices)):
        if index >= at_least and index >= following:
            return position
    return len(indices) - 1


def _index_at(residuals: Tensor, period: int) -> float:
    """ω at one period: whether the series returns after it, and is turned round after half of it."""
    full_correlation, growth = _autocorrelation(residuals, period)
    half_correlation, _ = _autocorrelation(residuals, period // 2)
    return min(1.0, growth) * min(full_correlation, -half_correlation)


def _autocorrelation(residuals: Tensor, lag: int) -> tuple[float, float]:
    """Correlation of a series with itself `lag` steps later, and the ratio of their standard deviations."""
    earlier = residuals[:-lag] - residuals[:-lag].mean()
    later = residuals[lag:] - residuals[lag:].mean()
    earlier_norm = earlier.norm().item()
    later_norm = later.norm().item()
    if earlier_norm * later_norm == 0:
        return 0.0, 0.0
    correlation = (earlier @ later).item() / (earlier_norm * later_norm)
    return correlation, later_norm / earlier_norm


def _detrended(series: Tensor) -> Tensor:
    """A series less its line of best fit; zeros where that is all there is, up to rounding."""
    if len(series) < 3:
        return torch.zeros_like(series)
    time = torch.arange(len(series), dtype=series.dtype, device=series.device)
    time = time - time.mean()
    centred = series - series.mean()
    slope = (centred @ time) / (time @ time)
    residuals = centred - slope * time
    exceeds_rounding = bool(residuals.norm() > 1e-9 * series.norm())
    return residuals if exceeds_rounding else torch.zeros_like(residuals)
