r"""Log masses of one cell [c − w/2, c + w/2] under a logistic, normal or Laplace distribution.

They are stable far in the tails, for tiny and for huge cells: each formula stands where it keeps its digits,
and is fed a harmless number elsewhere, so that `torch.where` passes finite gradients only.
"""

from __future__ import annotations

from math import log, pi
from typing import NamedTuple

import torch
from pyro.distributions import Logistic
from torch import Tensor
from torch.distributions import Laplace, Normal
from torch.nn.functional import logsigmoid
from torch.special import erfc, erfcx

# Below this width, times max(1, distance), a normal cell is narrow: three terms are exact to 1e-16.
NARROW = 0.1


class CellMasses(NamedTuple):
    """Log masses, in nats.

    Attributes:
        below: of all that is below the upper end of the cell.
        above: of all that is above its lower end.
        inside: of the cell.
    """

    below: Tensor
    above: Tensor
    inside: Tensor

    def open_ends(self, first: Tensor, last: Tensor) -> Tensor:
        """The mass inside, where the `first` cell reaches down to −∞ and the `last` one up to ∞."""
        bounded_below = torch.where(last, self.above, self.inside)
        return torch.where(first, self.below, bounded_below)


class MirroredCell(NamedTuple):
    """A cell in units of the scale, mirrored at the location so that its centre is not on the left.

    Attributes:
        left: whether it had to be mirrored.
        lower: a, the end that is closer to the location.
        upper: b.
        distance: m, of the centre from the location.
        width: h = b − a, not computed as this difference.
    """

    left: Tensor
    lower: Tensor
    upper: Tensor
    distance: Tensor
    width: Tensor


def log1mexp(t: Tensor) -> Tensor:
    r"""$\log(1 - e^{-t})$ for $t > 0$, accurate at both ends, with finite gradients and no branch.

    References:
        Mächler 2012, *Accurately computing log(1 - exp(-|a|))*.
    """
    small = t < 0.6931
    near_zero = torch.where(small, t, 0.5)
    far = torch.where(small, 1.0, t)
    log_near_zero = (-torch.expm1(-near_zero)).log()
    log_far = torch.log1p(-torch.exp(-far))
    return torch.where(small, log_near_zero, log_far)


# Logistic ----------------------------------------------------------------------------------------


def logistic_cell(
    distribution: Logistic,
    centre: Tensor,
    width: Tensor | float,
) -> CellMasses:
    r"""$\log \sigma(b)$, $\log \sigma(-a)$, and $\log[\sigma(b) - \sigma(a)]$.

    The last is the sum of the first two and $\log(1 - e^{a-b})$.
    """
    loc = distribution.loc
    rate = distribution.scale.reciprocal()
    below = logsigmoid((centre + width / 2 - loc) * rate)
    above = logsigmoid((loc - (centre - width / 2)) * rate)
    inside = below + above + log1mexp(width * rate)
    return CellMasses(below, above, inside)


# Distributions that are symmetric around their location ------------------------------------------


def mirror_cell(
    distribution: Normal | Laplace,
    centre: Tensor,
    width: Tensor | float,
) -> MirroredCell:
    """The cell in units of the scale, on the right of the location."""
    loc = distribution.loc
    scale = distribution.scale
    lower = (centre - width / 2 - loc) / scale
    upper = (centre + width / 2 - loc) / scale
    left = centre < loc
    return MirroredCell(
        left=left,
        lower=torch.where(left, -upper, lower),
        upper=torch.where(left, -lower, upper),
        distance=((centre - loc) / scale).abs(),
        width=width / scale,
    )


def undo_mirror(
    left: Tensor,
    log_above_lower: Tensor,
    log_below_upper: Tensor,
    inside: Tensor,
) -> CellMasses:
    """The masses of a cell from those of its mirror image, which change sides."""
    return CellMasses(
        below=torch.where(left, log_above_lower, log_below_upper),
        above=torch.where(left, log_below_upper, log_above_lower),
        inside=inside,
    )


# Normal ------------------------------------------------------------------------------------------


def normal_cell(
    distribution: Normal,
    centre: Tensor,
    width: Tensor | float,
) -> CellMasses:
    r"""$\log Q(a) + \log(1 - e^{-t})$ with $t = \log \frac{Q(a)}{Q(b)}$ and $Q(x) = P(X > x)$."""
    cell = mirror_cell(distribution, centre, width)
    log_erfcx_a, log_q_a = _log_erfcx_and_q(cell.lower)
    log_erfcx_b = _log_erfcx(cell.upper)
    log_q_b = _log_q_of_tail(cell.upper, log_erfcx_b)
    # Where a > 0, the squares of a and b in t leave h m alone: no digit is lost in their difference.
    t_of_tail = cell.width * cell.distance + log_erfcx_a - log_erfcx_b
    t = torch.where(cell.lower > 0, t_of_tail, log_q_a - log_q_b)
    narrow = cell.width * cell.distance.clamp(min=1) < NARROW
    wide_mass = log_q_a + log1mexp(torch.where(narrow, 1.0, t))
    narrow_mass = _narrow_normal(cell.distance, cell.width, narrow)
    inside = torch.where(narrow, narrow_mass, wide_mass)
    log_below_b = torch.log1p(-log_q_b.exp())
    return undo_mirror(cell.left, log_q_a, log_below_b, inside)


