"""The steps of several runs side by side: each draws its own batch and noise, all are computed by one call."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from math import inf
from typing import Any

import torch
from torch import Tensor

from ...data.batches import Batch
from ..compiled.compilation import kind_of
from ..compiled.graphs import Gradients, Terms, tensors_of
from ..compiled.updates import Update
from ..driving import TakeStep
from ..running import Values
from ..svi import SVITrainer
from ..trainer import Trainer
from .graphs import StackedGraph, Structure
from .stacks import Moments, Stack, are_alike


@dataclass(frozen=True)
class Asked:
    """What one run has ready for its step, drawn from its own random state.

    Attributes:
        tensors: of the batch and the noise, as a graph takes them; none where the run has done without.
        terms: else, those of the batch.
        gradients: else, those of each trained tensor.
    """

    tensors: Sequence[Tensor] = ()
    terms: Terms | Values | None = None
    gradients: Gradients = ()  # type: ignore[assignment]


class SideBySide(ABC):
    """Takes the steps of several runs; abstract. A subclass gives `epoch`, `ask`, `step` and `leave`."""

    @abstractmethod
    def epoch(self) -> AbstractContextManager[None]:
        """Around the steps of an epoch."""

    @abstractmethod
    def ask(self, row: int, batch: Batch) -> Asked:
        """What run `row` needs for its step; called while the random state is its own."""

    @abstractmethod
    def step(self, asked: Mapping[int, Asked]) -> Mapping[int, Terms | Values]:
        """One step of each run that has asked for one; returns the terms before it."""

    @abstractmethod
    def leave(self, row: int) -> None:
        """Run `row` takes no further step."""


class OwnSteps(SideBySide):
    """Each run takes its steps itself: where no graph holds several.

    Args:
        trainers: of the runs.
    """

    def __init__(self, trainers: Sequence[Trainer]):
        self.trainers = trainers
        self.steps: list[TakeStep] = []

    @contextmanager
    def epoch(self) -> Iterator[None]:  # noqa: D102
        with ExitStack() as stack:
            self.steps = [stack.enter_context(t.watched_steps()) for t in self.trainers]
            yield

    def ask(self, row: int, batch: Batch) -> Asked:  # noqa: D102
        return Asked(terms=self.steps[row](batch))

    def step(self, asked: Mapping[int, Asked]) -> Mapping[int, Terms | Values]:  # noqa: D102
        return {row: own.terms for row, own in asked.items() if own.terms is not None}

    def leave(self, row: int) -> None:
        """Nothing is shared."""


class Group(SideBySide):
    r"""$\theta_s \leftarrow \theta_s - \eta\, \nabla \ell(\theta_s; x_s, \varepsilon_s)$ of several runs s by one call.

    Args:
        trainers: of these runs.
        structures: of their objectives.
        graph: over as many.
        batch: one that the graph takes.
    """

    def __init__(
        self,
        trainers: Sequence[SVITrainer],
        structures: Sequence[Structure],
        graph: StackedGraph,
        batch: Batch,
    ):
        self.trainers = trainers
        self.structures = structures
        self.graph = graph
        self.kinds = kinds_of(batch)
        self.num_inputs = len(tensors_of(batch))
        self.left: set[int] = set()
        columns = zip(*[structure.tensors for structure in self.structures], strict=True)
        self.stack = Stack([*columns], self.left)
        self.num_trained = len(self.structures[0].trained)
        self.moments: Moments | None = None
        self.update: Update | None = None
        self.advance: list[list[Callable[[], None]]] = []
        self._has_moved = False
        self._epoch = ExitStack()

    @property
    def active(self) -> list[int]:
        """Rows of the runs that go on."""
        return [row for row in range(len(self.trainers)) if row not in self.left]

    @contextmanager
    def epoch(self) -> Iterator[None]:  # noqa: D102
        self.stack.join()
        self.advance = []
        for trainer in self.trainers:
            schedules = trainer.objective.schedules()
            self.advance.append([schedule.advance for schedule in schedules])
        self._has_moved = False
        with self._epoch:
            self._join_moments()
            try:
                yield
            finally:
                self.moments, self.update = None, None

    def _join_moments(self) -> None:
        """Bring the moments together where one update does for all."""
        rows = self.active
        optimizers = [self.trainers[row].optimizer for row in rows]
        own = [[*self.structures[row].trained.values()] for row in rows]
        if not rows or not are_alike(optimizers, own):
            return
        everything = [trainer.optimizer for trainer in self.trainers]
        columns = [*zip(*[s.trained.values() for s in self.structures], strict=True)]
        stacked = self.stack.tensors[: self.num_trained]
        self.moments = Moments(everything, columns, stacked, self.left)
        self._epoch.callback(self.moments.share_counts)
        update = Update(self.moments.optimizer, self.moments.stacked)
        self.update = self._epoch.enter_context(update.bound())

    def leave(self, row: int) -> None:  # noqa: D102
        self.stack.leave(row)
        if self.moments is not None:
            self.moments.leave(row)
        self.left.add(row)

    def ask(self, row: int, batch: Batch) -> Asked:  # noqa: D102
        if kinds_of(batch) == self.kinds:
            return Asked([*tensors_of(batch), *self.graph.draw()])
        trainer = self.trainers[row]
        with trainer.watched():
            terms = trainer.eager.backward(*batch)
        return Asked((), terms, [p.grad for p in self.structures[row].trained.values()])

    def step(self, asked: Mapping[int, Asked]) -> Mapping[int, Terms | Values]:  # noqa: D102
        terms: dict[int, Terms | Values] = {}
        gradients: Gradients = [None] * self.num_trained
        by_graph = [row for row, own in asked.items() if own.terms is None]
        if by_graph:
            names = [*self.graph.terms]
            values, gradients = self.graph(self.stack.tensors, *self._inputs(asked, by_graph[0]))
            for row in by_graph:
                terms[row] = Values(names, values[row])
        for row, own in asked.items():
            if own.terms is not None:
                terms[row] = own.terms
                self._put(gradients, row, own.gradients)
        self._move([*asked], gradients)
        return terms

    def _inputs(self, asked: Mapping[int, Asked], some: int) -> tuple[list[Tensor], list[Tensor]]:
        """Batches and noise of all runs; a run without takes those of another, and nobody reads what comes of it."""
        of_runs = []
        for row in range(len(self.trainers)):
            own = asked[row].tensors if row in asked else ()
            of_runs.append(own or asked[some].tensors)
        columns = [torch.stack(column) for column in zip(*of_runs, strict=True)]
        return columns[: self.num_inputs], columns[self.num_inputs :]

    def _put(self, gradients: Gradients, row: int, own: Gradients) -> None:
        """Set a run's rows of the gradients."""
        for k, gradient in enumerate(own):
            joint = gradients[k]
            if joint is None:
                if gradient is None:
                    continue
                joint = gradients[k] = torch.zeros_like(self.stack.tensors[k])
            joint[row] = 0.0 if gradient is None else gradient

    def _move(self, rows: Sequence[int], gradients: Gradients) -> None:
        """Clipping, update and schedules."""
        limits = [self.trainers[row].clip for row in range(len(self.trainers))]
        if any(limit is not None for limit in limits):
            clip_rows(gradients, [inf if limit is None else limit for limit in limits])
        if self.update is None:
            self._move_apart(rows, gradients)
        else:
            is_first = not self.update.is_bound
            self.update(gradients)
            if is_first and self.moments is not None:
                self.moments.share_counts()
        for row in rows:
            for advance in self.advance[row]:
                advance()

    def _move_apart(self, rows: Sequence[int], gradients: Gradients) -> None:
        """Each run by its own optimizer: any optimizer of torch, and the first step of all."""
        for row in rows:
            for parameter, gradient in zip(
                self.structures[row].trained.values(), gradients, strict=True
            ):
                parameter.grad = None if gradient is None else gradient[row]
            self.trainers[row].optimizer.step()
        if not self._has_moved:  # there were no moments before the first step of all
            self._join_moments()
        self._has_moved = True


