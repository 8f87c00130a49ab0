"""The cost of one site, as a loss has it and as an estimate has it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ...contract import Site
from ..run.traces import plate_scaled_sum, scaled_sum
from ..sites.kinds import has_own_scale


@dataclass(frozen=True, eq=False)
class Cost:
    """A site's share of a bound, summed over batch and particles; one number for each dim with floors of their own.

    Attributes:
        term: its name among the terms.
        site: name of the site.
        scaled: with the site's whole scale, a `poutine.scale` of the program among it: what a loss has.
        plain: with N/B of the plates alone: what `nelbo` has.
        is_scaled: whether the two differ.
    """

    term: str
    site: str
    scaled: Tensor
    plain: Tensor
    is_scaled: bool

    @classmethod
    def of(cls, term: str, name: str, site: Site, cost: Tensor, keep: int = 0) -> Cost:
        """The sums of a site's costs `(*plates)`, of which the last dims may be kept."""
        scaled = scaled_sum(site, cost, keep)
        if not has_own_scale(site):
            return cls(term, name, scaled, scaled, False)
        return cls(term, name, scaled, plate_scaled_sum(site, cost, keep), True)

    def minus(self, other: Cost) -> Cost:
        """Their difference."""
        scaled = self.scaled - other.scaled
        is_scaled = self.is_scaled or other.is_scaled
        plain = self.plain - other.plain if is_scaled else scaled
        return Cost(self.term, self.site, scaled, plain, is_scaled)
