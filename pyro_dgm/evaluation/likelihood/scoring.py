r"""Log weights of a block of data: the same draws whatever fits in memory, by the programs or by kernels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ...contract import PyroProgram, Site
from ...inference.data.tensors import Batch, split_rows
from ...inference.run.blocks import draw_in_pieces, sizes_of_parts
from ...inference.run.edges import may_be_rounded
from ...inference.run.particles import draw, draw_silently
from ...inference.run.sessions import Session
from ...inference.run.structure import Structure
from ...inference.sites.kinds import is_deterministic
from ...inference.training.compiled.compilation import kind_of
from ...inference.training.compiled.functions import CompiledFunction
from ...inference.training.compiled.options import check_compile
from ...inference.vectorization.modes import ParticleMode
from .weights import Weights

MANY = 400  # parts that are scored before kernels are built: what they save on as many is what they take

Compile = bool | str


class Scoring:
    r"""$\log w^{(k)}_i$ of K draws for each datum of a block, in float64.

    The draws come in parts, whose sizes depend on the numbers of draws and data alone. A part of more than `chunk`
    pairs is drawn at once and scored by the model in pieces. Where sites are summed over, or particles run one at a
    time, it is drawn in pieces too, so that a `chunk` below a part changes the noise.

    Args:
        model: the model, which takes a plate of particles.
        guide: its guide.
        structure: of the pair.
        num: number K of draws; two are enough where all are the same.
        chunk: how many (draw, datum) pairs the model sees at once.
        compile: whether parts that fit are scored by kernels; `"auto"` from the time on when they pay.
    """

    def __init__(
        self,
        model: PyroProgram,
        guide: PyroProgram,
        structure: Structure,
        num: int,
        chunk: int,
        *,
        compile: Compile = False,
    ):
        check_compile(compile)
        self.model, self.guide, self.structure = model, guide, structure
        self.num = min(num, 2) if structure.is_exact else num
        self.chunk = chunk
        self.compile = compile
        self.weigh = Weights.given_globals if structure.has_globals else Weights.of
        self._num_parts = 0
        self._kind: Any = None
        self._kernels: KernelWeights | None = None

    @classmethod
    def of(cls, pair: Session, *, compile: Compile) -> Scoring:
        """That of an open session."""
        programs = pair.model, pair.guide
        return cls(*programs, pair.structure, pair.num, pair.chunk, compile=compile)

    def __call__(self, block: Batch) -> Weights:
        """The weights of a block of data."""
        found: list[Weights] = []
        for size in sizes_of_parts(self.num, len(block[0]), block[0].device):
            if size * len(block[0]) <= self.chunk:
                found.append(self._of_part(block, size))
            else:
                found += self._of_pieces(block, size)
        return Weights.concat(found)

    def by_programs(self, block: Batch, num: int) -> Weights:
        """The weights of a part, by a run of the programs."""
        depth = self.structure.depth
        return self.weigh(
            draw(self.model, self.guide, *block, num=num, depth=depth, sum_guide=True)
        )

    def _of_part(self, block: Batch, num: int) -> Weights:
        kind = (num, *[kind_of(value) for value in block])
        self._num_parts += 1
        if self._num_parts == 1:
            self._kind = kind  # that of nearly all
        if kind != self._kind:
            return self.by_programs(block, num)
        if self._kernels is None and self._is_time():
            self._build(block, num)
        if self._kernels is None:
            return self.by_programs(block, num)
        return self._kernels(block)

    def _is_time(self) -> bool:
        """Whether kernels are to be built now."""
        return bool(self.compile) and (self.compile is True or self._num_parts > MANY)

    def _build(self, block: Batch, num: int) -> None:
        """Build the kernels; `"auto"` goes on without where the programs have none."""
        try:
            self._kernels = KernelWeights(self, block, num)
        except Exception:  # of the user's programs, of the compiler, of a machine that has none
            if self.compile is True:
                raise
            self.compile = False

    def _of_pieces(self, block: Batch, num: int) -> Iterator[Weights]:
        """The weights of a part that does not fit, some draws after the other."""
        structure = self.structure
        rows = len(block[0])
        is_whole = structure.has_globals or structure.fixed_size
        chunk = max(self.chunk, rows) if is_whole else self.chunk
        if structure.particles is not ParticleMode.SINGLE and not structure.summed:
            programs = self.model, self.guide
            for pieces in draw_in_pieces(*programs, block, num, structure.depth, chunk):
                yield Weights.beside([self.weigh(particles) for particles in pieces])
            return
        size = max(1, chunk // rows)
        for start in range(0, num, size):
            parts = split_rows(block, min(rows, chunk))
            yield Weights.beside([self.by_programs(part, min(size, num - start)) for part in parts])


class KernelWeights:
    """The weights of a part as one graph: those of the programs under the same seed, up to rounding.

    A part with a draw whose rounding has to be looked at is scored by the programs, which warn of it.

    Args:
        scoring: by the programs.
        block: data of a part.
        num: its draws.

    Raises:
        ValueError: for programs that read a tensor's value.
    """

    def __init__(self, scoring: Scoring, block: Batch, num: int):
        self.scoring, self.num = scoring, num
        self._sites: dict[str, Site] = {}
        self._masked: list[str] = []
        programs = (scoring.model, scoring.guide)
        self._compiled = CompiledFunction(self._weigh, programs, block)

    def __call__(self, block: Batch) -> Weights:
        """The weights of the next part, of data of the same shapes."""
        states = _random_states(block)
        found = iter(self._compiled(*block))
        if bool(next(found)):
            _restore(states, block)
            return self.scoring.by_programs(block, self.num)
        log_w, kl, rounding, log_mass = [next(found) for _ in range(4)]
        observed = {}
        for name, site in self._sites.items():
            observed[name] = site.copy()
            observed[name]["value"] = next(found)
        for name in self._masked:
            observed[name]["mask"] = next(found)
        return Weights(log_w, kl, rounding, log_mass, observed)

    def _weigh(self, *block: Any) -> list[Tensor]:
        """What a graph is made of: no value is read, and no argument is returned."""
        scoring = self.scoring
        programs = scoring.model, scoring.guide
        depth = scoring.structure.depth
        particles = draw_silently(*programs, block, self.num, depth, sum_guide=True)
        weights = scoring.weigh(particles)
        observed = {n: s for n, s in weights.observed.items() if not is_deterministic(s)}
        masks = {n: s["mask"] for n, s in observed.items() if isinstance(s["mask"], Tensor)}
        self._sites, self._masked = observed, list(masks)
        return [
            may_be_rounded(particles.pair),
            weights.log_w,
            weights.kl,
            weights.rounding,
            weights.log_mass,
            *[site["value"].clone() for site in observed.values()],
            *[mask.clone() for mask in masks.values()],
        ]


def _random_states(block: Batch) -> list[Tensor]:
    """The random states that draws for a block depend on."""
    states = [torch.get_rng_state()]
    if block[0].device.type == "cuda":
        states.append(torch.cuda.get_rng_state(block[0].device))
    return states


def _restore(states: list[Tensor], block: Batch) -> None:
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state(states[1], block[0].device)
