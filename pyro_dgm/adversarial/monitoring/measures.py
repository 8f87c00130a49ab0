"""What is measured of a game: ratio identities, balance and quantiles of the critic, spread of the fakes."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor, nan, sqrt

import torch
from torch import Tensor

from ...display.tabular import Tabular
from ...evaluation.estimate import Estimate, estimated, pooled_degrees

TINY = 1e-300  # one point repeated is as spread as one point repeated
NEIGHBOUR = 5
LEAST_BEYOND = 5 - 1e-9  # draws on either side of a quantile, for an interval of it


def ratio_identities(log_r_real: Tensor, log_r_fake: Tensor) -> tuple[Estimate, Estimate]:
    r"""$E_p\,r = 1$ and $E_\pi\,1/r = 1$ for $r = \pi / p$: both means with their standard errors.

    A critic that is not the best one for this generator breaks them. The converse is false: r = 1 keeps both.

    Args:
        log_r_real: $\log r$ at real data `(m,)`, nats.
        log_r_fake: $\log r$ at fakes `(n,)`.

    Example:
        >>> ones, _ = ratio_identities(torch.zeros(5), torch.zeros(5))
        >>> print(ones)
        1.000 ± 0.000
    """
    ratios_of_fakes = log_r_fake.double().exp()
    inverse_ratios_of_data = (-log_r_real.double()).exp()
    return estimated(ratios_of_fakes[None]), estimated(inverse_ratios_of_data[None])


def critic_balance(real: Tensor, fake: Tensor) -> Estimate:
    r"""$P(C(x) > C(y))$ for $x \sim \pi$, $y \sim p$: how often the critic orders a datum above a fake.

    ½ where it cannot tell them apart, 1 where it always can. A tie counts half. It needs no threshold and no
    probability, and so means the same in every game.

    Args:
        real: logits of real data `(m,)`.
        fake: logits of fakes `(n,)`.

    References:
        DeLong, DeLong, Clarke-Pearson 1988, Biometrics 44 (the standard error).

    Example:
        >>> critic_balance(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 1.0])).value
        0.875
    """
    fakes_below = _shares_below(fake, real)
    data_above = 1 - _shares_below(real, fake)
    variances = [fakes_below.var().item() / len(real), data_above.var().item() / len(fake)]
    degrees = pooled_degrees(variances, [len(real) - 1, len(fake) - 1])
    return Estimate(fakes_below.mean().item(), sum(variances) ** 0.5, degrees)


def _shares_below(logits: Tensor, thresholds: Tensor) -> Tensor:
    """Share of the logits below each threshold; an equal one counts half."""
    ordered = logits.sort().values
    num_below = torch.searchsorted(ordered, thresholds)
    num_at_most = torch.searchsorted(ordered, thresholds, right=True)
    return (num_below + num_at_most).double() / (2 * len(logits))


def quantile(values: Tensor, level: float) -> Estimate:
    r"""A quantile of independent draws with Woodruff's standard error.

    The error is half the distance of the quantiles at $q \pm \sqrt{q (1 - q) / n}$; unknown, NaN, where fewer than five
    draws are expected on one side of the quantile, which the least or the largest draw then bounds too rarely.

    Args:
        values: independent draws `(n,)`.
        level: q in (0, 1).

    References:
        Woodruff 1952, *Confidence intervals for medians and other position measures*, JASA 47.
    """
    ordered = values.sort().values
    last = len(values) - 1
    value = ordered[round(last * level)].item()
    if len(values) * min(level, 1 - level) < LEAST_BEYOND:
        return Estimate(value, nan, degrees=last)
    half_width = sqrt(level * (1 - level) / len(values))
    lower_rank = max(0, floor(last * (level - half_width)))
    upper_rank = min(last, ceil(last * (level + half_width)))
    stderr = (ordered[upper_rank] - ordered[lower_rank]).item() / 2
    return Estimate(value, stderr, degrees=last)


@dataclass(frozen=True)
class Spread(Tabular):
    """How widely fakes are spread, compared with as many real data.

    Attributes:
        spread: mean distance of two fakes over that of two real data.
        duplicates: share of fakes nearer to another fake than 99 % of the real data are to each other, less
            the share of real data that are.
        coverage: share of the real data with a fake nearer than their fifth real neighbour.
    """

    spread: float
    duplicates: float
    coverage: float


def spread(*, real: Tensor, fake: Tensor) -> Spread:
    """Mean distance, duplicates and coverage of fakes `(n, *event)` against real data `(n, *event)`.

    Args:
        real: data, six or more.
        fake: fakes, as many.

    References:
        Naeem et al. 2020, arXiv:2002.09797 (coverage).
    """
    x = real.reshape(len(real), -1).double()
    y = fake.reshape(len(fake), -1).double()
    between_data = _distances_to_others(x)
    between_fakes = _distances_to_others(y)
    relative_distance = (_mean(between_fakes) + TINY) / (_mean(between_data) + TINY)
    return Spread(
        spread=relative_distance.item(),
        duplicates=_duplicates(between_data, between_fakes).item(),
        coverage=_coverage(between_data, torch.cdist(x, y)).item(),
    )


def _duplicates(between_data: Tensor, between_fakes: Tensor) -> Tensor:
    """Share of fakes that have a twin, less the share of data that have one."""
    nearest_datum = between_data.min(1).values
    nearest_fake = between_fakes.min(1).values
    twin_distance = nearest_datum.quantile(0.01)
    share_of_fakes = (nearest_fake <= twin_distance).double().mean()
    share_of_data = (nearest_datum <= twin_distance).double().mean()
    return share_of_fakes - share_of_data


def _coverage(between_data: Tensor, to_fakes: Tensor) -> Tensor:
    """Share of the data with a fake no farther than their fifth neighbour among the data."""
    neighbourhood = between_data.kthvalue(NEIGHBOUR, 1).values
    nearest_fake = to_fakes.min(1).values
    return (nearest_fake <= neighbourhood).double().mean()


def _distances_to_others(x: Tensor) -> Tensor:
    """Distances `(n, n)`, infinite on the diagonal, so that no point is its own neighbour."""
    return torch.cdist(x, x).fill_diagonal_(torch.inf)


def _mean(distances: Tensor) -> Tensor:
    """Mean over the pairs of two different points."""
    num = len(distances)
    return distances.masked_fill(distances.isinf(), 0).sum() / (num * (num - 1))
