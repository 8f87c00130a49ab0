"""Does a series of losses go round in circles?"""

from __future__ import annotations

from math import nan

import torch
from torch import Tensor


def oscillation(series: Tensor) -> tuple[float, float]:
    r"""The index $\omega = \max_\tau \min(1, \tfrac{s_+}{s_-}) \min(\rho_\tau, -\rho_{\tau/2})$ of a series, and its τ.

    $\rho_\tau$ is the correlation of the series, less its line of best fit, with itself τ later, over the pairs that
    there are; $s_-$ and $s_+$ are the standard deviations of the earlier and of the later values. A swing comes back
    after a period and is turned round after half of one, so that an undamped or growing one has ω = 1, a damped one the
    share of the swing that is left a period later. A decay to a limit, or a trend, has ω = 0. Of white noise one series
    in a hundred passes 0.26 for T = 100, 0.43 for T = 30.

    Args:
        series: `(T,)`; periods from 4 to T/2 are looked at.

    Returns:
        ω in [0, 1] and the period τ in steps of the series, NaN where ω = 0.

    Example:
        >>> index, period = oscillation(torch.arange(100.0).mul(torch.pi / 10).sin())
        >>> index > 0.95, period
        (True, 20.0)
    """
    series = _detrended(series.double())
    found = [_swing(series, period) for period in range(4, len(series) // 2 + 1, 2)]
    best = max(found, default=0.0)
    if best <= 0:
        return 0.0, nan
    # A multiple of the period returns as well: the first peak that is nearly the highest is the period.
    peaks = (
        i
        for i, w in enumerate(found)
        if w >= 0.9 * best and w >= max(found[i + 1 : i + 2], default=0.0)
    )
    return best, 4.0 + 2 * next(peaks)


def _swing(series: Tensor, period: int) -> float:
    back, left = _returned(series, period)
    turned, _ = _returned(series, period // 2)
    return min(1.0, left) * min(back, -turned)


def _detrended(series: Tensor) -> Tensor:
    """A series less its line of best fit; zeros where that is all there is, up to rounding."""
    if len(series) < 3:
        return torch.zeros_like(series)
    time = torch.arange(len(series), dtype=series.dtype)
    time, level = time - time.mean(), series - series.mean()
    rest = level - (level @ time) / (time @ time) * time
    return rest if rest.norm() > 1e-9 * series.norm() else torch.zeros_like(rest)


def _returned(series: Tensor, lag: int) -> tuple[float, float]:
    """Correlation of a series with itself some steps later, and the ratio of the later to the earlier deviations."""
    earlier, later = (part - part.mean() for part in (series[:-lag], series[lag:]))
    before, after = earlier.norm().item(), later.norm().item()
    if before * after == 0:
        return 0.0, 0.0
    return (earlier @ later).item() / (before * after), after / before
