"""Blocks of draws and data that have a noise of their own, and their pieces, which share it.

An estimate is to be the same number however much memory it may take. So the noise is cut first, into blocks whose sizes
depend on the number of draws alone. A budget of memory below a block only decides in how many pieces the model scores
what the guide has drawn for all of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ...contract import DATA, PyroProgram, Site
from ..data.tensors import Batch, take_rows
from ..process.ambient import TURN
from ..process.states import check_seed, derive_seed
from ..sites.kinds import is_drawn
from .edges import warn_of_rounding
from .own_pass import precise, precise_draws
from .particles import Particles, by_place
from .traces import PairTrace, is_in_plate, plate_value, sites_of, vectorized

ON_A_CPU = 2_000  # (draw, datum) pairs of a block: what they take fits in its caches
ON_A_GPU = 20_000  # which waits for the launches of fewer


def pairs_of_block(device: torch.device) -> int:
    """How many pairs of a draw and a datum a block holds at most, on such a device."""
    return ON_A_CPU if device.type == "cpu" else ON_A_GPU


def rows_of_block(num: int, device: torch.device) -> int:
    """How many data a block holds, of K draws each.

    Example:
        >>> rows_of_block(10, torch.device("cpu")), rows_of_block(10_000, torch.device("cpu"))
        (200, 1)
    """
    return max(1, pairs_of_block(device) // num)


def sizes_of_parts(num: int, rows: int, device: torch.device) -> list[int]:
    """In how many draws each, one part after the other, K draws for each of some data are drawn.

    Example:
        >>> sizes_of_parts(5_000, 1, torch.device("cpu"))
        [2000, 2000, 1000]
    """
    size = max(1, pairs_of_block(device) // rows)
    return [min(size, int(num) - start) for start in range(0, int(num), size)]


def seeded(blocks: Iterable[Batch], seed: int) -> Iterator[Batch]:
    """The blocks, at the beginning of whose use the random state is a function of the seed and their number alone.

    That of the first is the state of the seed itself: what fits in one block is drawn as by `draw` under the seed.
    """
    for number, block in enumerate(blocks):
        torch.manual_seed(derive_seed(seed, number) if number else check_seed(seed))
        yield block


@dataclass(frozen=True)
class _Piece:
    """Some draws of some data among those of a block."""

    draws: slice
    rows: slice

    def of_density(self, log_p: Tensor) -> Tensor:
        """Its part of a log density `(K, N)`, or `(K,)` of what all data share."""
        return log_p[self.draws, self.rows] if log_p.dim() > 1 else log_p[self.draws]

    def of_value(self, site: Site, value: Tensor) -> Tensor:
        """Its part of the values `(K, …, N, *event)` of a site, which may have no dim of data."""
        value = value[self.draws]
        if not is_in_plate(site, DATA):
            return value
        dim = value.dim() - len(site["fn"].event_shape) - 1
        return value.movedim(dim, 0)[self.rows].movedim(0, dim)

    def of_trace(self, trace: Trace) -> Trace:
        """Its part of what a guide has drawn, by distributions that stay whole, and without the plates' indices."""
        part = Trace()
        for name, site in sites_of(trace).items():
            node = site.copy()
            if is_drawn(site):
                node["value"] = self.of_value(site, site["value"])
            part.add_node(name, **node)
        return part


def draw_in_pieces(
    model: PyroProgram, guide: PyroProgram, batch: Batch, num: int, depth: int, chunk: int
) -> Iterator[list[Particles]]:
    """The very draws of `draw`, made by the guide at once and scored by the model in pieces.

    The programs take a plate of particles, and no site is summed over. What comes out are the pieces of the data, one
    list after the other of more draws.

    Args:
        model: a Pyro program.
        guide: its guide, which scores its draws from the pass that made them.
        batch: their arguments.
        num: number K of draws.
        depth: number of plates of the programs.
        chunk: how many (draw, datum) pairs the model sees at once.
    """
    with TURN.taken():
        drawn = poutine.trace(precise_draws(vectorized(guide, num, depth))).get_trace(*batch)
    whole = PairTrace(drawn, drawn)
    log_q = by_place(whole.scored)
    for pieces in _pieces(num, len(batch[0]), chunk):
        yield [_scored(model, batch, depth, whole, log_q, piece) for piece in pieces]


def _pieces(num: int, rows: int, chunk: int) -> Iterator[list[_Piece]]:
    """Pieces of at most `chunk` pairs: all data of some draws, or a part of the data of one draw after the other."""
    size, width = max(1, chunk // rows), min(rows, chunk)
    for start in range(0, num, size):
        draws = slice(start, min(start + size, num))
        yield [_Piece(draws, slice(row, row + width)) for row in range(0, rows, width)]


def _scored(
    model: PyroProgram,
    batch: Batch,
    depth: int,
    whole: PairTrace,
    log_q: tuple[dict[str, Tensor], dict[str, Tensor]],
    piece: _Piece,
) -> Particles:
    """A piece of the draws, scored by the model."""
    guide = piece.of_trace(whole.guide)
    num = piece.draws.stop - piece.draws.start
    program = poutine.replay(vectorized(model, num, depth), trace=guide)
    with TURN.taken():
        trace = poutine.trace(precise(program)).get_trace(*take_rows(batch, piece.rows))
    pair = PairTrace(guide, trace)
    warn_of_rounding(PairTrace(whole.guide, trace), piece.of_value)
    values = {name: plate_value(site) for name, site in pair.latent.items()}
    inside, outside = [
        {name: piece.of_density(value) for name, value in found.items()} for found in log_q
    ]
    log_p, shared_p = by_place(pair.joint)
    return Particles(values, log_p, inside, pair, shared_p, outside)
