"""Which runs take their steps at once: all whose program is a graph, as many as stay in the memory that is near."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from ...data.batches import Batch
from ..compiled.compilation import contents
from ..compiled.graphs import tensors_of
from ..svi import SVITrainer
from ..trainer import Trainer
from .graphs import StackedGraph, Structure, stacked_graph
from .steps import Group, Groups, OwnSteps, SideBySide, kinds_of

# Weights and batches of the runs that are computed at once on a CPU. Beyond its cache each pass over the stack
# waits for the memory, which one run after the other does not.
NEAR = 2**20


class Choice:
    """What takes the steps of some runs, and how many runs it takes at once; graphs are kept for a further fit.

    Attributes:
        num: how many runs a graph takes, 1 where each takes its own steps; `None` before the first choice.
    """

    def __init__(self) -> None:
        self.num: int | None = None
        self._graphs: dict[Any, StackedGraph | None] = {}

    def steps(
        self,
        trainers: Sequence[Trainer],
        batches: Sequence[Batch],
        announce: Callable[[str], Any],
    ) -> SideBySide:
        """What takes the steps.

        Args:
            trainers: of the runs.
            batches: one for each.
            announce: told what it is doing.
        """
        # In half precision a product over all runs rounds elsewhere than that of each: no graph would be proved.
        own = [t for t in trainers if isinstance(t, SVITrainer) and t.is_plain and not t.autocast]
        kinds = {kinds_of(batch) for batch in batches}
        self.num = 1
        if len(own) < len(trainers) or len(batches) < len(trainers) or len(kinds) > 1:
            return OwnSteps(trainers)
        structures = [Structure(trainer.objective) for trainer in own]
        _check_structures(structures)
        num = num_at_once(structures[0], batches[0], len(own))
        modules, _ = contents(own[0].objective)
        key = (modules, tuple(structures[0].kinds), *kinds, num)
        if key not in self._graphs:
            with own[0].watched():
                self._graphs[key] = stacked_graph(
                    structures,
                    batches,
                    num,
                    compile=own[0].compile,
                    announce=announce,
                    fall_back=own[0].fall_back,
                )
        graph = self._graphs[key]
        if graph is None:
            return OwnSteps(trainers)
        self.num = num
        groups = []
        for start in range(0, len(own), num):
            rows = slice(start, start + num)
            groups.append(Group(own[rows], structures[rows], graph, batches[0]))
        return groups[0] if len(groups) == 1 else Groups(groups)


def num_at_once(structure: Structure, batch: Batch, num: int) -> int:
    """The largest divisor of the number of runs, so that all groups have one graph; all of them on a GPU."""
    tensors = [*structure.tensors, *tensors_of(batch)]
    if any(tensor.device.type != "cpu" for tensor in tensors):
        return num
    limit = max(1, NEAR // sum(map(_num_bytes, tensors)))
    return max(size for size in range(1, num + 1) if num % size == 0 and size <= limit)


def _num_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _check_structures(structures: Sequence[Structure]) -> None:
    """Refuse runs whose modules differ in more than the values of their tensors."""
    first = structures[0].kinds
    for structure in structures[1:]:
        for own, other in zip(structure.kinds, first, strict=False):
            if own != other:
                raise ValueError(
                    f"seeds: expected the same parameters and buffers for every seed, got {own} "
                    f"beside {other}. Fix: a build() that gives the same program for every seed."
                )
        if len(structure.kinds) != len(first):
            raise ValueError(
                f"seeds: expected the same parameters and buffers for every seed, got {len(structure.kinds)} beside "
                f"{len(first)}. Fix: a build() that gives the same program for every seed."
            )
