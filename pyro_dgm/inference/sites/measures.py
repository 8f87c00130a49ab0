"""What a likelihood measures: a mass, a density, a joint density at a point; found from the sites that made it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from enum import StrEnum
from math import prod
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch.distributions import MixtureSameFamily, biject_to

from ...contract import Site
from .kinds import is_auxiliary, is_data, is_factor
from .supports import innermost, is_discrete

# Distributions that give single values a mass, also where they are real numbers.
ATOMIC = (dist.Delta, dist.Empirical, dist.ZeroInflatedDistribution)


class Measure(StrEnum):
    r"""What the numbers $-\log p$ are logarithms of; figures of different measures are never compared."""

    MASS = "mass"  # of discrete data: at most 1
    DENSITY = "density"  # of continuous data, in units of 1/x^D
    ON_LEVELS = "density on levels"  # of integers, or data on a grid: no probability of them
    MIXED = "mass and density"  # of several sites, or of one with an atom
    MASKED_MASS = "mass, of data under a mask"  # of a part of the data: the mask hides the rest
    MASKED_DENSITY = "density, of data under a mask"
    MASKED_MIXED = "mass and density, of data under a mask"
    JOINT = "joint density at a point"  # log p(x, z*): the guide is a point mass somewhere
    FACTOR = "unnormalized, with a factor"  # of a model with a pyro.factor
    IMPROPER = "unnormalized, with an improper prior"  # of a model with an ImproperUniform
    UNSTATED = "unstated"

    @property
    def reference(self) -> Measure:
        """The measure that it is compared as: a density is one wherever its data lie."""
        return Measure.DENSITY if self is Measure.ON_LEVELS else self

    @property
    def masked(self) -> Measure:
        """The measure of what a mask leaves of the data; the same where it states no mass and no density."""
        return UNDER_A_MASK.get(self, self)


UNDER_A_MASK = {
    Measure.MASS: Measure.MASKED_MASS,
    Measure.DENSITY: Measure.MASKED_DENSITY,
    Measure.ON_LEVELS: Measure.MASKED_DENSITY,
    Measure.MIXED: Measure.MASKED_MIXED,
}


class Bound(StrEnum):
    r"""How a figure relates to $-\log p(x)$."""

    EXACT = "exact"
    UPPER = "upper bound in expectation"
    LOWER = "lower bound in expectation of log p(X)"
    PREDICTIVE = "posterior predictive of the guide"
    NONE = "no bound"


def measure_of(model: Mapping[str, Site], points: tuple[str, ...] = ()) -> Measure:
    r"""What $p(x)$ of a run is, by the distributions of the model's sites.

    Args:
        model: the model's sites by name.
        points: latent sites at which the guide is a point mass, see `point_sites`.
    """
    if points:
        return Measure.JOINT
    if any(is_factor(site) for site in model.values()):
        return Measure.FACTOR
    if any(is_improper(site["fn"]) for site in model.values()):
        return Measure.IMPROPER
    measures = set()
    for site in model.values():
        if is_data(site):
            measures.add(measure_of_distribution(site["fn"]))
    if Measure.UNSTATED in measures or not measures:
        return Measure.UNSTATED
    return measures.pop() if len(measures) == 1 else Measure.MIXED


def measure_of_distribution(distribution: TorchDistribution) -> Measure:
    """Mass, density, or both for a density with an atom; unstated where the support is not known.

    Example:
        >>> import torch
        >>> half = torch.tensor(0.5)
        >>> print(measure_of_distribution(dist.Poisson(half)), measure_of_distribution(dist.Normal(half, half)))
        mass density
    """
    inner = innermost(distribution)
    if isinstance(inner, dist.MaskedMixture):
        parts = {measure_of_distribution(part) for part in _parts(inner)}
        return parts.pop() if len(parts) == 1 else Measure.MIXED
    try:
        if is_discrete(distribution):
            return Measure.MASS
    except (NotImplementedError, AttributeError):  # a distribution that does not know its support
        return Measure.UNSTATED
    return Measure.MIXED if has_atom(distribution) else Measure.DENSITY


def bound_of(measure: Measure, *, is_exact: bool) -> Bound:
    """How an importance estimate of a measure relates to −log p(x).

    Args:
        measure: what is measured.
        is_exact: whether nothing is integrated out.
    """
    if measure in (Measure.JOINT, Measure.IMPROPER):
        return Bound.NONE
    return Bound.EXACT if is_exact else Bound.UPPER


def describe_kind(kind: str, measure: Measure) -> str:
    """What a figure measures, if that is stated, and how it relates to −log p(x).

    Example:
        >>> describe_kind("exact", Measure.MASS), describe_kind("exact", Measure.UNSTATED)
        ('mass, exact', 'exact')
    """
    return str(kind) if measure is Measure.UNSTATED else f"{measure}, {kind}"


def bound_name(points: tuple[str, ...]) -> str:
    """How an objective calls its −ELBO: `nelbo`, or `njoint`, −log p(x, z*), for a guide that is a point mass."""
    return "njoint" if points else "nelbo"


def point_sites(guide: Mapping[str, Site], model: Mapping[str, Site]) -> tuple[str, ...]:
    r"""Latent sites at which a guide is a point mass, so that $\log p(x, z) - \log q(z)$ bounds nothing.

    A Delta is the density of what it is a function of where the guide has auxiliary sites of as many dims (every
    AutoGuide of a density draws one and pushes it forward; `AutoLaplaceApproximation` draws a point mass until it has
    made its approximation); at a discrete site it is a mass, and where the model has the same Delta, no variable is
    left.

    Args:
        guide: the guide's sites by name.
        model: the model's sites by name.
    """
    points = []
    num_dims = num_auxiliary = 0
    for name, site in guide.items():
        if is_auxiliary(site):
            num_auxiliary += 0 if has_atom(site["fn"]) else _num_dims(site)
        elif not site["is_observed"] and _is_point_at(site, model.get(name)):
            points.append(name)
            num_dims += _num_dims(model.get(name, site))
    is_pushforward = num_auxiliary > 0 and num_auxiliary >= num_dims
    return () if is_pushforward else tuple(points)


def _is_point_at(drawn: Site, modelled: Site | None) -> bool:
    """Whether a draw of the guide is a point mass where the model has a density."""
    if not has_atom(drawn["fn"]):
        return False
    if modelled is None:
        return True
    is_mass = measure_of_distribution(modelled["fn"]) is Measure.MASS
    return not is_mass and not has_atom(modelled["fn"])


def hides_data(site: Site) -> bool:
    """Whether a mask, of `poutine.mask` or of the distribution, leaves out a part of a site; read on the host."""
    masks = [site["mask"]]
    distribution = site["fn"]
    while hasattr(distribution, "base_dist"):
        masks.append(getattr(distribution, "_mask", None))
        distribution = distribution.base_dist
    return any(mask is not None and not bool(torch.as_tensor(mask).all()) for mask in masks)


def is_improper(distribution: Any) -> bool:
    """Whether it has no density that integrates to one, whatever constant it is given.

    Example:
        >>> is_improper(dist.ImproperUniform(dist.constraints.real, (), (2,)).mask(True))
        True
    """
    return isinstance(innermost(distribution), dist.ImproperUniform)


def has_atom(distribution: Any) -> bool:
    """Whether a distribution of real numbers is a Delta, or has one: under masks, transforms, in a mixture.

    Example:
        >>> import torch
        >>> has_atom(dist.Delta(torch.zeros(3, 2)).to_event(1).mask(True))
        True
    """
    if isinstance(distribution, ATOMIC):
        return True
    return any(has_atom(part) for part in _parts(distribution))


def _parts(distribution: Any) -> list[Any]:
    """What a distribution of torch or Pyro is made of: its base, or its components."""
    if isinstance(distribution, MixtureSameFamily):
        return [distribution.component_distribution]
    if isinstance(distribution, dist.MaskedMixture):
        return [distribution.component0, distribution.component1]
    return [distribution.base_dist] if hasattr(distribution, "base_dist") else []


def _num_dims(site: Site) -> int:
    """Free numbers of a site, over all its plates: a simplex of K numbers has K − 1."""
    distribution = site["fn"]
    event_shape = distribution.event_shape
    with suppress(NotImplementedError, AttributeError):  # no bijection is known
        event_shape = biject_to(distribution.support).inverse_shape(event_shape)
    num_rows = site["value"].shape[: site["value"].dim() - len(distribution.event_shape)].numel()
    return num_rows * prod(event_shape)
