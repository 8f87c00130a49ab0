"""The steps of one epoch by graphs and lists that are made once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ...data.batches import Batch
from ...process.distributed import average_gradients, rank_and_world
from ..running import Values
from .compilation import Bound, Compiled, Eager, kind_of
from .graphs import Gradients, Terms
from .updates import Update

Places = list[int | None]


@dataclass(frozen=True)
class Descent:
    r"""$\theta \leftarrow \theta + \Delta(g)$ for the parameters of one optimizer: means over ranks, clipping, update.

    Args:
        update: the optimizer's step, over all parameters that are trained.
        clip: global gradient norm above which gradients are scaled down.
    """

    update: Update
    clip: float | None = None

    def __call__(self, gradients: Gradients, num_data: int) -> None:
        """Move by the gradient of each parameter, a mean over so many data of this rank."""
        if rank_and_world() != (0, 1):
            gradients = self._averaged(gradients, num_data)
        if self.clip is not None:
            clip(gradients, self.clip)
        self.update(gradients)

    def _averaged(self, gradients: Gradients, num_data: int) -> Gradients:
        """Their means over all ranks."""
        parameters = self.update.parameters
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        average_gradients(parameters, num_data)
        return [parameter.grad for parameter in parameters]


class CompiledSteps:
    r"""$\theta \leftarrow \theta - \eta\, \nabla \ell(\theta; x)$ at each call: graph, clipping, update, schedules.

    What a trainer's `step` looks up anew (modules and their modes, the graph of a signature, the lists of the
    optimizer) is looked up at the first batch of an epoch: nothing of it changes before the next. The ragged last batch
    of an epoch runs eager: it is not worth a graph of its own. So does what has none.

    Args:
        compiled, eager: losses and gradients, by graphs and by autograd.
        descents: what moves the parameters, those of each loss by one.
        advance: what moves the schedules of the costs on.
        is_ragged: whether a batch is smaller than the others.
    """

    def __init__(
        self,
        compiled: Compiled,
        eager: Eager,
        descents: Sequence[Descent],
        advance: Sequence[Callable[[], None]],
        is_ragged: Callable[[Batch], bool],
    ):
        self.compiled = compiled
        self.eager = eager
        self.descents = descents
        self.advance = advance
        self.is_ragged = is_ragged
        self._bound: dict[Any, tuple[Bound, list[Places]] | None] = {}

    def __call__(self, batch: Batch) -> Terms | Values:
        """One step; returns the terms before it, none of an empty batch: other ranks alone have one."""
        terms: Terms | Values
        num_data = len(batch[0]) if batch else 0
        found = None if self.is_ragged(batch) else self._graph_of(batch)
        if found is None:
            terms = self.eager.backward(*batch)
            for descent in self.descents:
                descent([p.grad for p in descent.update.parameters], num_data)
        else:
            bound, places = found
            values, gradients = bound(batch)
            terms = Values(bound.names, values)
            for descent, own in zip(self.descents, places, strict=True):
                descent([None if place is None else gradients[place] for place in own], num_data)
        for advance in self.advance:
            advance()
        return terms

    def _graph_of(self, batch: Batch) -> tuple[Bound, list[Places]] | None:
        """The graph for such a batch, and where it has the gradient of each parameter; nowhere for a frozen one."""
        kinds = tuple([kind_of(value) for value in batch])
        if kinds not in self._bound:
            bound = self.compiled.bind(batch)
            self._bound[kinds] = None if bound is None else (bound, self._places(bound))
        return self._bound[kinds]

    def _places(self, bound: Bound) -> list[Places]:
        at = {id(parameter): place for place, parameter in enumerate(bound.trained)}
        return [[at.get(id(p)) for p in descent.update.parameters] for descent in self.descents]


@torch.no_grad()
def clip(gradients: Gradients, limit: float) -> None:
    r"""$g \leftarrow g \min(1, c / \lVert g \rVert)$ in place, as `torch.nn.utils.clip_grad_norm_` does."""
    found = [gradient for gradient in gradients if gradient is not None]
    norm = nn.utils.get_total_norm(found)
    torch._foreach_mul_(found, (limit / (norm + 1e-6)).clamp(max=1.0))
