"""Whether values and distributions lie where a density is positive, and words that say how they do not."""

from __future__ import annotations

import warnings
from math import inf, nan
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from ...contract import DATA, Site, noise_name
from ...densities.precision import HALF, as_observed, autocast_is_on, dtype_of
from ...densities.scoring import is_count
from ..run.traces import is_in_plate


class IntegerWarning(UserWarning):
    """Integers are scored by a density: its likelihood has no upper bound, and is no probability of the integers."""


def innermost(distribution: Any) -> Any:
    """The distribution under `Independent`, masks and expansions."""
    while hasattr(distribution, "base_dist") and not isinstance(
        distribution, dist.TransformedDistribution
    ):
        distribution = distribution.base_dist
    return distribution


def is_discrete(distribution: Any) -> bool:
    """Whether its support is one of single values; as `support`, it raises where none is known."""
    return bool(getattr(support_of_numbers(distribution.support), "is_discrete", False))


def check_observation(name: str, site: Site) -> None:
    """Refuse an observation without a density, of another event shape, or outside the support."""
    distribution = site["fn"]
    if isinstance(innermost(distribution), dist.Delta):
        raise ValueError(
            f"site '{name}': a Delta observation has no density (the ELBO would silently be "
            "infinite). Fix: give an observation model such as Normal(net), or train adversarially."
        )
    _check_data_dim(name, site)
    _check_event_shape(name, site)
    check_precision(name, site)
    value = as_observed(distribution, site["value"])
    _check_held(name, site, value)
    if not bool(distribution.support.check(value).all()):
        problem, fix = _outside(distribution, value)
        raise ValueError(f"site '{name}': {problem}. Fix: {fix}.")


def check_precision(name: str, site: Site) -> None:
    """Refuse a distribution that half precision made, outside of autocast: its masses sum to 0.99 or 1.01."""
    if not autocast_is_on() and dtype_of(site["fn"]) in HALF:
        raise ValueError(
            f"site '{name}': expected parameters in float32 or float64, got {dtype_of(site['fn'])}, whose "
            "two or three digits are no density's. Fix: module.float(), and torch.autocast(…) for "
            "networks in half precision; torch.set_default_dtype(torch.float32) before they are built."
        )


def _check_held(name: str, site: Site, value: Tensor) -> None:
    """Refuse integers that the dtype in which they are scored rounds; counts are scored in float64."""
    given = site["value"]
    if given.is_floating_point() or given.dtype == torch.bool or is_count(site["fn"]):
        return
    if not bool((value.double() == given.double()).all()):
        raise ValueError(
            f"site '{name}': expected integers that {value.dtype} holds, to "
            f"{2 / torch.finfo(value.dtype).eps:.0f}, got values to {given.double().abs().max().item():.0f}. "
            "Fix: x.double() and module.double(), or a likelihood of counts."
        )


def _check_data_dim(name: str, site: Site) -> None:
    """Refuse one datum without its data dim."""
    value, event = site["value"], tuple(site["fn"].event_shape)
    if is_in_plate(site, DATA) and value.dim() <= len(event):
        raise ValueError(
            f"site '{name}': expected data of shape {('N', *event)}, got {tuple(value.shape)}. "
            "Fix: x[None], a batch of one datum."
        )


def _check_event_shape(name: str, site: Site) -> None:
    """Refuse data of another event shape than the distribution's."""
    value, expected = site["value"], tuple(site["fn"].event_shape)
    got = tuple(value.shape[value.dim() - len(expected) :])
    if got != expected:
        raise ValueError(
            f"site '{name}': expected data of event shape {expected}, got {got} from a value of "
            f"shape {tuple(value.shape)}. Fix: reshape the data, or let the likelihood's network "
            f"end in as many outputs as {got} needs: one per dim for a Bernoulli, 2 for a Normal "
            "or DiscretizedLogistic, 3 K for a mixture."
        )


def _outside(distribution: Any, value: Tensor) -> tuple[str, str]:
    """How data leave the support of an observation: what was expected and what came, and the fix."""
    support = support_of_numbers(innermost(distribution).support)
    low = value.min().item()
    high = value.max().item()
    bounds = f"from {low:g} to {high:g}"
    if support is dist.constraints.boolean:
        problem = f"expected binary values in {{0, 1}}, got grey values {bounds}"
        return (
            problem,
            "binarize them, binarize(x / x.max()), or take a DiscretizedLogistic likelihood",
        )
    problem = f"expected values in {support}, got {bounds}"
    if not getattr(support, "is_discrete", False):
        return problem, "a distribution with that range, or rescale the data"
    if are_integers(value):
        return problem, _fix_of_levels(low, high)
    problem = f"expected integer levels in {support}, got non-integers {bounds}"
    return problem, "(x * (levels - 1)).round(), or take a continuous likelihood"


