"""What is measured of a game as it stands: ratio identities, balance of the critic, spread of the fakes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..evaluation.estimate import Estimate, estimated

TINY = 1e-300  # one point repeated is as spread as one point repeated
NEIGHBOUR = 5


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
    return estimated(log_r_fake.double().exp()[None]), estimated((-log_r_real.double()).exp()[None])


def critic_balance(real: Tensor, fake: Tensor) -> Estimate:
    r"""$P(C(x) > C(y))$, $x \sim \pi$, $y \sim p$: ½ where the critic cannot tell them apart, 1 where it always can.

    A tie counts half. It needs no threshold and no probability, and so means the same in every game.

    Args:
        real: logits of real data `(m,)`.
        fake: logits of fakes `(n,)`.

    References:
        DeLong, DeLong, Clarke-Pearson 1988, Biometrics 44 (the standard error).

    Example:
        >>> critic_balance(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 1.0])).value
        0.875
    """
    above, below = _share_below(fake, real), 1 - _share_below(real, fake)
    variance = above.var().item() / len(real) + below.var().item() / len(fake)
    return Estimate(above.mean().item(), variance**0.5)


def _share_below(points: Tensor, at: Tensor) -> Tensor:
    ordered = points.sort().values
    found = torch.searchsorted(ordered, at) + torch.searchsorted(ordered, at, right=True)
    return found.double() / (2 * len(points))


@dataclass(frozen=True)
class Spread:
    """How fakes are spread beside as many real data.

    Attributes:
        spread: mean distance of two fakes over that of two real data.
        duplicates: share of fakes nearer to another fake than 99 % of the real data are to each other, less the share
            of real data that are.
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
    real, fake = (x.reshape(len(x), -1).double() for x in (real, fake))
    within_real, within_fake, across = (
        torch.cdist(a, b) for a, b in ((real, real), (fake, fake), (real, fake))
    )
    nearest_real, nearest_fake = (
        d.fill_diagonal_(torch.inf).min(1).values for d in (within_real, within_fake)
    )
    twin = nearest_real.quantile(0.01)
    return Spread(
        spread=((_mean_distance(within_fake) + TINY) / (_mean_distance(within_real) + TINY)).item(),
        duplicates=(
            (nearest_fake <= twin).double().mean() - (nearest_real <= twin).double().mean()
        ).item(),
        coverage=(across.min(1).values <= within_real.kthvalue(NEIGHBOUR, 1).values)
        .double()
        .mean()
        .item(),
    )


def _mean_distance(distances: Tensor) -> Tensor:
    num = len(distances)
    return distances.masked_fill(distances.isinf(), 0).sum() / (num * (num - 1))
