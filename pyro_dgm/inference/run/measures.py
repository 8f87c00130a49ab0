"""What a likelihood measures: a mass, a density, a joint density at a point; found from the sites that made it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from enum import StrEnum
from typing import Any

import pyro.distributions as dist
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
    JOINT = "joint density at a point"  # log p(x, z*): the guide is a point mass somewhere
    FACTOR = "unnormalized, with a factor"  # of a model with a pyro.factor
    UNSTATED = "unstated"

    @property
    def reference(self) -> Measure:
        """The measure that it is compared as: a density is one wherever its data lie."""
        return Measure.DENSITY if self is Measure.ON_LEVELS else self


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
    measures = set()
    for site in model.values():
        if is_factor(site):
            return Measure.FACTOR
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
    if measure is Measure.JOINT:
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
    AutoGuide of a density draws one and pushes it forward); at a discrete site it is a mass, and where the model has
    the same Delta, no variable is left.

    Args:
        guide: the guide's sites by name.
        model: the model's sites by name.
    """
    points = []
    num_dims = num_auxiliary = 0
    for name, site in guide.items():
        if is_auxiliary(site):
            num_auxiliary += _num_dims(site)
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
    return num_rows * event_shape.numel()


def require_one_measure(owner: str, measures: Mapping[str, Measure]) -> None:
    """Refuse figures that are logarithms of different things, and joint densities at a point altogether.

    Args:
        owner: who compares, for the message.
        measures: name of a figure → what it measures.

    Raises:
        ValueError: with every figure's measure and the fix.
    """
    told = ", ".join([f"'{name}': {measure}" for name, measure in measures.items()])
    references = {measure.reference for measure in measures.values()}
    if Measure.JOINT in references:
        raise ValueError(
            f"{owner}: expected figures of log p(x), got {told}: log p(x, z*) is no likelihood of x, and bounds "
            "none. Fix: a guide with a density at its latent sites, such as "
            "AmortizedGuide(Conditional(dist.Normal, net)) in place of a Delta or AutoDelta."
        )
    if Measure.FACTOR in references and len(measures) > 1:
        raise ValueError(
            f"{owner}: expected normalized figures, got {told}: each factor has a normalizer of its own. "
            f"Fix: {_FIXES[Measure.FACTOR]}."
        )
    if len(references) > 1:
        raise ValueError(
            f"{owner}: expected figures of one measure, got {told}, which are not to be compared. Fix: "
            f"{_fix_of_measures(references)}."
        )


def require_one_kind(owner: str, kinds: Mapping[str, str]) -> None:
    """Refuse posterior predictive densities beside likelihoods of the data.

    Raises:
        ValueError: with every figure's kind, see `Bound`, and the fix.
    """
    is_predictive = {kind == Bound.PREDICTIVE for kind in kinds.values()}
    if len(is_predictive) > 1:
        told = ", ".join([f"'{name}': {kind}" for name, kind in kinds.items()])
        raise ValueError(
            f"{owner}: expected figures of one kind, got {told}: one is averaged over the globals of its guide, which "
            "data have told it, the other is not. Fix: evidence(model, guide, x) of each, the log p(X) of all data."
        )


def _fix_of_measures(references: set[Measure]) -> str:
    if Measure.UNSTATED in references:
        stated = sorted(references - {Measure.UNSTATED})[0]
        return f"dgm.results.GivenNLL(per_datum, measure='{stated}'), if that is what it measures"
    return (
        "dequantized(model) with NoiseGuide(UnitUniform()), the mass of integer data under a density, or a "
        "likelihood over levels such as DiscretizedLogistic"
    )


def require_probability(owner: str, measure: Measure) -> None:
    """Refuse what is no probability of data on levels: bits per dim are of one.

    Raises:
        ValueError: for a density of data on levels, a mix of both kinds, or a joint density at a point.
    """
    if measure in (Measure.MASS, Measure.DENSITY, Measure.UNSTATED):
        return
    fix = _FIXES[measure]
    raise ValueError(
        f"{owner}: expected a mass of discrete data, or a density of data that are really continuous, got "
        f"the figure '{measure}', which is no probability of the data. Fix: {fix}."
    )


_FIXES = {
    Measure.ON_LEVELS: (
        "dequantized(model) with NoiseGuide(UnitUniform()) (VAE(…, dequantizer=UnitUniform())), whose figure is a "
        "bound on the mass; or a likelihood over levels such as DiscretizedLogistic"
    ),
    Measure.MIXED: "the figure in nats, result.mean; or nll of a model with one of its observed sites",
    Measure.JOINT: (
        "a guide with a density at its latent sites, Conditional(dist.Normal, net) in place of a "
        "Delta or AutoDelta"
    ),
    Measure.FACTOR: "the model without pyro.factor, whose p(x) is normalized",
}


def as_measure(value: str) -> Measure:
    """A measure by its name.

    Raises:
        ValueError: for another name.
    """
    try:
        return Measure(value)
    except ValueError as error:
        names = [measure.value for measure in Measure]
        raise ValueError(
            f"measure: expected one of {names}, got {value!r}. Fix: measure='mass' for discrete data, "
            "measure='density' for continuous ones."
        ) from error


def require_density(owner: str, points: tuple[str, ...], fix: str = "") -> None:
    """Refuse a guide that is a point mass where its density is asked for.

    Args:
        owner: who asks, for the message.
        points: the sites, see `point_sites`.
        fix: what to do; default: a guide with a density.

    Raises:
        ValueError: if there are any.
    """
    if points:
        raise ValueError(
            f"{owner}: expected a guide with a density at every latent site, got a point mass (Delta) at "
            f"{list(points)}: log p(x, z*) is a joint density at a point, and no bound on log p(x). Fix: "
            f"{fix or 'Conditional(dist.Normal, net) as the encoder, in place of a Delta'}."
        )
