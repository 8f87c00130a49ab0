"""Whether values and laws lie where a density is positive, and words that say how they do not."""

from __future__ import annotations

import warnings
from math import inf, nan
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Independent

from ...contract import DATA, noise_name
from .traces import Site, is_in_plate


class IntegerWarning(UserWarning):
    """Integers are scored by a density: its likelihood has no upper bound, and is no probability of the integers."""


def innermost(distribution: Any) -> Any:
    """The law under `Independent`, masks and expansions."""
    while hasattr(distribution, "base_dist") and not isinstance(
        distribution, dist.TransformedDistribution
    ):
        distribution = distribution.base_dist
    return distribution


def independent_dims(distribution: TorchDistribution) -> TorchDistribution | None:
    r"""The factors $p(z_d)$ of $p(z) = \prod_d p(z_d)$, batch_shape `(*batch, *event)`; `None` if it is no product.

    Example:
        >>> independent_dims(dist.Normal(torch.zeros(5, 3), 1.0).to_event(1)).batch_shape
        torch.Size([5, 3])
        >>> independent_dims(dist.Dirichlet(torch.ones(3))) is None
        True
    """
    base = distribution
    while isinstance(base, Independent):
        base = base.base_dist
    return base if distribution.event_shape and not base.event_shape else None


def independent_numbers(distribution: TorchDistribution) -> TorchDistribution | None:
    """`independent_dims`, where a distribution of scalars is its own only factor."""
    return independent_dims(distribution) if distribution.event_shape else distribution


def check_observation(name: str, site: Site) -> None:
    """Refuse an observation without a density, of another event shape, or outside the support."""
    distribution, value = site["fn"], site["value"]
    if isinstance(innermost(distribution), dist.Delta):
        raise ValueError(
            f"site '{name}': a Delta observation has no density (the ELBO would silently be infinite). "
            "Fix: give an observation model such as Normal(net), or train adversarially."
        )
    if is_in_plate(site, DATA) and value.dim() <= len(distribution.event_shape):
        raise ValueError(
            f"site '{name}': expected data of shape {('N', *distribution.event_shape)}, got {tuple(value.shape)}. "
            "Fix: x[None], a batch of one datum."
        )
    event = tuple(value.shape[value.dim() - len(distribution.event_shape) :])
    if event != tuple(distribution.event_shape):
        raise ValueError(
            f"site '{name}': expected data of event shape {tuple(distribution.event_shape)}, got {event} from a value of shape "
            f"{tuple(value.shape)}. Fix: reshape the data, or let the likelihood's network end in as many outputs as "
            f"{event} needs: one per dim for a Bernoulli, 2 for a Normal or DiscretizedLogistic, 3 K for a mixture."
        )
    if not bool(distribution.support.check(value).all()):
        raise ValueError(f"site '{name}': {_outside(distribution, value)}")


def check_draws(name: str, drawn: Site, modelled: Site) -> None:
    """Refuse draws of the guide where the model has no density."""
    support, value = modelled["fn"].support, drawn["value"]
    if not bool(support.check(value).all()):
        raise ValueError(
            f"site '{name}': expected draws of the guide in the model's {_of_one_number(support)}, got values from "
            f"{value.min().item():g} to {value.max().item():g}: the weights would be zero there. "
            f"Fix: {_fix_of_support(name)}."
        )


def check_reach(name: str, drawn: Site, modelled: Site) -> None:
    """Refuse a guide that reaches beyond the model's support, where its ELBO is −∞, though no draw was there yet."""
    (low, high), (lowest, highest) = _range(drawn["fn"]), _range(modelled["fn"])
    if low < lowest or high > highest:
        raise ValueError(
            f"site '{name}': expected a guide whose draws stay in the model's range {lowest:g} to {highest:g}, got one "
            f"that reaches from {low:g} to {high:g}: the ELBO is -inf there. Fix: {_fix_of_support(name)}."
        )


def warn_of_integers(name: str, site: Site) -> None:
    """Warn of integers under a density of real numbers, which may grow without bound on them."""
    value = site["value"]
    if getattr(_of_one_number(site["fn"].support), "is_discrete", False):
        return
    if bool((value == value.round()).all()) and bool((value != value.flatten()[0]).any()):
        warnings.warn(
            f"site '{name}': the data are integers, {value.min().item():g} to {value.max().item():g}, and the model is "
            "a density of real numbers: its likelihood can grow without bound and is no probability of the data. Fix: "
            f"dequantized(model, '{name}') with noise in the guide, VAE(…, dequantizer=UnitUniform()), or a likelihood "
            "over levels such as DiscretizedLogistic.",
            IntegerWarning,
            stacklevel=2,
        )


def _outside(distribution: Any, value: Tensor) -> str:
    """Say how data leave the support of an observation."""
    support = _of_one_number(innermost(distribution).support)
    low, high = value.min().item(), value.max().item()
    bounds = f"from {low:g} to {high:g}"
    if support is dist.constraints.boolean:
        return (
            f"expected binary values in {{0, 1}}, got grey values {bounds}. Fix: binarize them, "
            "binarize(x / x.max()), or take a DiscretizedLogistic likelihood."
        )
    if getattr(support, "is_discrete", False):
        if not bool((value == value.round()).all()):
            return (
                f"expected integer levels in {support}, got non-integers {bounds}. "
                "Fix: (x * (levels - 1)).round(), or take a continuous likelihood."
            )
        shift = "" if low >= 0 else f"x - ({low:g}) and "
        return (
            f"expected values in {support}, got {bounds}. Fix: {shift}levels={high - min(low, 0) + 1:g} where the "
            f"model says how many there are (a likelihood's levels=, or Levels({high - min(low, 0) + 1:g}) at the end "
            "of a density)."
        )
    return f"expected values in {support}, got {bounds}. Fix: a law with that range, or rescale the data."


def _fix_of_support(name: str) -> str:
    if noise_name("") in name:
        return (
            "UnitUniform(), or a flow over it that ends in Levels(1), a sigmoid onto the unit cell"
        )
    return "a family with that support, or a flow that ends in a bijector onto it"


def is_elementwise(site: Site) -> bool:
    """Whether the smallest and the largest number of all data tell if they are in the site's support."""
    return _of_one_number(site["fn"].support).event_dim == 0


def _of_one_number(support: Any) -> Any:
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return support


def _range(distribution: Any) -> tuple[float, float]:
    """The least and the largest number that a law's support states; NaN, which compares with nothing, if it is mute.

    The codomain of an affine map is nominal: torch says "real" of whatever it moves.
    """
    transforms = getattr(innermost(distribution), "transforms", ())
    if transforms and isinstance(transforms[-1], dist.transforms.AffineTransform):
        return nan, nan
    support = _of_one_number(distribution.support)
    if isinstance(support, type(dist.constraints.real)):
        return -inf, inf
    low, high = getattr(support, "lower_bound", None), getattr(support, "upper_bound", None)
    if low is None and high is None:
        return nan, nan
    least = -inf if low is None else torch.as_tensor(low).min().item()
    return least, inf if high is None else torch.as_tensor(high).max().item()
