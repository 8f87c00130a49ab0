"""Draws that were rounded onto an edge, or onto one another: floats can't tell what their density is."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from ...contract import Site
from ..sites.measures import has_atom
from ..sites.supports import is_discrete, support_of_numbers
from .own_pass import keeps_pass
from .traces import PairTrace, log_density

PartOf = Callable[[Site, Tensor], Tensor]

STEADY = 0.1  # nats by which a density may change between the edge and the next floats: rounding costs less
NARROW = (
    64  # floats over which the draws of a number spread: then its density is asked how it changes
)


class EdgeWarning(UserWarning):
    """Draws were rounded onto the edge of their support: their weights can't be trusted."""


class CollapsedWarning(UserWarning):
    """A guide is so narrow that its draws fall together in float: their weights can't be trusted."""


def _all_of(site: Site, of_value: Tensor) -> Tensor:
    """The whole, where the model has scored all draws at once."""
    return of_value


def warn_of_rounding(pair: PairTrace, part: PartOf = _all_of) -> None:
    """Warn of draws whose density their rounding has changed, on an edge or by their narrow scale.

    It is read on the host.

    Args:
        pair: the run.
        part: takes a guide's site and numbers as those of its value, and returns those that the model has scored.
    """
    for name, drawn in pair.latent.items():
        modelled = pair.modelled.get(name)
        if modelled is not None and _warn_of_edges(name, drawn, modelled, part):
            continue
        _warn_of_collapse(name, drawn)


def may_be_rounded(pair: PairTrace) -> Tensor:
    """Whether there is a draw that `warn_of_rounding` has to look at, 0-dim; nothing is read on the host."""
    suspect = torch.zeros((), dtype=torch.bool)
    for name, drawn in pair.latent.items():
        modelled = pair.modelled.get(name)
        for _, support in () if modelled is None else _supports(drawn, modelled):
            ends = _ends(support)
            if ends is not None:
                suspect = suspect | _move_inside(drawn["value"], *ends)[0].any().cpu()
        if _has_floats_between(drawn):
            suspect = suspect | _is_narrow(drawn["value"]).any().cpu()
    return suspect


def _warn_of_edges(name: str, drawn: Site, modelled: Site, part: PartOf) -> bool:
    """Whether draws were rounded onto the edge of a support, the model's or the guide's own, where a density is steep.

    A float32 sigmoid is 1 from 17 on, and a draw of `Gamma(0.01, 1)` is below all floats with a probability of 0.4.
    A density that is flat at the edge is no problem, nor is that of a guide that scores its draw from the pass that
    made it.
    """
    for whose, support in _supports(drawn, modelled):
        ends = _ends(support)
        if ends is None:
            continue
        on_edge, inside = _move_inside(drawn["value"], *ends)
        scored = part(drawn, on_edge)
        if not bool(scored.any()):
            continue
        is_known = part(drawn, _is_known(drawn, inside))
        lost = scored & ~(_is_steady(modelled, part(drawn, inside)) & is_known)
        num = int(lost.sum())
        if num:
            warnings.warn(
                f"site '{name}': {num} of {lost.numel()} numbers drawn by the guide were rounded onto the edge of "
                f"{whose}, where a density is steep: their weights can't be trusted. "
                "Fix: module.double() and x.double(); a guide with narrower scales, or one over the whole line.",
                EdgeWarning,
                stacklevel=4,
            )
            return True
    return False


def _supports(drawn: Site, modelled: Site) -> Iterator[tuple[str, Any]]:
    """The model's support, and the guide's own where it is another one that is known; each with its name."""
    support = modelled["fn"].support
    yield str(support), support
    with suppress(NotImplementedError, AttributeError):
        own = drawn["fn"].support
        if support_of_numbers(own) is not support_of_numbers(support):
            yield "the guide's own support", own


