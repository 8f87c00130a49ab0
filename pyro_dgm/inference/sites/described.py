"""What is known of the sites of a run, one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from ...contract import DATA, Site, noise_name
from ..run.traces import PairTrace, is_in_plate, plate_names
from .kinds import Kind
from .supports import innermost


@dataclass(frozen=True)
class SiteInfo:
    """What is known of one site.

    Attributes:
        name: of the site.
        kind: what it is to an estimate, see `kinds`.
        plates: names of the plates around it, outermost first.
        event_shape: of its distribution.
        distribution: its name, in the model where the model has the site.
    """

    name: str
    kind: Kind
    plates: tuple[str, ...]
    event_shape: tuple[int, ...]
    distribution: str

    @classmethod
    def of(cls, name: str, site: Site, kind: Kind) -> SiteInfo:
        """What a trace says of a site."""
        event_shape = tuple(site["fn"].event_shape)
        family = type(innermost(site["fn"])).__name__
        return cls(name, kind, tuple(plate_names(site)), event_shape, family)


def infos_of(sites: Mapping[str, Site], kind: Kind) -> list[SiteInfo]:
    """What is known of sites of one kind."""
    return [SiteInfo.of(name, site, kind) for name, site in sites.items()]


def latent_infos(pair: PairTrace) -> list[SiteInfo]:
    """What is known of the sites that are drawn, as the model has them."""
    noise = {noise_name(name) for name in pair.observed}
    found = []
    for name, drawn in pair.latent.items():
        site = pair.modelled.get(name, drawn)
        kind = Kind.NOISE if name in noise else Kind.LATENT
        if name in pair.enumerated:
            kind = Kind.ENUMERATED
        if not is_in_plate(site, DATA):
            kind = Kind.GLOBAL
        found.append(SiteInfo.of(name, site, kind))
    return found


def names_of_numbers(name: str, shape: Sequence[int]) -> list[str]:
    """Names of the numbers of a site, by their index; a site of one number has the site's own.

    Example:
        >>> names_of_numbers("w", [2]), names_of_numbers("tau", [])
        (['w[0]', 'w[1]'], ['tau'])
    """
    if not shape:
        return [name]
    names = []
    for index in product(*map(range, shape)):
        names.append(f"{name}[{', '.join(map(str, index))}]")
    return names
