"""The share of a datum in a site's log density, and the refusal where it has none."""

from __future__ import annotations

from torch import Tensor

from ...contract import DATA, Site
from ..sites.kinds import is_factor
from .traces import is_in_plate, log_density


def per_datum(name: str, site: Site) -> Tensor:
    """Log density of a site `(K, N)`, summed over the dims of its further plates; refuses a global site."""
    return sum_over_plates(name, site, log_density(site))


def sum_over_plates(name: str, site: Site, log_p: Tensor) -> Tensor:
    """A site's log density `(K, …, N)`, summed over its further plates: `(K, N)`.

    Raises:
        ValueError: if the site lies outside the data plate.
    """
    if not is_in_plate(site, DATA):
        refuse_shared(name, site)
    return log_p.reshape(log_p.shape[0], -1, log_p.shape[-1]).sum(1)


def refuse_shared(name: str, site: Site) -> None:
    """Refuse a site outside the data plate where a log density of each datum is asked for.

    Raises:
        ValueError: always.
    """
    if is_factor(site):
        raise ValueError(
            f"site '{name}': expected a pyro.factor inside the plate '{DATA}', got one outside, which has no share "
            f"for each datum. Fix: `with data_plate(x):` around pyro.factor('{name}', …), of shape (len(x),)."
        )
    if is_in_plate(site, DATA):
        raise ValueError(
            f"site '{name}': expected a density of each datum, got one of all data: they share a site that is summed "
            "over. Fix: evidence(model, guide, *data), the log weight of all data."
        )
    raise ValueError(
        f"site '{name}': expected a site inside the plate '{DATA}', got a global one, which has no log weight per "
        "datum. Fix: evidence(model, guide, *data), the log weight of all data; or "
        f"pyro.sample('{name}', …) under `with data_plate(x):`."
    )
