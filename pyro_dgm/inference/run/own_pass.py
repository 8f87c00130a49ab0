"""Programs run so that every site is drawn and scored in float32 or better, a draw from its own pass."""

from __future__ import annotations

from copy import copy
from typing import Any

from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample
from torch.distributions import (
    Distribution,
    Independent,
    Transform,
    TransformedDistribution,
)

from ...densities.precision import as_observed, autocast_is_on, in_float32, without_autocast


class Precisely(Messenger):
    """Sites whose parameters and draws have float32 or better, and whose observations are of their dtype.

    A draw of a `TransformedDistribution` is scored from the pass that made it: it may have been rounded onto the
    edge of the support, from where there is no way back.
    """

    def _pyro_sample(self, msg: Any) -> None:
        distribution = msg["fn"]
        if not isinstance(distribution, Distribution) or isinstance(distribution, _Subsample):
            return
        msg["fn"] = distribution = in_float32(remembering(distribution))
        if msg["is_observed"]:
            msg["value"] = as_observed(distribution, msg["value"])
        elif msg["value"] is None and not msg["done"] and autocast_is_on():
            with without_autocast():
                msg["value"] = distribution(*msg["args"], **msg["kwargs"])


class OwnPass(Messenger):
    """Sites whose draws are scored from the pass that made them; under autocast `Precisely`."""

    def _pyro_sample(self, msg: Any) -> None:
        msg["fn"] = remembering(msg["fn"])


def precise(program: Any) -> Any:
    """The program, its sites in float32 or better where autocast would give them less."""
    return Precisely()(program) if autocast_is_on() else program


def precise_draws(program: Any) -> Any:
    """A program that draws, see `precise`, and scores what it has drawn from its own pass."""
    return Precisely()(program) if autocast_is_on() else OwnPass()(program)


def remembering(distribution: Any) -> Any:
    """A distribution whose transforms keep their last pair of x and y; the very same where there is none to keep."""
    if isinstance(distribution, Independent):
        base = remembering(distribution.base_dist)
        return (
            distribution if base is distribution.base_dist else _with(distribution, base_dist=base)
        )
    if not isinstance(distribution, TransformedDistribution):
        return distribution
    # The score function of draws that are not reparameterized needs the way back, for its gradient.
    forgetful = any(not transform._cache_size for transform in distribution.transforms)
    if not forgetful or not distribution.has_rsample:
        return distribution
    return _with(distribution, transforms=[_remembering(t) for t in distribution.transforms])


def keeps_pass(distribution: Any) -> bool:
    """Whether it scores its own draw from the pass that made it."""
    while isinstance(distribution, Independent):
        distribution = distribution.base_dist
    if not isinstance(distribution, TransformedDistribution):
        return False
    return all(transform._cache_size for transform in distribution.transforms)


def _remembering(transform: Transform) -> Transform:
    try:
        return transform.with_cache()
    except NotImplementedError:  # a transform of the user's, with arguments of its own
        return transform


def _with(distribution: Any, **changed: Any) -> Any:
    twin = copy(distribution)
    vars(twin).update(changed)
    return twin