def are_integers(value: Tensor) -> bool:
    """Whether all numbers are whole."""
    return value.dtype == torch.bool or bool((value == value.round()).all())


def _fix_of_levels(low: float, high: float) -> str:
    """As many levels as the data have, and data that start at 0."""
    levels = f"{high - min(low, 0) + 1:g}"
    shift = "" if low >= 0 else f"x - ({low:g}) and "
    return (
        f"{shift}levels={levels} where the model says how many there are (a likelihood's levels=, "
        f"or Levels({levels}) at the end of a density)"
    )


def check_draws(name: str, guide_site: Site, model_site: Site) -> None:
    """Refuse draws of the guide where the model has no density."""
    check_precision(name, guide_site)
    support, value = model_site["fn"].support, guide_site["value"]
    if bool(value.isnan().any()):
        raise ValueError(
            f"site '{name}': expected draws of the guide that are numbers, got {int(value.isnan().sum())} NaN of "
            f"{value.numel()}: its parameters or its networks' outputs are NaN. "
            "Fix: weights of before the NaN (trainer.resume(checkpoint)); data of the scale that the guide was "
            "trained on."
        )
    if not bool(support.check(value).all()):
        raise ValueError(
            f"site '{name}': expected draws of the guide in the model's "
            f"{support_of_numbers(support)}, got values from {value.min().item():g} to "
            f"{value.max().item():g}: the weights would be zero there. "
            f"Fix: {_fix_of_guide_support(name)}."
        )


def check_reach(name: str, guide_site: Site, model_site: Site) -> None:
    """Refuse a guide that reaches beyond the model's support: its ELBO is −∞, even if no draw was there yet.

    A point mass, by which an AutoGuide hands on what it has made of an auxiliary draw, reaches no further than it is.
    """
    if isinstance(innermost(guide_site["fn"]), dist.Delta):
        return
    low, high = _range(guide_site["fn"])
    lowest, highest = _range(model_site["fn"])
    if low < lowest or high > highest:
        raise ValueError(
            f"site '{name}': expected a guide whose draws stay in the model's range {lowest:g} to "
            f"{highest:g}, got one that reaches from {low:g} to {high:g}: the ELBO is -inf there. "
            f"Fix: {_fix_of_guide_support(name)}."
        )


def _fix_of_guide_support(name: str) -> str:
    if noise_name("") in name:
        return (
            "UnitUniform(), or a flow over it that ends in Levels(1), a sigmoid onto the unit cell"
        )
    return "a family with that support, or a flow that ends in a bijector onto it"


def warn_of_integers(name: str, site: Site) -> None:
    """Warn of integers under a density of real numbers, which may grow without bound on them."""
    value = as_observed(site["fn"], site["value"])
    if getattr(support_of_numbers(site["fn"].support), "is_discrete", False):
        return
    is_constant = bool((value == value.flatten()[0]).all())
    if are_integers(value) and not is_constant:
        warnings.warn(
            f"site '{name}': the data are integers, {value.min().item():g} to "
            f"{value.max().item():g}, and the model is a density of real numbers: its likelihood "
            "can grow without bound and is no probability of the data. Fix: "
            f"dequantized(model, '{name}') with noise in the guide, "
            "VAE(…, dequantizer=UnitUniform()), or a likelihood over levels such as "
            "DiscretizedLogistic.",
            IntegerWarning,
            stacklevel=2,
        )


def is_elementwise(site: Site) -> bool:
    """Whether the smallest and the largest number of all data tell if they are in the site's support."""
    return support_of_numbers(site["fn"].support).event_dim == 0


def support_of_numbers(support: Any) -> Any:
    """The support of each number, under the constraints that make events of them."""
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return support


def _range(distribution: Any) -> tuple[float, float]:
    """The least and the largest number in the support; NaN, which compares with nothing, if that is unknown.

    The codomain of an affine map is nominal: torch says "real" of the image of any distribution, and of a Delta, which
    draws one number.
    """
    if isinstance(innermost(distribution), dist.Delta):
        return nan, nan
    transforms = getattr(innermost(distribution), "transforms", ())
    while transforms and isinstance(transforms[-1], dist.transforms.ComposeTransform):
        transforms = transforms[-1].parts
    if transforms and isinstance(transforms[-1], dist.transforms.AffineTransform):
        return nan, nan
    return _stated_bounds(support_of_numbers(distribution.support))


def _stated_bounds(support: Any) -> tuple[float, float]:
    """The bounds of a constraint on one number, infinite where it has one alone; NaN where it states none."""
    if isinstance(support, type(dist.constraints.real)):
        return -inf, inf
    low = getattr(support, "lower_bound", None)
    high = getattr(support, "upper_bound", None)
    if low is None and high is None:
        return nan, nan
    least = -inf if low is None else torch.as_tensor(low).min().item()
    largest = inf if high is None else torch.as_tensor(high).max().item()
    return least, largest
