"""Draws that were rounded onto the edge of their support, where floats can't tell what their density is."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from ...contract import Site
from .own_pass import keeps_pass
from .traces import PairTrace, log_density

STEADY = 0.1  # nats by which a density may change between the edge and the next floats: rounding costs less


class EdgeWarning(UserWarning):
    """Draws were rounded onto the edge of their support: their weights can't be trusted."""


def warn_of_edges(pair: PairTrace) -> None:
    """Warn of draws rounded onto the edge of the model's support where a density is steep: it is read on the host.

    A float32 sigmoid is 1 from 17 on, and a draw of `Gamma(0.01, 1)` is below all floats with a probability of 0.4.
    A density that is flat at the edge is no problem, nor is that of a guide that scores its draw from the pass that
    made it.
    """
    for name, drawn in pair.latent.items():
        modelled = pair.modelled.get(name)
        ends = None if modelled is None else _ends(modelled["fn"].support)
        if modelled is None or ends is None:
            continue
        on_edge, inside = _move_inside(drawn["value"], *ends)
        if not bool(on_edge.any()):
            continue
        lost = on_edge & ~(_is_steady(modelled, inside) & _is_known(drawn, inside))
        num = int(lost.sum())
        if num:
            warnings.warn(
                f"site '{name}': {num} of {lost.numel()} numbers drawn by the guide were rounded onto the edge of "
                f"{modelled['fn'].support}, where a density is steep: their weights can't be trusted. "
                "Fix: module.double() and x.double(); a guide with narrower scales, or one over the whole line.",
                EdgeWarning,
                stacklevel=2,
            )


def _ends(support: Any) -> tuple[Any, Any] | None:
    """The least and the largest number of a support; `None` for one without. A simplex has 0 and 1."""
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
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
    limits = torch.finfo(end.dtype)
    distance = (limits.eps * end.abs()).clamp(min=limits.tiny)
    return torch.where(end.isfinite(), distance, 0.0)


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
