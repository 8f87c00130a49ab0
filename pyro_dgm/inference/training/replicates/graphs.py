"""One step of several runs as one graph: that of one run, over a further dimension of every tensor."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import pyro
import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import make_fx

from ...data.batches import Batch
from ...objectives.elbo import Objective
from ...process.states import fork_rng, named_tensors
from ..compiled.compilation import first_difference
from ..compiled.graphs import (
    Gradients,
    State,
    TermsOf,
    capture,
    copy_tensors,
    tensors_of,
    value_and_grad,
)
from ..compiled.kernels import kernels_of, script_of
from ..compiled.options import FallBack, mode_of
from .noise import Apart, split_noise

Rows = list[Tensor]


@dataclass(frozen=True)
class StackedGraph:
    r"""$(\ell_s, \nabla_{\theta_s} \ell_s)$ of runs $s = 1, …, n$, each from its own weights, batch and noise.

    Attributes:
        function: maps (trained, fixed, batches, noise), each with a first dimension of n, to (terms `(n, T)`,
            gradients).
        draw: the noise of one run, from torch's own generator: as many draws, in the same order, as its program makes.
        terms: names of the terms.
        used: for each trained tensor, whether it has a gradient.
    """

    function: Any
    draw: Callable[[], Sequence[Tensor]]
    terms: tuple[str, ...]
    used: tuple[bool, ...]

    @torch.no_grad()
    def __call__(
        self, state: Sequence[Tensor], batches: Sequence[Tensor], noise: Sequence[Tensor]
    ) -> tuple[Tensor, Gradients]:
        """All terms as one tensor, `(n, T)`, and the gradients of each trained tensor, `None` without any."""
        values, *found = self.function(*state, *batches, *noise)
        gradients = iter(found)
        return values, [next(gradients) if used else None for used in self.used]


class Structure:
    """The tensors of an objective by name: those that are trained, and those that are not.

    Args:
        objective: of one run.
    """

    def __init__(self, objective: Objective):
        self.module = TermsOf(objective)
        self.trained: dict[str, nn.Parameter] = {}
        self.fixed: State = {}
        seen = set()
        for name, tensor in named_tensors(self.module):
            if id(tensor) not in seen:
                seen.add(id(tensor))
                group: dict[str, Any] = self.trained if tensor.requires_grad else self.fixed
                group[name] = tensor

    @property
    def tensors(self) -> list[Tensor]:
        """All of them, the trained ones first."""
        return [*self.trained.values(), *self.fixed.values()]

    @property
    def kinds(self) -> list[Any]:
        """Names, shapes and dtypes: what must be the same in all runs."""
        named = [*self.trained.items(), *self.fixed.items()]
        return [(name, tuple(t.shape), t.dtype, t.requires_grad) for name, t in named]


def stacked_graph(
    structures: Sequence[Structure],
    batches: Sequence[Batch],
    num: int,
    *,
    compile: bool | str,
    announce: Callable[[str], None],
    fall_back: FallBack | None = None,
) -> StackedGraph | None:
    """The graph of `num` runs, proved for each of all; `None` where no such graph is.

    Args:
        structures: of all runs.
        batches: one for each.
        num: how many runs the graph takes at once.
        compile: whether it becomes kernels, or the name of a mode.
        announce: told what it is doing.
        fall_back: told why it becomes no kernels, and runs as it is; `None` where it must.

    Raises:
        ValueError: if the programs of two runs differ in more than their weights.
    """
    announce("seeds: one graph of the program")
    first = structures[0]
    try:
        graph = capture(first.module, dict(first.trained), first.fixed, batches[0])
    except ValueError:  # it reads a value
        return None
    inputs = [*first.tensors, *tensors_of(batches[0])]
    with fork_rng(*inputs), pyro.validation_enabled(False):
        apart = split_noise(graph.function, inputs)
    if apart is None:
        return None
    joined = _joined(structures[:num], batches[:num], apart)
    function = _over_runs(apart.function, joined)
    if function is None:
        return None
    found = StackedGraph(function, apart.draw, graph.terms, graph.used)
    announce("seeds: the graph is compared with each program")
    for start in range(0, len(structures), num):
        rows = slice(start, start + num)
        _prove(found, structures[rows], batches[rows])
    if compile:
        announce("seeds: the graph becomes kernels")
        mode = mode_of(compile)
        is_loop = graph.is_loop(dict(first.trained), mode)
        kernels = _kernels(function, joined, mode, fall_back, is_loop=is_loop)
        found = replace(found, function=kernels)
    announce("")
    return found


def _kernels(
    function: fx.GraphModule,
    joined: Rows,
    mode: str | None,
    fall_back: FallBack | None,
    *,
    is_loop: bool,
) -> Any:
    """What runs a graph; the graph itself where there is nothing else and none is asked for."""
    try:
        if is_loop:
            return script_of(function, joined)
        return kernels_of(deepcopy(function), joined, mode)
    except Exception as error:  # of the compiler, of a machine that has none
        if fall_back is None:
            raise
        fall_back(error)
        return function


def _joined(structures: Sequence[Structure], batches: Sequence[Batch], apart: Apart) -> Rows:
    """All inputs of the runs, with a first dimension."""
    of_runs = []
    for structure, batch in zip(structures, batches, strict=True):
        tensors = [*structure.tensors, *tensors_of(batch)]
        with fork_rng(*tensors, seed=0):
            of_runs.append([*tensors, *apart.draw()])
    return [torch.stack([t.detach() for t in column]) for column in zip(*of_runs, strict=True)]


def _over_runs(graph: fx.GraphModule, joined: Sequence[Tensor]) -> fx.GraphModule | None:
    """The graph over a first dimension; `None` where an operation knows no such thing.

    What writes in place into a tensor that all runs share needs the graph without such writes; torch makes that of
    most graphs, and not of all.
    """
    for one in (graph, torch.func.functionalize(graph)):
        found = _traced(torch.vmap(one), [tensor.clone() for tensor in joined])
        if found is not None:
            return found
    return None


def _traced(
    function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor]
) -> fx.GraphModule | None:
    def contiguous(*tensors: Tensor) -> list[Tensor]:
        # In the order of the stacked parameters' memory, which is all that a fused update reads.
        return [value.contiguous() for value in function(*tensors)]

    with torch.no_grad(), pyro.validation_enabled(False), warnings.catch_warnings():
        warnings.simplefilter("error")  # of an operation that is taken run by run
        try:
            return make_fx(contiguous)(*inputs)
        except (RuntimeError, UserWarning, NotImplementedError):
            return None


def _prove(graph: StackedGraph, structures: Sequence[Structure], batches: Sequence[Batch]) -> None:
    """Refuse a graph that gives one of the runs other terms or gradients than its program, under one noise."""
    tensors = [structure.tensors for structure in structures]
    state = [torch.stack([t.detach() for t in column]) for column in zip(*tensors, strict=True)]
    data = [torch.stack(column) for column in zip(*map(tensors_of, batches), strict=True)]
    draws = []
    for structure in structures:
        with fork_rng(*structure.tensors, seed=0):
            draws.append(graph.draw())
    noise = [torch.stack(column) for column in zip(*draws, strict=True)]
    values, gradients = graph(state, data, noise)
    for row, (structure, batch) in enumerate(zip(structures, batches, strict=True)):
        step = value_and_grad(structure.module)
        with pyro.validation_enabled(False), fork_rng(*structure.tensors, seed=0):
            terms, expected = step(dict(structure.trained), copy_tensors(structure.fixed), batch)
        found = dict(zip(graph.terms, values[row].unbind(), strict=True))
        for name, gradient in zip(structure.trained, gradients, strict=True):
            if gradient is not None:
                found[name] = gradient[row]
        differing = first_difference({**terms, **expected}, found)
        if differing is not None:
            raise ValueError(
                f"seeds: expected programs that differ in their weights alone, but '{differing}' of one is "
                "not what the program of the first gives with its weights. Numbers drawn or changed outside torch "
                "(numpy, random, Python attributes) are burnt into a graph. Fix: a build() that gives the same "
                "program for every seed."
            )