def _warn_of_collapse(name: str, drawn: Site) -> None:
    """Warn of numbers whose density changes from one float to the next: no draw lies between the two.

    So $N(3, 10^{-12})$ draws 3 alone in float32, and all weights are one. A guide that scores its draws from the
    pass that made them knows their density.
    """
    if not _has_floats_between(drawn):
        return
    value = drawn["value"]
    is_narrow = _is_narrow(value)
    if not bool(is_narrow.any()):
        return
    beside = torch.where(is_narrow, value + _spacing(value), value)
    lost = is_narrow & ~_is_steady(drawn, beside)
    num = int(lost.sum())
    if num:
        warnings.warn(
            f"site '{name}': expected draws of the guide that floats tell apart, got {num} of {lost.numel()} "
            f"numbers that {value.dtype} rounding collapsed: the guide's density changes from one float to the "
            "next, so their weights can't be trusted. "
            "Fix: module.double() and x.double(); or a guide whose scales have a floor, Conditional(…, floor=1e-3).",
            CollapsedWarning,
            stacklevel=3,
        )


def _has_floats_between(drawn: Site) -> bool:
    """Whether the density of draws is asked again from their rounded values: one of real numbers, of no own pass."""
    distribution = drawn["fn"]
    return not (has_atom(distribution) or keeps_pass(distribution)) and _is_continuous(drawn)


def _is_narrow(value: Tensor) -> Tensor:
    """Which numbers of draws `(K, …)` spread over a few floats alone."""
    return value.amax(0) - value.amin(0) <= NARROW * _spacing(value).amax(0)


def _is_continuous(site: Site) -> bool:
    """Whether its numbers are real; so are floats whose distribution does not know its support."""
    with suppress(NotImplementedError, AttributeError):
        return not is_discrete(site["fn"])
    return site["value"].is_floating_point()


def _ends(support: Any) -> tuple[Any, Any] | None:
    """The least and the largest number of a support; `None` for one without. A simplex has 0 and 1."""
    support = support_of_numbers(support)
    if support is None or getattr(support, "is_discrete", False):
        return None
    if isinstance(support, type(constraints.simplex)):
        return 0.0, 1.0
    low = getattr(support, "lower_bound", None)
    high = getattr(support, "upper_bound", None)
    if low is None and high is None:
        return None
    return -torch.inf if low is None else low, torch.inf if high is None else high


def _move_inside(value: Tensor, low: Any, high: Any) -> tuple[Tensor, Tensor]:
    """Which numbers are within one rounding of an edge, and the value with those four roundings inside.

    torch keeps its sigmoids and Gammas that one rounding away from the edge.
    """
    low = torch.as_tensor(low, dtype=value.dtype, device=value.device)
    high = torch.as_tensor(high, dtype=value.dtype, device=value.device)
    at_low = value - low <= _rounding(low)
    at_high = high - value <= _rounding(high)
    inside = torch.where(at_low, low + 4 * _rounding(low), value)
    inside = torch.where(at_high, high - 4 * _rounding(high), inside)
    return at_low | at_high, inside


def _rounding(end: Tensor) -> Tensor:
    """The distance between floats at an end; that of 0 from the first normal number."""
    return torch.where(end.isfinite(), _spacing(end), 0.0)


def _spacing(value: Tensor) -> Tensor:
    """The distance to the next float, at most twice as large; that of 0 from the first normal number."""
    limits = torch.finfo(value.dtype)
    return (limits.eps * value.abs()).clamp(min=limits.tiny)


def _is_known(drawn: Site, inside: Tensor) -> Tensor:
    """Whether the guide's density of its draws does not suffer from their rounding."""
    if keeps_pass(drawn["fn"]):
        return _per_number(drawn, log_density(drawn).isfinite(), inside)
    return _is_steady(drawn, inside)


def _is_steady(site: Site, inside: Tensor) -> Tensor:
    """Whether a density is next to the same a few floats further inside; one entry per number of the value."""
    moved = site.copy()
    moved["value"] = inside
    change = log_density(moved) - log_density(site)
    return _per_number(site, change.abs() < STEADY, inside)


def _per_number(site: Site, of_event: Tensor, value: Tensor) -> Tensor:
    num_event = len(site["fn"].event_shape)
    shaped = of_event.reshape(*of_event.shape, *[1] * num_event)
    return shaped.expand(torch.broadcast_shapes(shaped.shape, value.shape))
