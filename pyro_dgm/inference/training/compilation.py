"""Whole-program compilation: a pair, its objective and its gradient as one graph, one kernel schedule for all of it."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyro
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx

from ..objectives.elbo import Objective
from ..run.states import fork_rng, named_tensors

Terms = dict[str, Tensor]
State = dict[str, Tensor]


class Eager:
    r"""$(\ell, \nabla \ell)$ by autograd: `backward` returns the terms and leaves the gradients in `.grad`."""

    def __init__(self, objective: Objective):
        self.objective = objective

    def backward(self, *batch: Any) -> Terms:
        """Terms of the objective on this batch; gradients replace what `.grad` held."""
        for parameter in self.objective.parameters():
            parameter.grad = None
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
        self._graphs: dict[tuple, Graph] = {}

    def backward(self, *batch: Any) -> Terms:
        """Terms of the objective on this batch; gradients replace what `.grad` held."""
        modules, tensors = _contents(self._wrapped)
        trained = [t for t in tensors if t.requires_grad]
        fixed = [t for t in tensors if not t.requires_grad]
        key = (modules, tuple(_kind(x) for x in (*tensors, *batch)))
        if key not in self._graphs:
            self._graphs[key] = self._built(trained, fixed, batch)
        if self.mode:  # CUDA graphs may write over the outputs of the last step from here on
            torch.compiler.cudagraph_mark_step_begin()
        with torch.no_grad():
            terms, gradients = self._graphs[key].run(trained, fixed, batch)
        if self.mode:
            terms = {name: value.clone() for name, value in terms.items()}
        for parameter, gradient in zip(trained, gradients, strict=True):
            parameter.grad = gradient
        return terms

    def _built(self, trained: list[Tensor], fixed: list[Tensor], batch: tuple) -> Graph:
        names = {id(t): name for name, t in reversed([*named_tensors(self._wrapped)])}
        states = {names[id(t)]: t for t in trained}, {names[id(t)]: t for t in fixed}
        graph = capture(self._wrapped, *states, batch)
        _prove(graph, self._wrapped, *states, batch)
        return graph.compiled(*states, batch, self.mode)


@dataclass(frozen=True)
class Graph:
    """One evaluation of terms and gradients on flat lists of tensors.

    Attributes:
        function: maps (trained, fixed and batch tensors) to (terms, gradients), all flat.
        terms: names of the terms.
        used: for each trained tensor, whether it has a gradient.
    """

    function: Any
    terms: tuple[str, ...]
    used: tuple[bool, ...]

    def run(
        self, trained: Sequence[Tensor], fixed: Sequence[Tensor], batch: tuple
    ) -> tuple[Terms, list[Tensor | None]]:
        """Terms, and the gradient of each trained tensor, `None` where the loss does not depend on it."""
        found = iter(self.function(*trained, *fixed, *_tensors(batch)))
        terms = {name: next(found) for name in self.terms}
        return terms, [next(found) if used else None for used in self.used]

    def __call__(self, trained: State, fixed: State, batch: tuple) -> tuple[Terms, State]:
        """The same with names: what `value_and_grad` returns."""
        terms, gradients = self.run([*trained.values()], [*fixed.values()], batch)
        return terms, {name: g for name, g in zip(trained, gradients, strict=True) if g is not None}

    def compiled(self, trained: State, fixed: State, batch: tuple, mode: str | None) -> Graph:
        """The same graph as kernels."""
        from torch import _inductor as inductor  # a second of imports, and only here needed

        options = inductor.list_mode_options(mode) if mode else None
        example: list[Any] = [*trained.values(), *fixed.values(), *_tensors(batch)]
        # Inductor takes the graph as it is: through torch.compile its guards alone would cost a tenth of a small step.
        with torch.no_grad(), pyro.validation_enabled(False), warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message=".*torch._prims_common.check", category=FutureWarning
            )  # its own
            return replace(self, function=inductor.compile(self.function, example, options=options))


def _prove(graph: Graph, module: nn.Module, trained: State, fixed: State, batch: tuple) -> None:
    """Run program and graph under one seed, always the same: a drawn one would shift the noise of a resumed run."""
    (terms, gradients), (terms_, gradients_) = (
        _under(0, f, trained, fixed, batch) for f in (value_and_grad(module), graph)
    )
    program, repeated = {**terms, **gradients}, {**terms_, **gradients_}
    for name, value in program.items():
        difference = (
            (value - repeated[name]).nan_to_num().norm()
        )  # of the whole tensor: kernels may sum in any order
        if bool(difference > 1e-3 * value.nan_to_num().norm() + 1e-6):
            raise ValueError(
                f"compile: expected the graph to repeat the program under one seed, but '{name}' differs. Numbers "
                "drawn or changed outside torch (numpy, random, Python attributes) are burnt into a graph. "
                "Fix: draw with torch, keep what changes in buffers, or run eager with compile=False."
            )


def _contents(root: nn.Module) -> tuple[tuple, list[Tensor]]:
    """Every module with its mode, and every parameter and buffer once, in a fixed order; called at each step."""
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


def _kind(x: Any) -> Any:
    return (x.shape, x.dtype, x.device, x.requires_grad) if isinstance(x, Tensor) else x


def _tensors(batch: tuple) -> list[Tensor]:
    return [b for b in batch if isinstance(b, Tensor)]


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


def value_and_grad(module: nn.Module) -> Callable[[State, State, tuple], tuple[Terms, State]]:
    """The function `(trained, fixed, batch) -> (terms, gradients)` of a module that returns terms."""
    places: dict[int, list[str]] = {}
    for name, tensor in named_tensors(module):
        places.setdefault(id(tensor), []).append(name)
    ties = {names[0]: names for names in places.values()}

    def step(trained: State, fixed: State, batch: tuple) -> tuple[Terms, State]:
        leaves = {name: p.detach().requires_grad_() for name, p in trained.items()}
        tensors = {place: t for name, t in {**leaves, **fixed}.items() for place in ties[name]}
        with torch.enable_grad():
            terms = functional_call(module, tensors, batch, tie_weights=False)
        found = torch.autograd.grad(terms["loss"], list(leaves.values()), allow_unused=True)
        gradients = {
            name: _laid_out(g, leaves[name])
            for name, g in zip(leaves, found, strict=True)
            if g is not None
        }
        return {name: value.detach() for name, value in terms.items()}, gradients

    return step


def _laid_out(gradient: Tensor, parameter: Tensor) -> Tensor:
    """In the memory order of the parameter, as autograd leaves it in `.grad`.

    Gradients of convolutions may come with channels last. Fused Adam on a CPU reads both tensors in the order of their
    memory, without a look at strides, and would move each weight by the gradient of another.
    """
    same = gradient.stride() == parameter.stride()
    return gradient if same else torch.empty_like(parameter).copy_(gradient)


def capture(module: nn.Module, trained: State, fixed: State, batch: tuple) -> Graph:
    """`value_and_grad(module)` as one graph; raises where the program reads a tensor's value."""
    step = value_and_grad(module)
    found: dict[str, Any] = {}

    def flat(*tensors: Tensor) -> list[Tensor]:
        values = iter(tensors)
        states = {n: next(values) for n in trained}, {n: next(values) for n in fixed}
        terms, gradients = step(
            *states, tuple(next(values) if isinstance(b, Tensor) else b for b in batch)
        )
        found.update(terms=tuple(terms), used=tuple(name in gradients for name in trained))
        return [*terms.values(), *gradients.values()]

    last = _LastSite()
    with pyro.validation_enabled(False), fork_rng(*batch), last:
        try:
            graph = make_fx(flat)(*trained.values(), *_copies(fixed).values(), *_tensors(batch))
        except Exception as error:
            where = f"after site '{last.name}'" if last.name else "before its first site"
            raise ValueError(
                f"compile: the program can't be traced into one graph; it stops {where}, {_line(error)}: {error}\n"
                "A program that branches on a tensor's value (if, float(), .item(), .tolist()) has no single graph. "
                "Fix: torch.where in place of the branch, or run eager with compile=False."
            ) from error
    return Graph(graph, **found)


def _under(
    seed: int, step: Callable, trained: State, fixed: State, batch: tuple
) -> tuple[Terms, State]:
    """One evaluation under a seed that leaves random state and buffers as they were."""
    with pyro.validation_enabled(False), fork_rng(*trained.values(), *batch, seed=seed):
        return step(trained, _copies(fixed), batch)


def _copies(state: State) -> State:
    return {name: t.detach().clone() for name, t in state.items()}


def _line(error: BaseException) -> str:
    """The innermost line of the user's own code in a traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [
        f
        for f in frames
        if not any(part in f.filename for part in ("/torch/", "/pyro/", "/pyro_dgm/inference/"))
    ]
    return f"at {own[-1].filename}:{own[-1].lineno} `{own[-1].line}`" if own else "inside a library"
