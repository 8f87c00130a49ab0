"""The one door of every estimate, export and check: programs, data, random state and structure in one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from itertools import chain
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from ...contract import PyroProgram
from ...display.progress import watched
from ..adoption.plates import prepare
from ..adoption.programs import as_module
from ..data.arguments import arguments_of
from ..data.batches import Batches
from ..data.extremes import extreme_batch
from ..data.forms import (
    as_tensors,
    check_observation_argument,
    is_beyond_budget,
    is_stream,
    read_whole,
)
from ..data.reading import ROWS as READ_AT_ONCE
from ..data.reading import place_data as place_data
from ..data.reading import read_stream
from ..data.stored import is_stored
from ..data.tensors import Batch, concat_rows, is_array, rebatch, split_rows, take_rows, to_device
from ..process.states import device_of, evaluation_mode, fork_rng
from ..vectorization.modes import Meaning, meaning_of, meaning_of_generated, refuse_mixing
from .blocks import rows_of_block, seeded
from .one_program import structure_of_guide, structure_of_model
from .pair_checks import check_pair as check_pair
from .pair_checks import check_program as check_program
from .pair_checks import check_programs, refuse_one, require_positive
from .pair_checks import is_program as is_program
from .particles import Particles, draw
from .structure import Structure, structure_of


class Session:
    """A pair of programs, or one of them, and the data it is asked about, in evaluation mode on a fork of the noise.

    `session` opens it; nothing else is needed inside. What it holds:

    Attributes:
        model: the model; `None` where an estimate needs none.
        guide: its guide; `None` where an estimate needs none.
        num: draws K per datum.
        chunk: how many (draw, datum) pairs are in memory at once.
        seed: of the draws.
        is_stream: whether the data are read in blocks: a loader, a dataset, a list of batches, or stored rows.
        is_stored: whether they are rows of a memory map, of an array on disk or of a sparse matrix, too many for the
            memory of a block.
    """

    def __init__(
        self,
        model: PyroProgram | None,
        guide: PyroProgram | None,
        batch: Batch,
        num: int,
        chunk: int,
        seed: int,
    ):
        self._model, self._guide = as_module(model), as_module(guide)
        self.num, self.chunk, self.seed = num, chunk, seed
        self.is_stored = bool(batch) and batch[0] is not None and is_beyond_budget(batch)
        if self.is_stored:  # read a block at a time
            batch = (Batches(batch, READ_AT_ONCE),)
        self.is_stream = self.is_stored or (is_stream(batch[0]) if batch else False)
        if batch and isinstance(batch[0], Iterator):  # it can be read once
            batch = (list(batch[0]), *batch[1:])
        self._source = batch

    @property
    def model(self) -> PyroProgram:
        """The model, which means the same inside a plate of particles."""
        if self._model is None:
            refuse_one("guide", self._guide, "vae.model, vae.guide")
        return self.meaning.particles.adopt(self.programs[0])

    @property
    def guide(self) -> PyroProgram:
        """The guide, as one that means the same inside a plate of particles."""
        if self._guide is None:
            fix = "vae.model, vae.guide, or EmptyGuide() for a model without latents"
            refuse_one("model", self._model, fix)
        return self.meaning.particles.adopt(self.programs[1])

    @cached_property
    def programs(self) -> tuple[Any, Any]:
        """Model and guide as they were given, ready to run, with their data plate by its name."""
        if self._source[0] is None:
            return self._model, self._guide
        naming = prepare(self._model, self._guide, self.first)
        return naming.adopt(self._model), naming.adopt(self._guide)

    @cached_property
    def device(self) -> torch.device:
        """Where the programs' tensors are."""
        return device_of(self._model, self._guide)

    @cached_property
    def batch(self) -> Batch:
        """All the data as tensors, the observation first; a stream is read whole."""
        return concat_rows(list(self._batches())) if self.is_stream else self._in_memory()

    @property
    def arguments(self) -> list[str]:
        """Names of the model's positional arguments, the observation first."""
        return arguments_of(cast(PyroProgram, self._model))

    @property
    def context(self) -> Batch:
        """The further arguments of the programs."""
        return self.batch[1:]

    def __len__(self) -> int:
        """Number of data."""
        return len(self.batch[0])

    @cached_property
    def structure(self) -> Structure:
        """What a run on the data shows, checked against the contract; its noise is not the session's."""
        with fork_rng(torch.empty(0, device=self.device)):
            return self._checked(self._structure(self.batch))

    @cached_property
    def meaning(self) -> Meaning:
        """What the networks make of particles and data, found on a few of the data."""
        if self._source[0] is None:
            return meaning_of_generated(*self.programs, self.context)
        return meaning_of(*self.programs, self.first)

    @cached_property
    def first(self) -> Batch:
        """The first batch of a stream that is not read whole; all data of another set."""
        is_unread = self.is_stream and "batch" not in vars(self)
        return next(self._batches()) if is_unread else self.batch

    @property
    def few(self) -> Batch:
        """The few data in which a value outside a support shows; all of them where the programs take no fewer."""
        return self.batch if self.structure.fixed_size else extreme_batch(self.batch)

    def blocks(self, num: int | None = None) -> Iterator[Batch]:
        """The data in blocks that hold `chunk` pairs of a draw and a datum; a stream is read as it comes.

        Every block of a stream is checked; of data in memory those are that could be at fault, once. The blocks of a
        loader are those of its concatenation. `num` are the draws per datum; default: the session's.
        """
        yield from self._cut(max(1, self.chunk // (num or self.num)))

    def seeded_blocks(self, name: str = "") -> Iterator[Batch]:
        """The data in blocks of a noise of their own, whatever `chunk` is; a bar has the name before it.

        The size of a block is a function of the number of draws, and the random state at its beginning one of the seed
        and its number: what is drawn for it depends neither on memory nor on who draws for the others.
        """
        yield from seeded(self._cut(rows_of_block(self.num, self.device), name), self.seed)

    def _cut(self, rows: int, name: str = "") -> Iterator[Batch]:
        """The data in blocks of so many, with a bar."""
        if "batch" in vars(self) or not self.is_stream:
            # refuses, before the first block, what can't be scored
            if self.structure.fixed_size or self.structure.has_globals:
                rows = len(self)
            blocks = split_rows(self.batch, rows)
            yield from watched(blocks, -(-len(self) // rows), "block", name)
            return
        yield from watched(self._read(rows), None, "block", name)

    def _read(self, rows: int) -> Iterator[Batch]:
        """The data of a stream in blocks of so many."""
        batches = self._batches()
        first = vars(self)["first"] = next(batches)
        for block in rebatch(chain([first], batches), rows):
            with fork_rng(torch.empty(0, device=self.device)):
                structure = self._structure(block)
            if "meaning" not in vars(self):
                vars(self)["meaning"] = meaning_of(*self.programs, block)
            vars(self).setdefault("structure", self._checked(structure))
            if structure.has_globals:  # which a guide may draw from all data
                yield self.batch
                return
            yield block

    def rows(self, index: slice | Tensor) -> Batch:
        """The arguments at some data."""
        return take_rows(self.batch, index)

    def draw(
        self, block: Batch | None = None, num: int | None = None, *, sum_guide: bool = False
    ) -> Particles:
        """K draws of the guide for every datum of a block, scored by both programs; default: of all data."""
        block = self.batch if block is None else block
        num, depth = num or self.num, self.structure.depth
        return draw(self.model, self.guide, *block, num=num, depth=depth, sum_guide=sum_guide)

    def reseed(self) -> None:
        """Set the random state back to the session's seed: the next estimate draws what it would draw alone."""
        torch.manual_seed(self.seed)

    def _checked(self, structure: Structure) -> Structure:
        """The structure with what the networks make of particles; refuses those that mix the data of a batch."""
        refuse_mixing(self.meaning)
        return structure.meaning(self.meaning)

    def _structure(self, batch: Batch) -> Structure:
        model, guide = self.programs
        if guide is None:
            return structure_of_model(model, batch)
        if model is None:
            return structure_of_guide(guide, batch)
        return structure_of(model, guide, batch)

    def _in_memory(self) -> Batch:
        if self._source and self._source[0] is None:  # the model generates
            return (None, *to_device(as_tensors(self._source[1:]), self.device))
        return to_device(as_tensors(self._source), self.device)

    def _batches(self) -> Iterator[Batch]:
        """The batches of a stream, on the programs' device, checked for NaN."""
        return map(as_tensors, self._unchecked_batches())

    def _unchecked_batches(self) -> Iterator[Batch]:
        program = self._guide if self._model is None else self._model
        return read_stream(self._source[0], program, self.device, self.seed)


@contextmanager
def session(
    model: PyroProgram | None,
    guide: PyroProgram | None,
    *batch: Any,
    num: int = 1,
    chunk: int = 20_000,
    seed: int = 0,
) -> Iterator[Session]:
    """Open a pair and its data for an estimate.

    Both programs are checked for what they are, the data become tensors on the programs' device, modules are in
    evaluation mode without gradients, and the random state is a fork that starts at `seed`: weights, modes, seeds and
    Pyro's validation setting are afterwards what they were.

    Args:
        model: a Pyro program; `None` for an estimate of the guide alone.
        guide: its guide; `None` for an estimate of the model alone.
        batch: the data: tensors, arrays, memory maps or pandas tables with a row per datum, observation first; or one
            Dataset, DataLoader or list of batches.
        num: draws K per datum.
        chunk: how many (draw, datum) pairs are in memory at once.
        seed: of the draws.

    Raises:
        TypeError: for what is no program, or no data.
        ValueError: for counts below 1; when the data are looked at, for what breaks the contract.

    Example:
        >>> import pyro.distributions as dist
        >>> from pyro_dgm import VAE, Bernoulli, Conditional, StandardNormal, mlp
        >>> vae = VAE(StandardNormal(2), Bernoulli(mlp(2, 9)), Conditional(dist.Normal, mlp(9, 4)))
        >>> with session(vae.model, vae.guide, torch.ones(5, 9), num=3) as pair:
        ...     print(pair.structure.latent, pair.draw().log_weight.shape)
        ('z',) torch.Size([3, 5])
    """
    check_programs(model, guide)
    require_positive(num=num, chunk=chunk)
    check_observation_argument(batch)
    model, guide = as_module(model), as_module(guide)  # so that their networks change modes
    with evaluation_mode(model, guide, seed=seed):
        yield Session(model, guide, batch, num, chunk, seed)


def read_data(
    model: PyroProgram | None, guide: PyroProgram | None, *batch: Any, seed: int = 0
) -> Batch:
    """All the data as tensors on the programs' device, whatever their form; NaN and infinity are not refused.

    It is for data with missing values: who knows which they are puts a number in their place, and opens a session.
    Its arguments are those of `session`.

    Raises:
        TypeError: for what is no program, or no data, or for complex data.
    """
    check_programs(model, guide)
    check_observation_argument(batch)
    model, guide = as_module(model), as_module(guide)
    if isinstance(batch[0], TensorDataset):
        batch = batch[0].tensors
    if is_stream(batch[0]):
        return concat_rows(list(Session(model, guide, batch, 1, 1, seed)._unchecked_batches()))
    values = [read_whole(v) if is_stored(v) or is_array(v) else v for v in batch]
    return to_device(tuple(values), device_of(model, guide))
