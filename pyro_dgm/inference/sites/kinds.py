"""Which kinds of sample statements there are, and how a trace shows each: one table for all readers.

======================  =======================================  ==================================================
kind                    how it is known                          what it does
======================  =======================================  ==================================================
latent                  drawn in both programs                   one log weight per datum
dequantization noise    a latent named after an observed site    a latent that belongs to the data
global latent           a latent outside the data plate          one log weight for the whole set
observed                conditioned on data in the model         `log p` per datum
factor                  distribution `Unit`, in the model        part of the joint density, reported apart, no data
factor of the guide     distribution `Unit`, in the guide        part of the training loss alone, of no estimate
deterministic           `infer={"_deterministic": True}`, or     a named value without a density
                        a `Delta` of mask `False`, observed
auxiliary               `infer={"is_auxiliary": True}`, drawn    part of the guide's density, not of the model
summed out              `infer={"enumerate": "parallel"}`        in the model alone: never drawn, summed out exactly
enumerated latent       the same, in the guide                   drawn; summed out in training and in weights
subsample               the index of a plate                     N/B of the plate scales the loss
======================  =======================================  ==================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from math import isclose
from typing import Any

from pyro.distributions import Delta, Independent, MaskedDistribution, Unit
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor

from ...contract import Site


class Kind(StrEnum):
    """What a site is to an estimate."""

    LATENT = "latent"  # one log weight per datum
    NOISE = "dequantization noise"  # a latent that belongs to the data
    GLOBAL = "global latent"  # outside the data plate
    ENUMERATED = "enumerated latent"  # of the guide, summed out in training and in weights
    SUMMED = "summed out"  # of the model alone
    OBSERVED = "observed"
    FACTOR = "factor"  # a term of the joint density that scores no data
    GUIDE_FACTOR = "factor of the guide"  # a term of the training loss, of no estimate
    AUXILIARY = "auxiliary"  # a draw of the guide that the model's sites are functions of
    DETERMINISTIC = "deterministic"  # a named value without a density


def is_subsample(site: Mapping[str, Any]) -> bool:
    """Whether it is the index of a plate."""
    return isinstance(site["fn"], _Subsample)


def is_factor(site: Mapping[str, Any]) -> bool:
    """Whether it is a `pyro.factor`."""
    return isinstance(site["fn"], Unit)


def is_deterministic(site: Mapping[str, Any]) -> bool:
    """Whether it is a `pyro.deterministic`, or a value that a `poutine.reparam` has computed, which Pyro marks less."""
    if (site["infer"] or {}).get("_deterministic"):
        return True
    base = site["fn"]
    while isinstance(base, Independent):
        base = base.base_dist
    if not (site["is_observed"] and isinstance(base, MaskedDistribution)):
        return False
    return base._mask is False and isinstance(base.base_dist, Delta)


def is_auxiliary(site: Mapping[str, Any]) -> bool:
    """Whether it is a draw of which the model knows nothing; a `pyro.factor`, which Pyro marks alike, is none."""
    marked = bool((site["infer"] or {}).get("is_auxiliary"))
    return marked and not site["is_observed"] and not is_factor(site)


def is_enumerated(site: Mapping[str, Any]) -> bool:
    """Whether Pyro's enumerating estimators sum it out."""
    return bool((site["infer"] or {}).get("enumerate"))


def is_summable(site: Mapping[str, Any]) -> bool:
    """Whether it asks to be summed over all its values at once; over a few draws of it is no sum."""
    infer = site["infer"] or {}
    if infer.get("enumerate") != "parallel" or infer.get("num_samples") or site["is_observed"]:
        return False
    return bool(getattr(site["fn"], "has_enumerate_support", False))


def is_drawn(site: Mapping[str, Any]) -> bool:
    """Whether its value is a draw."""
    return not site["is_observed"]


def is_data(site: Mapping[str, Any]) -> bool:
    """Whether its value is data: neither drawn, nor computed by the program."""
    return bool(site["is_observed"]) and not is_factor(site) and not is_deterministic(site)


def plate_scale(site: Site) -> float:
    """N/B of the plates around a site that subsample B of N, which its frames know."""
    scale = 1.0
    for frame in site["cond_indep_stack"]:
        if frame.full_size is not None and frame.size > 0:
            scale = scale * frame.full_size / frame.size
    return scale


def own_scale(site: Site) -> float | Tensor:
    """What the program itself scales a log density by, `poutine.scale`: its scale without N/B of the plates."""
    scale, of_plates = site["scale"], plate_scale(site)
    if isinstance(scale, Tensor):
        return scale / of_plates
    return 1.0 if isclose(scale, of_plates, rel_tol=1e-9) else scale / of_plates


def has_own_scale(site: Site) -> bool:
    """Whether the program itself scales a log density."""
    scale = own_scale(site)
    return isinstance(scale, Tensor) or scale != 1.0
