r"""Points in the latent space of a model, where its sites lie there, and the handler that takes a program to one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor

from ...contract import DATA, Site
from ...inference.run.traces import plate_names
from ...inference.sites.kinds import is_auxiliary, is_deterministic, is_summable

Values = dict[str, Tensor]
ValueOf = Callable[[Site], Tensor]  # the value that a site gets


@dataclass(frozen=True)
class Point:
    r"""A place in the latent space of every datum, and what is known there; densities `(K, N)` in float64.

    Attributes:
        values: latent site → z `(K, *plates, N, *event)`.
        log_prior: $\log p(\zeta)$, the prior as a density of the coordinates.
        log_likelihood: $\log p(x \mid z)$, factors of the model included.
        log_det: $\log|\det \partial z / \partial \zeta|$, which turns densities of z into those of ζ.
    """

    values: Values
    log_prior: Tensor
    log_likelihood: Tensor
    log_det: Tensor

    @property
    def log_joint(self) -> Tensor:
        r"""$\log p(x, \zeta)$."""
        return self.log_prior + self.log_likelihood


def concatenated(points: Sequence[Point], values: Values) -> Point:
    """The point of the chains of several, one after the other, at their values."""
    return Point(
        values,
        log_prior=torch.cat([point.log_prior for point in points]),
        log_likelihood=torch.cat([point.log_likelihood for point in points]),
        log_det=torch.cat([point.log_det for point in points]),
    )


class Visit(Messenger):
    """Gives every latent site of a program the value that a function makes of it, once all plates have acted on it.

    It stands outside all handlers of the program. Masks are left out of latent sites: a masked one has its prior, and
    integrates to one. A site that is summed over stays as the handlers inside have it: drawn, or at all its values.

    Args:
        value: takes the site, with its distribution as `fn`, and returns its value.
        observed: takes every site with a density that is not drawn: observed ones and factors.
        is_guide: whether the program is a guide, none of whose sites is summed over.
    """

    def __init__(
        self,
        value: ValueOf,
        observed: Callable[[Site], None] | None = None,
        *,
        is_guide: bool = False,
    ):
        self.value, self.observed, self.is_guide = value, observed, is_guide

    def _pyro_sample(self, msg: Any) -> None:
        if isinstance(msg["fn"], _Subsample) or msg["infer"].get("_do_not_trace"):
            return
        if is_summable(msg) and not self.is_guide:
            return
        if not msg["is_observed"]:
            msg["value"] = self.value(msg)
            msg["done"] = True
        elif self.observed is not None and not is_deterministic(msg):
            self.observed(msg)


@dataclass(frozen=True)
class Place:
    """Where one site lies in the vector of coordinates.

    Attributes:
        start: its first column.
        shape: `(*plates, *free event)`, without particles and data.
        site: the site, as one run of the model has it.
    """

    start: int
    shape: tuple[int, ...]
    site: Site

    @property
    def stop(self) -> int:
        """The first column behind it."""
        return self.start + prod(self.shape)

    @property
    def columns(self) -> slice:
        """Its part of the vector."""
        return slice(self.start, self.stop)

    @property
    def datum_dim(self) -> int:
        """Which dim of the site's values `(K, *plates, N, *event)` counts the data, in those of `Posterior.sites`."""
        return plate_names(self.site).index(DATA)


def given_value(site: Site, values: Values) -> Tensor:
    """The value of a site of a guide among given ones.

    Raises:
        ValueError: for a site that the chains do not have, so that the guide has no density of theirs.
    """
    name = site["name"]
    if name in values:
        return values[name]
    got = f"one that draws '{name}' as well, over which chains sum"
    if is_auxiliary(site):
        got = f"one with the auxiliary site '{name}', as AutoGuides have"
    raise ValueError(
        f"start: expected a guide that scores any value of the latents {sorted(values)}, got {got}. "
        "Fix: start=None, the prior; or a guide of these sites alone."
    )
