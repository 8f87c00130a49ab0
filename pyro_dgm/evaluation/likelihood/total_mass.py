r"""Does the distribution of an observation sum, or integrate, to one? A bound on $\log p(x)$ means nothing if not."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan, prod
from typing import Any

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor

from ...contract import PyroProgram, noise_name
from ...densities.factors import independent_numbers
from ...densities.scoring import log_prob_of
from ...display.tabular import Tabular
from ...inference.run.sessions import Session, require_positive, session
from .quadrature import MAX_DIM, log_integral, log_sum

MAX_VALUES = 20_000  # values of one number, or of one event, that are summed over
NUM_DRAWS = 64  # that show where counts without an end have their mass


@dataclass(frozen=True)
class Normalization(Tabular):
    r"""$\log \sum_x p(x \mid z)$, or $\log \int p(x \mid z)\, dx$, at observed sites: 0 for a true distribution.

    Attributes:
        log_total: site → `(N, M)`, float64: for each of N data M numbers that are independent given z, or one event.
        unchecked: site → why its total is not known.
    """

    log_total: dict[str, Tensor]
    unchecked: dict[str, str]

    @property
    def bias(self) -> float:
        r"""$\max_i \sum_m |\log \mathrm{total}_{im}|$: nats that $\log p(x)$ may be off by; NaN where unknown."""
        if not self.log_total:
            return nan
        errors = [_error_of_datum(total) for total in self.log_total.values()]
        return torch.stack(errors).sum(0).max().item()

    def columns(self) -> dict[str, list[Any]]:
        """One row per observed site: its bias in nats per datum, or why it is not known."""
        biases = [_error_of_datum(total).max().item() for total in self.log_total.values()]
        return {
            "site": [*self.log_total, *self.unchecked],
            "bias": biases + [nan] * len(self.unchecked),
            "unchecked": [""] * len(self.log_total) + list(self.unchecked.values()),
        }

    def __str__(self) -> str:
        text = f"Normalization: log p(x) is off by up to {self.bias:.2g} nats per datum"
        if not self.log_total:
            text = "Normalization: no total is known"
        for reason in self.unchecked.values():
            text = f"{text}; {reason}"
        return text


def _error_of_datum(log_total: Tensor) -> Tensor:
    """Totals of either sign do not cancel `(N, M)` -> `(N,)`."""
    return log_total.abs().sum(1)


def normalization(
    model: PyroProgram, guide: PyroProgram, *batch: Any, num_data: int = 8, seed: int = 0
) -> Normalization:
    r"""$\log \sum_x p(x \mid z)$ at draws $z \sim q(z \mid x_i)$ of a few data, by enumeration or quadrature.

    Args:
        model: any Pyro program that keeps the contract.
        guide: its guide.
        batch: the data, observation first, a row per datum in each argument; or one loader of such batches.
        num_data: the first so many data give one z each.
        seed: of the draws.

    Raises:
        ValueError: for bad data, no data, or a site outside the data plate.
    """
    require_positive(num_data=num_data)
    with session(model, guide, *batch, seed=seed) as pair:
        return normalization_of(pair, num_data)


def normalization_of(pair: Session, num_data: int) -> Normalization:
    """`normalization` of an open session."""
    totals, unchecked = {}, {}
    particles = pair.draw(pair.rows(slice(num_data)))
    for name, distribution in particles.observations.items():
        if noise_name(name) in particles.values:
            unchecked[name] = (
                f"site '{name}' is dequantized: its mass is an integral over the noise"
            )
            continue
        try:
            total = log_total(distribution)
        except NotImplementedError as error:
            unchecked[name] = f"site '{name}': {error}"
            continue
        datum_dim = len(distribution.batch_shape) - 1
        totals[name] = total.movedim(datum_dim, 0).flatten(1)
    return Normalization(totals, unchecked)


def log_total(distribution: TorchDistribution) -> Tensor:
    r"""$\log \sum_x p(x)$ or $\log \int p(x)\, dx$ over the support, of every number of an event if they factorize.

    Finite supports and counts are summed (counts as far as four times the largest of 64 draws and 100 beyond), other
    numbers integrated by the trapezoidal rule in $m + s \sinh t$, mapped onto the support. Of events that do not
    factorize: those whose distribution enumerates its support, at most 14 bits, and continuous ones of at most two
    numbers.

    Shape:
        `(*batch, *event)` if the distribution factorizes over its dims, else `(*batch)`; float64.

    Raises:
        NotImplementedError: for any other distribution, or where the quadrature has not settled.

    Example:
        >>> from torch.distributions import Gamma, Poisson
        >>> half = torch.tensor(0.5, dtype=torch.float64)
        >>> [round(log_total(p).item(), 5) for p in (Poisson(half), Gamma(half, half))]
        [0.0, 0.0]
    """
    number = independent_numbers(distribution)
    if number is None:
        return _log_total_of_event(distribution)
    if _is_discrete(number):
        return _log_sum(number, _integers(number))
    return log_integral(number)


def _log_total_of_event(distribution: TorchDistribution) -> Tensor:
    """The total of a distribution whose event does not factorize `(*batch)`."""
    if distribution.has_enumerate_support:
        return _log_sum(distribution, distribution.enumerate_support(expand=False))
    if _is_of_few_bits(distribution):
        return _log_sum(distribution, _rows_of_bits(distribution))
    if _is_discrete(distribution) or prod(distribution.event_shape) > MAX_DIM:
        raise NotImplementedError(
            f"{type(distribution).__name__} does not factorize over its event "
            f"{tuple(distribution.event_shape)}, which is too large to sum or integrate over. "
            f"Fix: check the same family on an event of shape ({MAX_DIM},)."
        )
    return log_integral(distribution)


def _is_of_few_bits(distribution: TorchDistribution) -> bool:
    support: Any = distribution.support
    is_boolean = getattr(support, "base_constraint", support) is constraints.boolean
    return is_boolean and 2 ** prod(distribution.event_shape) <= MAX_VALUES


def _rows_of_bits(distribution: TorchDistribution) -> Tensor:
    """Every event of zeros and ones `(2^D, 1, …, *event)`."""
    dim = prod(distribution.event_shape)
    draw = distribution.sample()
    bits = torch.cartesian_prod(*[torch.arange(2.0)] * dim).to(draw)
    return bits.reshape(-1, *[1] * len(distribution.batch_shape), *distribution.event_shape)


def _is_discrete(distribution: TorchDistribution) -> bool:
    try:
        support: Any = distribution.support
        return support.is_discrete
    except (NotImplementedError, AttributeError) as error:
        raise NotImplementedError(
            f"{type(distribution).__name__} has no support to sum or integrate over. "
            "Fix: support = constraints.real in the class of the distribution."
        ) from error


def _integers(distribution: TorchDistribution) -> Tensor:
    """All integers of a support `(V, 1, …)`; where it has no end, as far as draws show mass, and well beyond."""
    draws = distribution.sample((NUM_DRAWS,))
    low, high = _range(distribution.support, draws)
    num = int(high - low) + 1
    if num > MAX_VALUES:
        raise NotImplementedError(
            f"{type(distribution).__name__} has {num:,} values, of which {MAX_VALUES:,} can be "
            f"summed. Fix: check the same family at parameters of fewer values."
        )
    values = low + torch.arange(num).to(draws)
    values = values.reshape(num, *[1] * len(distribution.batch_shape))
    is_possible = _is_possible(distribution, values).reshape(num, -1).any(1)
    return values[is_possible]


def _range(support: Any, draws: Tensor) -> tuple[Tensor, Tensor]:
    """The least and the largest integer to sum over; an end that the support has not lies far beyond all draws."""
    margin = 100 + 4 * draws.abs().max()
    lower = getattr(support, "lower_bound", draws.min() - margin)
    upper = getattr(support, "upper_bound", draws.max() + margin)
    low = torch.as_tensor(lower).to(draws)
    high = torch.as_tensor(upper).to(draws)
    return low.min(), high.max()


def _is_possible(distribution: TorchDistribution, values: Tensor) -> Tensor:
    support: Any = distribution.support
    return support.check(values)


def _log_sum(distribution: TorchDistribution, values: Tensor) -> Tensor:
    r"""$\log \sum_v p(v)$ over values `(V, …)`."""

    def log_mass(value: Tensor) -> Tensor:
        log_p = log_prob_of(distribution, value)
        return torch.where(_is_possible(distribution, value), log_p, -torch.inf)

    return log_sum(log_mass, values, distribution)
