"""A pair on data that its model makes: the latents they came from, and draws of the guide for each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyro
import torch
from torch import Tensor

from ...contract import Site
from ...inference.data.tensors import Batch, has_rows, take_rows
from ...inference.drawing.simulation import (
    log_joint,
    run_without_data,
    simulate,
    site_draws,
    sites_given,
)
from ...inference.process.states import derive_seed, fork_rng
from ...inference.run.explain import run_or_explain
from ...inference.run.particles import Particles, draw
from ...inference.run.rules import check_sites
from ...inference.run.sessions import Session
from ...inference.run.shares import per_datum
from ...inference.run.structure import Structure
from ...inference.run.traces import PairTrace, plate_depth
from ...inference.sites.described import names_of_numbers
from .ranks import TIE


@dataclass(frozen=True)
class SimulatedBlock:
    r"""$z^* \sim p(z)$, $x \sim p(x \mid z^*)$, and L draws $z_l \sim q(z \mid x)$ of N data.

    Attributes:
        x: the data `(N, *event)`.
        truth: $z^*$, the numbers of all sites side by side `(N, D)`, float64.
        draws: $z_l$ `(L, N, D)`, float64.
        log_p: $\log p(x, z^*)$ `(N,)`.
        log_p_of_draws: $\log p(x, z_l)$ `(L, N)`.
        log_q: $\log q(z^* \mid x)$ `(N,)`; `None` for a guide that can't score what it has not drawn.
        log_q_of_draws: $\log q(z_l \mid x)$ `(L, N)`.
        rounding: relative error of these numbers: the coarsest of the programs' dtypes.
    """

    x: Tensor
    truth: Tensor
    draws: Tensor
    log_p: Tensor
    log_p_of_draws: Tensor
    log_q: Tensor | None
    log_q_of_draws: Tensor
    rounding: float

    @property
    def margin(self) -> float:
        """How close, relative to the truth, is a tie: discrete latents tie up to rounding."""
        return TIE * self.rounding


@dataclass(frozen=True)
class SimulatedPair:
    """A pair on data that its model makes.

    Attributes:
        pair: the open session, of the prior.
        example: a run on one such datum.
        codes: names of the latent sites that are ranked.
        scores: whether the guide scores latents that it has not drawn.
    """

    pair: Session
    example: PairTrace
    codes: tuple[str, ...]
    scores: bool

    @classmethod
    def of(cls, pair: Session, verb: str) -> SimulatedPair:
        """Run the pair on one datum of its own and check it; refuses a pair without latents.

        Args:
            pair: the open session, of the prior.
            verb: name of the verb that asks, for its error.
        """
        x, example = _run_on_own_datum(pair)
        check_sites(example)
        structure = Structure.of(example)
        if not structure.codes:
            raise ValueError(
                f"{verb}: expected a guide with latent sites, got {list(example.latent)}. "
                "Fix: nll(model, guide, x) scores such a model."
            )
        if structure.globals:
            raise ValueError(
                f"{verb}: expected latents of each datum, got {list(structure.globals)}, which all data share: one "
                "datum tells little of them. Fix: vsbc(model, fit, like=x), which simulates whole sets and fits a "
                "guide to each; of a guide that answers any set, fit=lambda *data: guide."
            )
        scores = not example.auxiliary and not structure.points and _scores(pair, x, example)
        return cls(pair, example, structure.codes, scores)

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the D numbers of the latent sites."""
        names = []
        for code in self.codes:
            names += dims_of(code, self.example.latent[code])
        return tuple(names)

    def blocks(self, num_data: int) -> Iterator[SimulatedBlock]:
        """Simulated data in blocks that hold `chunk` pairs of a draw and a datum.

        What is done with a block has a random state of its own: all that read a simulation see the same draws.
        """
        size = max(1, self.pair.chunk // self.pair.num)
        for start, rows in enumerate(torch.arange(num_data).split(size)):
            block = self._block(rows)
            with fork_rng(block.truth, seed=derive_seed(self.pair.seed, start)):
                yield block

    def _block(self, rows: Tensor) -> SimulatedBlock:
        pair, depth = self.pair, self.example.depth
        context = _repeated_rows(pair.context, rows)
        latent = list(self.example.latent)
        x, truth = simulate(pair.model, len(rows), context, latent, depth)
        batch = (x, *context)
        particles = draw(pair.model, pair.guide, *batch, num=pair.num, depth=depth)
        draws = {name: site_draws(site) for name, site in particles.pair.latent.items()}
        log_q = _log_q(pair, batch, truth, depth) if self.scores else None
        return SimulatedBlock(
            x,
            self._side_by_side(truth, 1),
            self._side_by_side(draws, 2),
            log_joint(pair.model, batch, truth, depth),
            particles.log_joint,
            log_q,
            particles.log_guide,
            _rounding(particles),
        )

    def _side_by_side(self, latents: dict[str, Tensor], num_dims: int) -> Tensor:
        """The numbers of all sites `(*batch, D)`, of a batch of so many dims."""
        numbers = []
        for code in self.codes:
            value = latents[code].double()
            numbers.append(value.reshape(*value.shape[:num_dims], -1))
        return torch.cat(numbers, -1)


def _log_q(pair: Session, batch: Batch, latents: dict[str, Tensor], depth: int) -> Tensor:
    r"""$\log q(z^* \mid x)$ `(N,)`, float64; −∞ where the guide has no density."""
    with pyro.validation_enabled(False):  # the truth may lie outside the guide's support
        sites = sites_given(pair.guide, batch, latents, depth)
    densities = [per_datum(name, sites[name])[0].double() for name in latents]
    return torch.stack(densities).sum(0).nan_to_num(nan=-torch.inf)


def _scores(pair: Session, x: Tensor, example: PairTrace) -> bool:
    """Whether the guide scores draws of the model: a flow may have no way back."""
    context = _repeated_rows(pair.context, torch.arange(1))
    with fork_rng(x):
        x, truth = simulate(pair.model, 1, context, list(example.latent), example.depth)
        try:
            _log_q(pair, (x, *context), truth, example.depth)
        except NotImplementedError:
            return False
    return True


def _run_on_own_datum(pair: Session) -> tuple[Tensor, PairTrace]:
    """One datum that the model makes, and a run of the pair on it; its noise is not the session's."""
    context = _repeated_rows(pair.context, torch.arange(1))
    with fork_rng(torch.empty(0, device=pair.device)):
        trace = run_without_data(pair.model, context, pair.guide)
        x, _ = simulate(pair.model, 1, context, [], plate_depth(trace))
        return x, run_or_explain(pair.model, pair.guide, (x, *context))


def dims_of(name: str, site: Site) -> list[str]:
    """Names of the numbers of one datum of a site, plates first; a site of one number has the site's own."""
    distribution = site["fn"]
    further_plates = distribution.batch_shape[:-1]
    shape = [size for size in further_plates if size > 1]
    shape += distribution.event_shape
    return names_of_numbers(name, shape)


def _repeated_rows(context: Batch, rows: Tensor) -> Batch:
    """The contexts of some data; where data are more than contexts, the contexts start over."""
    lengths = [len(value) for value in context if has_rows(value)]
    num = max(lengths, default=1)
    return take_rows(context, rows % num)


def _rounding(particles: Particles) -> float:
    """The relative error of a number of the programs: the coarsest of their dtypes."""
    dtypes = {log_p.dtype for log_p in particles.log_p.values()}
    return max(torch.finfo(dtype).eps for dtype in dtypes)
