"""Whole-program compilation: programs, costs and gradients as one graph, one kernel schedule for all of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from ...data.batches import Batch
from ...objectives.losses import Costs
from ...process.autocast import autocast_networks
from ...process.states import fork_every_rng, fork_rng
from .graphs import (
    Gradients,
    Graph,
    State,
    Terms,
    TermsOf,
    capture,
    copy_tensors,
    detach,
    first_names,
    tensors_of,
    value_and_grad,
)
from .kernels import kernels_of, script_of


def _say_nothing(stage: str) -> None:
    """Announce nothing."""


class Eager:
    r"""$(\ell, \nabla \ell)$ by autograd: `backward` returns the terms and leaves the gradients in `.grad`.

    Args:
        costs: what to differentiate, such as an objective.
        autocast: dtype of its networks' matrix products, see `autocast_networks`.
    """

    def __init__(self, costs: Costs, autocast: torch.dtype | None = None):
        self.costs = costs
        self.autocast = autocast

    def backward(self, *batch: Any) -> Terms:
        """Terms of a batch, none of an empty one; in the parameters of each loss its gradient replaces `.grad`."""
        losses = self.costs.losses
        for loss in losses:
            for parameter in loss.part.parameters():
                parameter.grad = None
        if not batch:
            return {}
        with autocast_networks(self.costs, self.autocast):
            terms = self.costs.terms(*batch)
            for loss in losses:
                own = None  # of a loss of all parameters, those that ran for the first time among them
                if loss.part is not self.costs:
                    own = [p for p in loss.part.parameters() if p.requires_grad]
                loss.of(terms).backward(inputs=own, retain_graph=loss is not losses[-1])
        return detach(terms)


class Compiled:
    r"""$(\ell, \nabla \ell)$ as one compiled graph: the same distribution as eager, other kernels.

    Pyro's handlers and autograd run while the graph is captured, and never again. Parameters and buffers (schedules
    among them) are inputs of the graph. One graph is kept per signature: shapes, dtypes and devices of the batch, modes
    of the modules, and which parameters require gradients, so that frozen or replaced parts are noticed.

    A graph is proved before it is used: under one seed its terms and every gradient must equal those of the program.
    Kernels draw their noise from other streams than eager torch, so a compiled run agrees with an eager one in
    distribution, not draw by draw.

    Args:
        costs: what to compile, such as an objective.
        mode: a mode of `torch.compile`, such as `"reduce-overhead"` (CUDA graphs) or `"max-autotune"`.
        announce: told what it is doing while a graph is built, which takes seconds to a minute; nothing afterwards.
        fall_back: told the error where a signature has no graph; its gradients then come by autograd, with the noise
            and the numbers of `Eager`. It is found before the first step, and takes no random number.
        autocast: dtype of its networks' matrix products, see `autocast_networks`.

    Raises:
        ValueError: when the program reads a tensor's value, or draws numbers outside torch, and nothing falls back.
    """

    def __init__(
        self,
        costs: Costs,
        mode: str | None = None,
        announce: Callable[[str], None] = _say_nothing,
        fall_back: Callable[[Exception], None] | None = None,
        autocast: torch.dtype | None = None,
    ):
        self.costs = costs
        self.mode = mode
        self.announce = announce
        self.fall_back = fall_back
        self._module = TermsOf(costs, autocast)
        self._eager = Eager(costs, autocast)
        self._graphs: dict[tuple[Any, ...], Graph | None] = {}

    def backward(self, *batch: Any) -> Terms:
        """Terms of this batch; in the parameters of each loss its gradient replaces what `.grad` held."""
        graph = self.bind(batch)
        if graph is None:
            return self._eager.backward(*batch)
        values, gradients = graph(batch)
        for parameter, gradient in zip(graph.trained, gradients, strict=True):
            parameter.grad = gradient
        return dict(zip(graph.names, values.unbind(), strict=True))

    def bind(self, batch: Batch) -> Bound | None:
        """The graph of such a batch on the tensors that the modules hold now; built at first, `None` without one."""
        modules, tensors = contents(self._module)
        own = self._minimizing()
        trained = [t for t in tensors if t.requires_grad and (own is None or id(t) in own)]
        held = {id(t) for t in trained}
        fixed = [t for t in tensors if id(t) not in held]
        signature = (modules, tuple(kind_of(x) for x in (*tensors, *batch)))
        if signature not in self._graphs:
            self._graphs[signature] = self._find(trained, fixed, batch)
        graph = self._graphs[signature]
        return None if graph is None else Bound(graph, trained, fixed, self.mode)

    def _minimizing(self) -> set[int] | None:
        """Ids of the tensors of those parts that minimize something; `None` for all."""
        own: set[int] = set()
        for loss in self.costs.losses:
            if loss.part is self.costs:
                return None
            own.update(map(id, contents(loss.part)[1]))
        return own

    def _find(self, trained: list[Tensor], fixed: list[Tensor], batch: Batch) -> Graph | None:
        """The graph of a signature; `None` where there is none and another way is left."""
        try:
            with fork_every_rng(*trained, *fixed, *batch):
                self.costs.refuse_graph(*batch)
                return self._build(trained, fixed, batch)
        except Exception as error:  # of the program, of the compiler, of a machine that has none
            self.announce("")
            if self.fall_back is None:
                raise
            self.fall_back(error)
            return None

    def _build(self, trained: list[Tensor], fixed: list[Tensor], batch: Batch) -> Graph:
        """Capture the program as it is now, prove the graph, and turn it into kernels."""
        names = first_names(self._module)
        trained_state = {names[id(t)]: t for t in trained}
        fixed_state = {names[id(t)]: t for t in fixed}
        self.announce("compiling: one graph of the program")
        graph = capture(self._module, trained_state, fixed_state, batch)
        size = graph.size
        inputs = [*trained_state.values(), *fixed_state.values(), *tensors_of(batch)]
        is_loop = graph.is_loop(trained_state, self.mode)
        if is_loop:
            self.announce(f"compiling: {size:,} operations become a script")
            # A script is made by a run, which writes to its buffers.
            own = [*trained_state.values(), *copy_tensors(fixed_state).values()]
            script = script_of(graph.function, [*own, *tensors_of(batch)])
            graph = replace(graph, function=script)
        self.announce(f"compiling: {size:,} operations are compared with the program")
        _prove(graph, self._module, trained_state, fixed_state, batch)
        if not is_loop:
            self.announce(f"compiling: {size:,} operations become kernels")
            graph = replace(graph, function=kernels_of(graph.function, inputs, self.mode))
        graph = graph.with_own_gradients(trained_state, fixed_state, batch)
        self.announce("")
        return graph


class Bound:
    """A graph with its tensors, for the steps of an epoch, in which no module and no parameter is replaced.

    Args:
        graph: of terms and gradients.
        trained, fixed: the tensors it stands on, besides the batch.
        mode: of the compiler.

    Attributes:
        names: of the terms.
    """

    def __init__(self, graph: Graph, trained: list[Tensor], fixed: list[Tensor], mode: str | None):
        self.graph = graph
        self.trained = trained
        self.names = [*graph.terms]
        self._tensors = [*trained, *fixed]
        self._mode = mode

    @torch.no_grad()
    def __call__(self, batch: Batch) -> tuple[Tensor, Gradients]:
        """All terms as one tensor, and the gradient of each trained tensor."""
        if not self._mode:
            return self.graph.run(self._tensors, batch)
        # With CUDA graphs the outputs live in memory that the next step writes over. The mark
        # says that this step has begun; the terms are copied, since the loop keeps them.
        torch.compiler.cudagraph_mark_step_begin()
        values, gradients = self.graph.run(self._tensors, batch)
        return values.clone(), gradients


def _prove(graph: Graph, module: TermsOf, trained: State, fixed: State, batch: Batch) -> None:
    """Run program and graph under one seed, and refuse a graph that gives other terms or gradients.

    The seed is always the same: a drawn one would shift the noise of a resumed run. Buffers stay as they were.
    """
    found = []
    for step in (value_and_grad(module), graph):
        with pyro.validation_enabled(False), fork_rng(*trained.values(), *batch, seed=0):
            terms, gradients = step(trained, copy_tensors(fixed), batch)
            found.append({**terms, **gradients})
    program, repeated = found
    name = first_difference(program, repeated)
    if name is not None:
        raise ValueError(
            "compile: expected the graph to repeat the program under one seed, but "
            f"'{name}' differs. Numbers drawn or changed outside torch (numpy, random, Python "
            "attributes) are burnt into a graph. Fix: draw with torch, keep what changes in "
            "buffers, or run eager with compile=False."
        )


def first_difference(expected: State, found: State) -> str | None:
    """The name of the first tensor that differs by more than the rounding of other kernels."""
    for name, value in expected.items():
        # Of the whole tensor, not of each entry: kernels may sum in any order.
        difference = (value - found[name]).nan_to_num().norm()
        tolerance = 1e-3 * value.nan_to_num().norm() + 1e-6
        if bool(difference > tolerance):
            return name
    return None


def contents(root: nn.Module) -> tuple[tuple[Any, ...], list[Tensor]]:
    """Every module with its mode, and every parameter and buffer once, in a fixed order.

    It is called at each step, and so reads the modules' own dicts: `named_modules` and `named_parameters` build names
    and sets that nobody needs here, and would cost a tenth of a small step.
    """
    modules: list[Any] = []
    tensors: dict[int, Tensor] = {}
    stack = [root]
    while stack:
        module = stack.pop()
        # The modules themselves: an id would be used again after a replaced module is gone.
        modules += (module, module.training)
        for group in (module._parameters, module._buffers):
            tensors.update((id(t), t) for t in group.values() if t is not None)
        stack += [m for m in module._modules.values() if m is not None]
    return tuple(modules), [*tensors.values()]


def kind_of(x: Any) -> Any:
    """What a graph depends on of one of its inputs; of a number, the number itself."""
    if isinstance(x, Tensor):
        return x.shape, x.dtype, x.device, x.requires_grad
    if isinstance(x, dict):
        return tuple((name, kind_of(value)) for name, value in x.items())
    return x
