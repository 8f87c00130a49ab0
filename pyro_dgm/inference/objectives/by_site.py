"""Options that are given site by site: weights of costs, and floors below which they are free."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from typing import Any, NoReturn

from torch import Tensor, nn

from .free_bits import FreeBits
from .schedules import Constant, Schedule


def schedules_by_site(beta: Mapping[str, float | Schedule] | None) -> nn.ModuleDict:
    """A schedule for each site that has a β; a number is a constant one."""
    if beta is None:
        return nn.ModuleDict()
    if not isinstance(beta, Mapping):
        _refuse_no_sites("beta", "beta", beta, _as_schedule)
    schedules = nn.ModuleDict()
    for name, value in beta.items():
        schedules[name] = _as_schedule(name, value)
    return schedules


def _as_schedule(name: str, value: Any) -> Schedule:
    if isinstance(value, Schedule):
        return value
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number and not (isinstance(value, Tensor) and value.numel() == 1):
        raise TypeError(
            f"ELBO: expected beta of '{name}' as a number or a Schedule, got {value!r}. "
            f"Fix: beta={{'{name}': LinearWarmup(1000)}}, or beta={{'{name}': 0.5}}."
        )
    weight = float(value)
    if not 0 <= weight < inf:
        raise ValueError(
            f"ELBO: expected a finite beta >= 0 of '{name}', got {weight:g}. "
            f"Fix: beta={{'{name}': 0.0}} to leave the cost out."
        )
    return Constant(weight)


def free_bits_by_site(free_bits: Mapping[str, float | Tensor] | None) -> nn.ModuleDict:
    """Free bits for each site that has some."""
    if free_bits is None:
        return nn.ModuleDict()
    if not isinstance(free_bits, Mapping):
        _refuse_no_sites("free_bits", "free bits", free_bits, lambda _, nats: FreeBits(nats))
    floors = nn.ModuleDict()
    for name, nats in free_bits.items():
        floors[name] = FreeBits(nats)
    return floors


def _refuse_no_sites(
    option: str, words: str, value: Any, read: Callable[[str, Any], nn.Module]
) -> NoReturn:
    """Refuse an option that names no site; the fix gives its value to one where the value is good."""
    shown = repr(value)
    try:
        read("z", value)
    except (TypeError, ValueError):
        shown = "0.5"
    raise TypeError(
        f"ELBO: expected {words} by site, got {value!r}. Fix: {option}={{'z': {shown}}}."
    )


def check_known(option: str, kind: str, by_site: nn.ModuleDict, known: list[str]) -> None:
    """Refuse a weight or a floor of a site that the programs do not have."""
    unknown = sorted(set(by_site) - set(known))
    if unknown:
        raise ValueError(
            f"ELBO: expected {option} for {kind} among {known}, got {unknown}. "
            f"Fix: {option}={{site: 0.5}} with one of them."
        )
