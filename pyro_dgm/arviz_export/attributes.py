"""What is known of each group beside its numbers: by what it was made, in which units, of which data and draws."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from .datatree import CONDITIONAL, REFUSAL, SAMPLE, Arrays

if TYPE_CHECKING:
    import xarray

GUIDE = "independent, from the guide q(z | x), unweighted; weights: sample_stats.log_weight"
RESAMPLED = (
    "from the guide q(z | x), resampled with replacement by Pareto-smoothed weights, so draws of p(z | x) as far as "
    "per_datum.khat is below its threshold; not to be weighted again"
)
IN_NATS = ("log_likelihood", CONDITIONAL, "log_prior", "sample_stats")


def origin() -> dict[str, str]:
    """When and by what a group was made: the attributes of the schema, as the converters of ArviZ 0.x and 1.x."""
    import arviz

    own = sys.modules["pyro_dgm"].__version__  # of the code that runs, which need not be installed
    return {
        "created_at": datetime.now(UTC).isoformat(),
        "arviz_version": arviz.__version__,
        "creation_library": "pyro_dgm",
        "creation_library_version": own,
        "creation_library_language": "Python",
        "inference_library": "pyro_dgm",
        "inference_library_version": own,
    }


def with_origin(found: xarray.Dataset, made: Mapping[str, str]) -> xarray.Dataset:
    """A dataset with the attributes of its origin and the dims of its draws, of which its own stay."""
    draws = {"sample_dims": list(SAMPLE)} if set(SAMPLE) <= set(found.dims) else {}
    return found.assign_attrs({**made, **draws, **found.attrs})


def with_units(name: str, found: xarray.Dataset) -> xarray.Dataset:
    """A group whose log densities say that they are in nats."""
    if name in IN_NATS:
        for array in found.values():
            array.attrs["units"] = "nats"
    return found


def notes(
    groups: Mapping[str, Arrays], measure: str, kept: int, total: int, *, resampled: bool
) -> dict[str, dict[str, str]]:
    """What is to be known of each group, as attributes.

    Args:
        groups: the groups.
        measure: of p(x).
        kept: number of data whose draws are kept.
        total: number of data.
        resampled: whether the draws are the guide's, or resampled.
    """
    which = f"{kept} of {total} data, evenly spread"
    if kept == total:
        which = f"all {total} data"
    draws = {"draws": RESAMPLED if resampled else GUIDE}
    of_p = {**draws, "units": "nats", "measure of p": measure}
    refusal = {"loo": REFUSAL} if CONDITIONAL in groups else {}
    of_model = {"draws": "independent, from the model"}
    found = {
        "posterior": draws,
        "posterior_predictive": draws,
        "log_likelihood": {**of_p, **refusal},
        CONDITIONAL: of_p,
        "log_prior": {**draws, "units": "nats"},
        "sample_stats": {**of_p, "log_weight": "lp - log_q"},
        "prior": of_model,
        "prior_predictive": of_model,
    }
    return {name: {**found.get(name, {}), "kept": which} for name in groups}
