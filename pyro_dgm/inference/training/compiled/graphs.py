"""Costs and their gradients as a pure function of tensors, and that function as one graph.

How a Pyro program becomes a graph. `value_and_grad` makes the step a function of tensors alone: parameters and buffers
come in as arguments (by `functional_call`), terms and gradients go out. `make_fx` runs this function once on tensors
that record what is done to them. While it does, Pyro's handlers, the plates and autograd all run as Python; what they
leave behind is the list of tensor operations, noise included. This list is the graph: no handler runs again. Whatever
Python decided during that one run (a branch, a number) is decided for good, which is why a program that reads the value
of a tensor is refused here, and why `Compiled` proves a graph before it uses it.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyro
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx

from ...data.batches import Batch
from ...objectives.losses import Costs, Loss
from ...process.autocast import autocast_networks
from ...process.states import fork_rng, named_tensors

LONG = 2_500  # operations: an unrolled deep Markov model has 350 a time step
MANY = 24  # terms, of which every site has one

Terms = dict[str, Tensor]
State = dict[str, Tensor]
Gradients = list[Tensor | None]
Step = Callable[[State, State, Batch], tuple[Terms, State]]


def detach(terms: Terms) -> Terms:
    """The same numbers without their graph."""
    return {name: value.detach() for name, value in terms.items()}


class TermsOf(nn.Module):
    """Costs whose forward returns their terms, as `functional_call` needs it.

    Args:
        costs: whose terms.
        autocast: dtype of its networks' matrix products, see `autocast_networks`.
    """

    def __init__(self, costs: Costs, autocast: torch.dtype | None = None):
        super().__init__()
        self.costs = costs
        self.autocast = autocast

    def forward(self, *batch: Any) -> Terms:
        """The terms."""
        with self.costs.reading_parameters():
            return self.costs.terms(*batch)


@dataclass(frozen=True)
class Graph:
    """One evaluation of terms and gradients on flat lists of tensors.

    Attributes:
        function: maps (trained, fixed and batch tensors) to (all terms as one tensor, gradients), flat.
        terms: names of the terms.
        used: for each trained tensor, whether it has a gradient.
        shared: places of the gradients that lie in the memory of an earlier one, as those of a and b in a + b do.
    """

    function: Any
    terms: tuple[str, ...]
    used: tuple[bool, ...]
    shared: tuple[int, ...] = ()

    def run(self, state: Sequence[Tensor], batch: Batch) -> tuple[Tensor, Gradients]:
        """All terms as one tensor, and the gradient of each trained tensor, `None` where the loss lacks it.

        Args:
            state: the trained and the fixed tensors.
            batch: the arguments of the program.
        """
        values, *found = self.function(*state, *tensors_of(batch))
        for place in self.shared:  # else clipping, which scales in place, would scale it twice
            found[place] = found[place].clone()
        if len(found) == len(self.used):
            return values, found
        gradients = iter(found)
        return values, [next(gradients) if used else None for used in self.used]

    def with_own_gradients(self, trained: State, fixed: State, batch: Batch) -> Graph:
        """The same graph, once it is known from a run which gradients share their memory."""
        inputs = [*trained.values(), *copy_tensors(fixed).values(), *tensors_of(batch)]
        with torch.no_grad(), fork_rng(*inputs):
            _, *found = self.function(*inputs)
        seen: set[int] = set()
        shared = []
        for place, gradient in enumerate(found):
            address = gradient.untyped_storage().data_ptr()
            if address in seen:
                shared.append(place)
            seen.add(address)
        return replace(self, shared=tuple(shared))

    def __call__(self, trained: State, fixed: State, batch: Batch) -> tuple[Terms, State]:
        """The same with names: what `value_and_grad` returns."""
        values, found = self.run([*trained.values(), *fixed.values()], batch)
        terms = dict(zip(self.terms, values.unbind(), strict=True))
        gradients = {}
        for name, gradient in zip(trained, found, strict=True):
            if gradient is not None:
                gradients[name] = gradient
        return terms, gradients

    @property
    def size(self) -> int:
        """How many operations it has."""
        return len(self.function.graph.nodes)

    def is_loop(self, trained: State, mode: str | None) -> bool:
        """Whether it is a loop over time, on a CPU: many operations of many sites; a deep network has few sites."""
        is_on_cpu = all(tensor.device.type == "cpu" for tensor in trained.values())
        return self.size > LONG and len(self.terms) > MANY and mode is None and is_on_cpu


def copy_tensors(state: State) -> State:
    """Copies that may be written to."""
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def value_and_grad(module: TermsOf) -> Step:
    """The function `(trained, fixed, batch) -> (terms, gradients)` of a module that returns terms."""
    places = _places(module)
    names = first_names(module)
    minimized = []
    for loss in module.costs.losses:
        own = {names[id(p)] for p in loss.part.parameters()}
        minimized.append((loss, own))

    def step(trained: State, fixed: State, batch: Batch) -> tuple[Terms, State]:
        leaves = {name: p.detach().requires_grad_() for name, p in trained.items()}
        tensors = {}
        for name, tensor in (leaves | fixed).items():
            tensors.update(dict.fromkeys(places[name], tensor))
        with torch.enable_grad(), autocast_networks(module, module.autocast):
            terms = functional_call(module, tensors, batch, tie_weights=False)
            gradients = _gradients(minimized, terms, leaves)
        return detach(terms), gradients

    return step


def _gradients(minimized: list[tuple[Loss, set[str]]], terms: Terms, leaves: State) -> State:
    """The gradient of each loss at those of its leaves that it depends on, in the order of the leaves."""
    found: dict[str, Tensor | None] = {}
    for loss, own in minimized:
        names = [name for name in leaves if name in own]
        if names:
            inputs = [leaves[name] for name in names]
            is_last = loss is minimized[-1][0]
            values = torch.autograd.grad(
                loss.of(terms), inputs, allow_unused=True, retain_graph=not is_last
            )
            found.update(zip(names, values, strict=True))
    gradients = {}
    for name, leaf in leaves.items():
        gradient = found[name]
        if gradient is not None:
            gradients[name] = _in_order_of(leaf, gradient)
    return gradients


def capture(module: TermsOf, trained: State, fixed: State, batch: Batch) -> Graph:
    """`value_and_grad(module)` as one graph.

    Raises:
        ValueError: where the program reads a tensor's value, with the site and the line.
    """
    flat = _FlatStep(module, trained, fixed, batch)
    # A graph writes to the buffers that it was captured with, so it gets copies of them.
    buffers = copy_tensors(fixed).values()
    last = _LastSite()
    with pyro.validation_enabled(False), fork_rng(*batch), last:
        try:
            graph = make_fx(flat)(*trained.values(), *buffers, *tensors_of(batch))
        except Exception as error:
            where = f"after site '{last.name}'" if last.name else "before its first site"
            raise ValueError(
                f"compile: the program can't be traced into one graph; it stops {where}, "
                f"{_line(error)}: {error}\n"
                "A program that branches on a tensor's value (if, float(), .item(), .tolist()) has "
                "no single graph. "
                "Fix: torch.where in place of the branch, or run eager with compile=False."
            ) from error
    return Graph(graph, flat.terms, flat.used)


class _FlatStep:
    """`value_and_grad` on one flat list of tensors, as `make_fx` takes it; remembers the names of what it returns."""

    def __init__(self, module: TermsOf, trained: State, fixed: State, batch: Batch):
        self.step = value_and_grad(module)
        self.trained = list(trained)
        self.fixed = list(fixed)
        self.batch = batch
        self.terms: tuple[str, ...] = ()
        self.used: tuple[bool, ...] = ()

    def __call__(self, *tensors: Tensor) -> list[Tensor]:
        num_trained = len(self.trained)
        num_states = num_trained + len(self.fixed)
        trained = dict(zip(self.trained, tensors[:num_trained], strict=True))
        fixed = dict(zip(self.fixed, tensors[num_trained:num_states], strict=True))
        values = iter(tensors[num_states:])
        batch = tuple(next(values) if isinstance(b, Tensor) else b for b in self.batch)
        terms, gradients = self.step(trained, fixed, batch)
        self.terms = tuple(terms)
        self.used = tuple(name in gradients for name in self.trained)
        return [torch.stack([*terms.values()]), *gradients.values()]


class _LastSite(Messenger):
    """Remembers the last sample statement, to say where a capture stopped."""

    name: str | None = None

    def _pyro_post_sample(self, msg: dict[str, Any]) -> None:
        self.name = msg["name"]


def first_names(module: nn.Module) -> dict[int, str]:
    """The first name of every tensor, by its id."""
    names: dict[int, str] = {}
    for name, tensor in named_tensors(module):
        names.setdefault(id(tensor), name)
    return names


def _places(module: nn.Module) -> dict[str, list[str]]:
    """For the first name of every tensor, all places where it is: tied weights have several."""
    names: dict[int, list[str]] = {}
    for name, tensor in named_tensors(module):
        names.setdefault(id(tensor), []).append(name)
    return {places[0]: places for places in names.values()}


def _in_order_of(parameter: Tensor, gradient: Tensor) -> Tensor:
    """A gradient in the memory order of its parameter, as autograd leaves it in `.grad`.

    Gradients of convolutions may come with channels last. Fused Adam on a CPU reads both tensors in the order of their
    memory, without a look at strides, and would move each weight by the gradient of another.
    """
    if gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)


def tensors_of(batch: Batch) -> list[Tensor]:
    """The arguments of a program that are tensors."""
    return [b for b in batch if isinstance(b, Tensor)]


def _line(error: BaseException) -> str:
    """The innermost line of the user's own code in a traceback."""
    libraries = ("/torch/", "/pyro/", "/pyro_dgm/inference/", "/contextlib.py")
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not any(part in frame.filename for part in libraries):
            return f"at {frame.filename}:{frame.lineno} `{frame.line}`"
    return "inside a library"
