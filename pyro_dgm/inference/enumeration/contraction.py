r"""Sums over the values of enumerated sites: $\log \sum_c \prod_s p_s$, each datum for itself, inside nested plates."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from pyro.distributions.util import scale_and_mask
from pyro.ops import packed
from pyro.ops.contract import contract_tensor_tree
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ...contract import DATA, PARTICLES, Site
from ...densities.scoring import log_prob_of

Ordinal = frozenset[str]  # symbols of the plates around a site


@dataclass(frozen=True, eq=False)
class Term:
    """One log density of a run with enumerated sites, its dims named by symbols.

    Attributes:
        name: of the site.
        ordinal: symbols of its plates.
        log_p: packed as Pyro's contraction takes it, in float64: `_pyro_dims` names its dims, none is of size 1.
        dtype: of the log density as the program has it, whose rounding it keeps.
    """

    name: str
    ordinal: Ordinal
    log_p: Tensor
    dtype: torch.dtype

    def touches(self, symbols: set[str]) -> bool:
        """Whether it depends on an enumerated site, or is one."""
        return not symbols.isdisjoint(self.log_p._pyro_dims)  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Frames:
    """The plates of a run by the symbols of their dims.

    Attributes:
        sizes: symbol → size.
        data: symbol of the data plate; `None` if there is none.
        particles: symbol of the plate of particles; `None` where each run is one particle.
    """

    sizes: Mapping[str, int]
    data: str | None
    particles: str | None

    @classmethod
    def of(cls, symbols: Mapping[str, str], sites: Sequence[Site]) -> Frames:
        """The plates around some sites.

        Args:
            symbols: name of a plate → symbol.
            sites: all sites of the run.
        """
        sizes = {}
        for site in sites:
            for frame in site["cond_indep_stack"]:
                if frame.vectorized:
                    sizes[symbols[frame.name]] = frame.size
        return cls(sizes, symbols.get(DATA), symbols.get(PARTICLES))

    def place(self, ordinal: Ordinal, term: Tensor) -> Tensor:
        """A packed term, summed over further plates: `(K, N)` inside the data plate, `(K,)` outside.

        Without a plate of particles K is 1.
        """
        kept = [symbol for symbol in (self.particles, self.data) if symbol in ordinal]
        dims = list(term._pyro_dims)  # type: ignore[attr-defined]
        for symbol in ordinal.difference(kept):
            if symbol in dims:
                term = term.sum(dims.index(symbol))
                dims.remove(symbol)
            else:
                term = term * self.sizes[symbol]
        present = [symbol for symbol in kept if symbol in dims]
        term = term.permute([dims.index(symbol) for symbol in present])
        for place, symbol in enumerate(kept):
            if symbol not in present:
                term = term.unsqueeze(place)
        term = term.expand([self.sizes[symbol] for symbol in kept])
        return term if self.particles in ordinal else term[None]


Placed = tuple[Tensor | None, Tensor | None]  # (K, N) inside the data plate, (K,) outside


def pack_site(name: str, site: Site, trace: Trace) -> Term:
    """The log density of a site, in float64, with its dims named; that of an enumerated site is never masked.

    Masked, its values would sum to their number in place of 1.
    """
    log_p = log_prob_of(site["fn"], site["value"], *site["args"], **site["kwargs"])
    if "_enumerate_dim" not in site["infer"]:
        log_p = scale_and_mask(log_p, mask=site["mask"])
    ordinal = frozenset(
        trace.plate_to_symbol[frame.name] for frame in site["cond_indep_stack"] if frame.vectorized
    )
    of_dims = packed.pack(log_p.double(), site["infer"]["_dim_to_symbol"])
    return Term(name, ordinal, of_dims, log_p.dtype)


def negative(term: Term) -> Term:
    """The term of a log density that is divided by."""
    return replace(term, log_p=packed.neg(term.log_p))


def contract(terms: Sequence[Term], symbols: set[str], frames: Frames) -> Placed:
    r"""$\log \sum_c \prod_s p_s$ over the values of all enumerated sites, inside the data plate and outside.

    Sums are taken in float64; a log density of each datum is of the dtype of the coarsest factor, which says how it is
    rounded.

    Args:
        terms: the factors.
        symbols: of the dims that are summed over.
        frames: the plates.
    """
    tree: OrderedDict[Ordinal, list[Tensor]] = OrderedDict()
    for term in terms:
        tree.setdefault(term.ordinal, []).append(term.log_p)
    coarsest = max([term.dtype for term in terms], key=lambda dtype: torch.finfo(dtype).eps)
    inside: Tensor | None = None
    outside: Tensor | None = None
    for ordinal, factors in contract_tensor_tree(tree, set(symbols)).items():
        for factor in factors:
            placed = frames.place(ordinal, factor)
            if frames.data in ordinal:
                inside = placed if inside is None else inside + placed
            else:
                outside = placed if outside is None else outside + placed
    return None if inside is None else inside.to(coarsest), outside


def difference(whole: Placed, part: Placed) -> Placed:
    """What is left of the sums of all factors without those of some."""
    inside, outside = [_minus(one, other) for one, other in zip(whole, part, strict=True)]
    return inside, outside


def _minus(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    if other is None:
        return one
    return -other if one is None else torch.sub(one, other)