def log_normal_survival(x: Tensor) -> Tensor:
    r"""$\log Q(x)$ with $Q(x) = P(X > x)$ of the standard normal distribution."""
    return _log_erfcx_and_q(x)[1]


def _narrow_normal(m: Tensor, h: Tensor, narrow: Tensor) -> Tensor:
    r"""$\log \varphi(m)\, h\, [1 + He_2(m) h^2 / 24 + He_4(m) h^4 / 1920 + He_6(m) h^6 / 322560]$."""
    s = torch.where(narrow, m, 0.0).square()
    h2 = torch.where(narrow, h, 0.0).square()
    hermite_2 = s - 1
    hermite_4 = (s - 6) * s + 3
    hermite_6 = ((s - 15) * s + 45) * s - 15
    last_terms = hermite_4 / 1920 + h2 * hermite_6 / 322560
    series = h2 * (hermite_2 / 24 + h2 * last_terms)
    log_density = -m.square() / 2 - log(2 * pi) / 2
    return log_density + h.log() + torch.log1p(series)


def _log_erfcx_and_q(x: Tensor) -> tuple[Tensor, Tensor]:
    r"""$\log \mathrm{erfcx}(x / \sqrt 2)$ where x > 0, and $\log Q(x)$ with $Q(x) = P(X > x)$.

    $Q(x) = \frac12 \mathrm{erfc}(x / \sqrt 2) = \frac12 e^{-x^2/2}\, \mathrm{erfcx}(x / \sqrt 2)$. Not
    torch's own `log_ndtr`, whose gradient is off by 4 % at -1,000 in float32, and 0 at a million.
    """
    tail = x > 0
    log_erfcx = _log_erfcx(torch.where(tail, x, 1.0))
    log_q_of_tail = _log_q_of_tail(x, log_erfcx)
    not_tail = torch.where(tail, 0.0, x)
    below = erfc(-not_tail * 0.5**0.5) / 2
    log_q = torch.where(tail, log_q_of_tail, torch.log1p(-below))
    return log_erfcx, log_q


def _log_q_of_tail(x: Tensor, log_erfcx: Tensor) -> Tensor:
    r"""$\log Q(x) = \log \mathrm{erfcx}(x / \sqrt 2) - x^2 / 2 - \log 2$, for x > 0."""
    return log_erfcx - x.square() / 2 - log(2)


def _log_erfcx(x: Tensor) -> Tensor:
    r"""$\log \mathrm{erfcx}(x / \sqrt 2)$."""
    return erfcx(x * 0.5**0.5).log()


# Laplace -----------------------------------------------------------------------------------------


def laplace_cell(
    distribution: Laplace,
    centre: Tensor,
    width: Tensor | float,
) -> CellMasses:
    """The masses of a cell, of all below its upper end and of all above its lower end."""
    cell = mirror_cell(distribution, centre, width)
    log_above_lower = log_laplace_cdf(-cell.lower)
    log_below_upper = log_laplace_cdf(cell.upper)
    inside = mirrored_laplace(cell)
    return undo_mirror(cell.left, log_above_lower, log_below_upper, inside)


def mirrored_laplace(cell: MirroredCell) -> Tensor:
    r"""$\frac12 e^{-a} (1 - e^{-h})$ beside the mode, $1 - \frac12 (e^{a} + e^{-b})$ around it, in logs."""
    beside = cell.lower >= 0
    log_beside = -log(2) - cell.lower + log1mexp(cell.width)
    lower = torch.where(beside, -1.0, cell.lower)
    minus_upper = torch.where(beside, -1.0, -cell.upper)
    log_around = _laplace_around_mode(lower, minus_upper)
    return torch.where(beside, log_beside, log_around)


def _laplace_around_mode(lower: Tensor, minus_upper: Tensor) -> Tensor:
    r"""$\log[1 - \frac12 (e^{a} + e^{-b})]$ for a < 0 < b."""
    outside = (lower.exp() + minus_upper.exp()) / 2
    inside = -(torch.expm1(lower) + torch.expm1(minus_upper)) / 2
    # The first log keeps the digits of a mass near 1, the second those of a mass near 0.
    large = outside < 0.5
    near_one = torch.log1p(-torch.where(large, outside, 0.5))
    near_zero = torch.where(large, 0.5, inside).log()
    return torch.where(large, near_one, near_zero)


def log_laplace_cdf(x: Tensor) -> Tensor:
    r"""$\log F(x)$: $x - \log 2$ left of the mode, $\log(1 - \frac12 e^{-x})$ right of it."""
    below = x < 0
    not_below = torch.where(below, 0.0, x)
    survival = (-not_below).exp() / 2
    return torch.where(below, x - log(2), torch.log1p(-survival))
