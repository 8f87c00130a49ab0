"""One run of a pair over all values of its enumerated sites, and the log densities that it gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pyro import poutine
from pyro.poutine.enum_messenger import EnumMessenger
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ...contract import PyroProgram, Site
from ..data.tensors import Batch
from ..run.own_pass import precise, precise_draws
from ..run.traces import PairTrace
from ..sites.kinds import is_data, is_drawn, is_factor
from .contraction import Frames, Placed, Term, contract, difference, negative, pack_site


@dataclass
class Sums:
    """Log densities with the enumerated sites summed out, as `Particles` holds them.

    Attributes:
        log_p: model sites inside the data plate → `(K, N)`; those that depend on a summed site are one entry, by their
            names with commas between.
        log_q: drawn site of the guide → `(K, N)`.
        shared_p, shared_q: the same outside the data plate `(K,)`.
        groups: entry of sites that depend on a summed one → their names.
    """

    log_p: dict[str, Tensor] = field(default_factory=dict)
    log_q: dict[str, Tensor] = field(default_factory=dict)
    shared_p: dict[str, Tensor] = field(default_factory=dict)
    shared_q: dict[str, Tensor] = field(default_factory=dict)
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def add_p(self, names: Sequence[str], placed: Placed) -> None:
        """Note the share of some sites of the model."""
        _add(", ".join(names), placed, self.log_p, self.shared_p)

    def add_group(self, names: Sequence[str], placed: Placed) -> None:
        """Note the share of sites of the model that depend on a summed one."""
        self.groups[", ".join(names)] = tuple(names)
        self.add_p(names, placed)

    def add_q(self, name: str, placed: Placed) -> None:
        """Note the share of a site of the guide."""
        _add(name, placed, self.log_q, self.shared_q)


def _add(key: str, placed: Placed, local: dict[str, Tensor], shared: dict[str, Tensor]) -> None:
    for value, found in zip(placed, (local, shared), strict=True):
        if value is not None:
            found[key] = value


def enumerated_run(
    model: PyroProgram, guide: PyroProgram | Trace, batch: Batch, first: int
) -> PairTrace:
    """Run the pair over all values of its enumerated sites, in dims to the left of all plates, as Pyro does.

    Args:
        model: a Pyro program.
        guide: its guide, whose enumerated sites are summed as well; or a run of it, whose draws are kept.
        batch: their arguments.
        first: the first dim that no plate takes, counted from the right.
    """
    if isinstance(guide, Trace):
        drawn, over_model = guide, EnumMessenger(first_available_dim=first)
    else:
        over_guide = EnumMessenger(first_available_dim=first)
        drawn = poutine.trace(precise_draws(over_guide(guide))).get_trace(*batch)
        over_model = EnumMessenger()  # it goes on with the dims behind the guide's
    replayed = poutine.replay(over_model(model), trace=drawn)
    return PairTrace(drawn, poutine.trace(precise(replayed)).get_trace(*batch))


def kept_draws(values: Mapping[str, Tensor], like: Trace) -> Trace:
    """A run of a guide as one that other values were drawn in."""
    trace = like.copy()
    for name, value in values.items():
        site = trace.nodes[name]
        trace.nodes[name] = {**site, "value": value, "infer": {}}
    return trace


def sum_out(run: PairTrace, *, of_guide: bool) -> Sums:
    r"""$\log \sum_c p(x, z, c)$ of a run over all c; $\log \sum_c p(x, z_c, c) / q(z_c \mid c)$ of a guide's own c.

    The draws $z_c$ that depend on a site that the guide enumerates are weighed inside of the sum, so that their
    density is part of `log_p`.

    Args:
        run: see `enumerated_run`.
        of_guide: whether the guide was run over all values of its sites, too.
    """
    symbols = {}
    if of_guide:
        run.guide.symbolize_dims()
        symbols = run.guide.plate_to_symbol
    run.model.symbolize_dims(symbols)
    scored = run.scored if of_guide else {}
    sites = [*run.joint.values(), *scored.values()]
    frames = Frames.of(run.model.plate_to_symbol, sites)
    summed = {s["infer"]["_enumerate_symbol"] for s in sites if _is_summed(s)}
    factors = _Factors(frames, summed)
    for name, site in run.joint.items():
        factors.add_of_model(name, site, pack_site(name, site, run.model))
    for name, site in scored.items():
        if not _is_summed(
            site
        ):  # else its own density is left out: its values are summed, not drawn
            in_model = name in run.joint
            factors.add_of_guide(name, pack_site(name, site, run.guide), in_model=in_model)
    return factors.sum()


class _Factors:
    """The densities of a run: those that depend on a summed site wait for the sum, the others are taken as they are.

    Args:
        frames: the plates of the run.
        summed: symbols of the dims that are summed over.
    """

    def __init__(self, frames: Frames, summed: set[str]):
        self.frames = frames
        self.summed = summed
        self.sums = Sums()
        self.of_latents = _Terms()
        self.of_data = _Terms()

    def add_of_model(self, name: str, site: Site, term: Term) -> None:
        if not term.touches(self.summed):
            self.sums.add_p([name], contract([term], set(), self.frames))
        elif is_data(site) or is_factor(site):
            self.of_data.add(term, name)
        else:
            self.of_latents.add(term, None if _is_summed(site) else name)

    def add_of_guide(self, name: str, term: Term, *, in_model: bool) -> None:
        if term.touches(self.summed):
            self.of_latents.add(negative(term), None if in_model else name)
        else:
            self.sums.add_q(name, contract([term], set(), self.frames))

    def sum(self) -> Sums:
        r"""$\log \sum_c p(z, c)$ of the latents, and what the data add to it."""
        prior: Placed = (None, None)  # the values of the summed sites alone have the sum 1
        if self.of_latents.names:
            prior = contract(self.of_latents.terms, self.summed, self.frames)
            self.sums.add_group(self.of_latents.names, prior)
        if self.of_data.names:
            terms = [*self.of_latents.terms, *self.of_data.terms]
            whole = contract(terms, self.summed, self.frames)
            self.sums.add_group(self.of_data.names, difference(whole, prior))
        return self.sums


class _Terms:
    """Terms of a sum, and the names of those of its sites that are not summed over."""

    def __init__(self) -> None:
        self.terms: list[Term] = []
        self.names: list[str] = []

    def add(self, term: Term, name: str | None) -> None:
        self.terms.append(term)
        if name is not None:
            self.names.append(name)


def _is_summed(site: Site) -> bool:
    return is_drawn(site) and "_enumerate_dim" in (site["infer"] or {})