class Groups(SideBySide):
    """Several groups, one after the other: where all runs at once would not stay in the memory that is near.

    Args:
        groups: of equal size.
    """

    def __init__(self, groups: Sequence[Group]):
        self.groups = groups
        self.size = len(groups[0].trainers)

    @contextmanager
    def epoch(self) -> Iterator[None]:  # noqa: D102
        with ExitStack() as stack:
            for group in self.groups:
                stack.enter_context(group.epoch())
            yield

    def ask(self, row: int, batch: Batch) -> Asked:  # noqa: D102
        group, own = divmod(row, self.size)
        return self.groups[group].ask(own, batch)

    def step(self, asked: Mapping[int, Asked]) -> Mapping[int, Terms | Values]:  # noqa: D102
        terms: dict[int, Terms | Values] = {}
        for number, group in enumerate(self.groups):
            first = number * self.size
            own = {row - first: one for row, one in asked.items() if row // self.size == number}
            if own:
                terms.update({first + row: value for row, value in group.step(own).items()})
        return terms

    def leave(self, row: int) -> None:  # noqa: D102
        group, own = divmod(row, self.size)
        self.groups[group].leave(own)


@torch.no_grad()
def clip_rows(gradients: Gradients, limits: Sequence[float]) -> None:
    r"""$g_s \leftarrow g_s \min(1, c_s / \lVert g_s \rVert)$ in place, for each run s."""
    found = [gradient for gradient in gradients if gradient is not None]
    norms = torch.stack([gradient.reshape(len(limits), -1).norm(dim=1) for gradient in found])
    factors = (norms.new_tensor(limits) / (norms.norm(dim=0) + 1e-6)).clamp(max=1.0)
    for gradient in found:
        gradient.mul_(factors.view(-1, *[1] * (gradient.dim() - 1)))


def kinds_of(batch: Batch) -> tuple[Any, ...]:
    """What a graph depends on of a batch."""
    return tuple([kind_of(value) for value in batch])
