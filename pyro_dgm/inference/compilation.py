"""Whole-program compilation: a pair, its objective and its gradient as one graph, one kernel schedule for all of it."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx

from .objectives import Objective
from .traces import isolated

Terms = dict[str, Tensor]
State = dict[str, Tensor]
Step = Callable[[State, State, tuple], tuple[Terms, State]]


class Eager:
    r"""$(\ell, \nabla \ell)$ by autograd: `backward` returns the terms and leaves the gradients in `.grad`."""

    def __init__(self, objective: Objective):
        self.objective = objective

    def backward(self, *batch: Any) -> Terms:
        """Terms of the objective on this batch; gradients are added to `.grad`."""
        terms = self.objective.terms(*batch)
        terms["loss"].backward()
        return {name: value.detach() for name, value in terms.items()}


class Compiled:
    r"""$(\ell, \nabla \ell)$ as one compiled graph: the same law as eager, other kernels.

    Pyro's handlers and autograd run while the graph is captured, and never again. Parameters and buffers (schedules
    among them) are inputs of the graph. One graph is kept per signature: shapes, dtypes and devices of the batch, modes
    of the modules, and which parameters require gradients, so that frozen or replaced parts are noticed.

    A graph is proved before it is used: under one seed its terms and every gradient must equal those of the program.
    Kernels draw their noise from other streams than eager torch, so a compiled run agrees in law, not draw by draw.

    Args:
        objective: what to compile.
        mode: a mode of `torch.compile`, such as `"reduce-overhead"` (CUDA graphs) or `"max-autotune"`.

    Raises:
        ValueError: when the program reads a tensor's value, or draws numbers outside torch.
    """

    def __init__(self, objective: Objective, mode: str | None = None):
        self.objective, self.mode = objective, mode
        self._wrapped = _Terms(objective)
        self._graphs: dict[tuple, Step] = {}

    def backward(self, *batch: Any) -> Terms:
        """Terms of the objective on this batch; gradients replace what `.grad` held."""
        trained, fixed = self._state()
        key = self._signature(trained, fixed, batch)
        if key not in self._graphs:
            graph = capture(self._wrapped, trained, fixed, batch)
            self._prove(graph, trained, fixed, batch)
            self._graphs[key] = torch.compile(graph, mode=self.mode, dynamic=False)
        # The first torch.compile of a process switches torch's validation off for good: give it back.
        with torch.no_grad(), pyro.validation_enabled(False):
            terms, gradients = self._graphs[key](trained, fixed, batch)
        for name, parameter in trained.items():
            parameter.grad = gradients.get(name)
        return terms

    def _state(self) -> tuple[State, State]:
        parameters: State = dict(self._wrapped.named_parameters())
        trained = {name: p for name, p in parameters.items() if p.requires_grad}
        frozen = {name: p for name, p in parameters.items() if not p.requires_grad}
        return trained, {**frozen, **dict(self._wrapped.named_buffers())}

    def _signature(self, trained: State, fixed: State, batch: tuple) -> tuple:
        def kind(x: Any) -> Any:
            return (x.shape, x.dtype, x.device) if isinstance(x, Tensor) else x

        # The modules themselves: an id would be used again after a replaced module is gone.
        modes = tuple((m, m.training) for m in self._wrapped.modules())
        names = tuple(trained), tuple(fixed)
        return names, tuple(kind(x) for x in (*trained.values(), *fixed.values(), *batch)), modes

    def _prove(self, graph: Step, trained: State, fixed: State, batch: tuple) -> None:
        seed = 0  # a drawn one would shift the noise of a resumed run, which captures again
        step = value_and_grad(self._wrapped)
        (terms, gradients), (terms_, gradients_) = (_under(seed, f, trained, fixed, batch) for f in (step, graph))
        for name, value in {**terms, **gradients}.items():
            if not torch.allclose(value, {**terms_, **gradients_}[name], rtol=1e-4, atol=1e-6, equal_nan=True):
                raise ValueError(
                    f"compile: expected the graph to repeat the program under one seed, but '{name}' differs. Numbers "
                    "drawn or changed outside torch (numpy, random, Python attributes) are burnt into a graph. "
                    "Fix: draw with torch, keep what changes in buffers, or run eager with compile=False."
                )


class _Terms(nn.Module):
    """Gives an objective's `terms` to `functional_call`."""

    def __init__(self, objective: Objective):
        super().__init__()
        self.objective = objective

    def forward(self, *batch: Any) -> Terms:
        return self.objective.terms(*batch)


class _LastSite(Messenger):
    """Remembers the last sample statement, to say where a capture stopped."""

    name: str | None = None

    def _pyro_post_sample(self, msg: dict) -> None:
        self.name = msg["name"]


def value_and_grad(module: nn.Module) -> Step:
    """The function `(trained, fixed, batch) -> (terms, gradients)` of a module that returns terms."""

    def step(trained: State, fixed: State, batch: tuple) -> tuple[Terms, State]:
        leaves = {name: p.detach().requires_grad_() for name, p in trained.items()}
        with torch.enable_grad():
            terms = functional_call(module, {**leaves, **fixed}, batch)
        found = torch.autograd.grad(terms["loss"], list(leaves.values()), allow_unused=True)
        gradients = {name: g for name, g in zip(leaves, found, strict=True) if g is not None}
        return {name: value.detach() for name, value in terms.items()}, gradients

    return step


def capture(module: nn.Module, trained: State, fixed: State, batch: tuple) -> Step:
    """`value_and_grad(module)` as one graph; raises where the program reads a tensor's value."""
    last = _LastSite()
    with pyro.validation_enabled(False), isolated(*batch), last:
        try:
            return make_fx(value_and_grad(module))(trained, _copies(fixed), batch)
        except Exception as error:
            where = f"after site '{last.name}'" if last.name else "before its first site"
            raise ValueError(
                f"compile: the program can't be traced into one graph; it stops {where}, {_line(error)}: {error}\n"
                "A program that branches on a tensor's value (if, float(), .item(), .tolist()) has no single graph. "
                "Fix: torch.where in place of the branch, or run eager with compile=False."
            ) from error


def _under(seed: int, step: Step, trained: State, fixed: State, batch: tuple) -> tuple[Terms, State]:
    """One evaluation under a seed that leaves random state and buffers as they were."""
    with pyro.validation_enabled(False), isolated(*trained.values(), *batch, seed=seed):
        return step(trained, _copies(fixed), batch)


def _copies(state: State) -> State:
    return {name: t.detach().clone() for name, t in state.items()}


def _line(error: BaseException) -> str:
    """The innermost line of the user's own code in a traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not any(part in f.filename for part in ("/torch/", "/pyro/", "/pyro_dgm/inference/"))]
    return f"at {own[-1].filename}:{own[-1].lineno} `{own[-1].line}`" if own else "inside a library"
