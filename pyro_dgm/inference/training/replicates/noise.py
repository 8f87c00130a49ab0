"""The noise of a graph apart from its arithmetic, so that each run can draw its own and all are computed at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

aten = torch.ops.aten

# Operations that read of their first argument its shape, dtype and device alone.
OF_ITS_KIND: dict[Any, Callable[..., Tensor]] = {
    aten.empty_like.default: torch.empty_like,
    aten.new_empty.default: torch.empty_like,
    aten.zeros_like.default: torch.zeros_like,
    aten.new_zeros.default: torch.zeros_like,
    aten.ones_like.default: torch.ones_like,
    aten.new_ones.default: torch.ones_like,
}
DRAWN_LIKE: dict[Any, Callable[..., Tensor]] = {
    aten.rand_like.default: torch.rand_like,
    aten.randn_like.default: torch.randn_like,
}


@dataclass(frozen=True)
class Apart:
    """A graph in two parts.

    Attributes:
        draw: all noise of one evaluation, drawn in the order of the program from torch's own generator.
        function: maps (inputs of the graph, noise), flat, to what the graph returns; draws nothing.
    """

    draw: Callable[[], Sequence[Tensor]]
    function: fx.GraphModule


def split_noise(graph: fx.GraphModule, inputs: Sequence[Tensor]) -> Apart | None:
    """A graph with its noise as further inputs; `None` where noise depends on a value, as that of Bernoulli(p) does.

    Args:
        graph: operations on flat inputs.
        inputs: an example of them.
    """
    draws = _Draws(graph)
    values = _Values(graph, {*draws.nodes, *draws.copied()})
    with torch.no_grad():
        values.run(*[x.detach().clone() for x in inputs])
    if not draws.are_free():
        return None
    return Apart(draws.function(values.found), _without(graph, draws.nodes))


class _Values(fx.Interpreter):
    """Runs a graph and keeps the values of some of its nodes."""

    def __init__(self, graph: fx.GraphModule, nodes: set[fx.Node]):
        super().__init__(graph)
        self.nodes = nodes
        self.found: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run one."""
        value = super().run_node(n)
        if n in self.nodes:
            self.found[n] = value
        return value


class _Draws:
    """The random operations of a graph, and what they are made of."""

    def __init__(self, graph: fx.GraphModule):
        self.graph = graph
        self.bound = self._bound()
        self.nodes = [node for node in graph.graph.nodes if _is_random(node)]

    def _bound(self) -> set[fx.Node]:
        """Nodes whose values depend on an input."""
        bound: set[fx.Node] = set()
        for node in self.graph.graph.nodes:
            is_input = node.op == "placeholder"
            reads_values = node.target not in OF_ITS_KIND and node.target not in DRAWN_LIKE
            if is_input or (reads_values and any(n in bound for n in node.all_input_nodes)):
                bound.add(node)
        return bound

    def copied(self) -> list[fx.Node]:
        """All that the draws are made of, in their order."""
        needed = set(self.nodes)
        for node in reversed(self.graph.graph.nodes):
            if node in needed and not self._is_of_a_kind(node):
                needed.update(node.all_input_nodes)
        return [node for node in self.graph.graph.nodes if node in needed]

    def _is_of_a_kind(self, node: fx.Node) -> bool:
        is_known = node.target in OF_ITS_KIND or node.target in DRAWN_LIKE
        return is_known and any(n in self.bound for n in node.all_input_nodes)

    def are_free(self) -> bool:
        """Whether none depends on a value, and what is drawn into memory is read by nobody else."""
        for node in self.nodes:
            if node in self.bound:
                return False
            for source in node.all_input_nodes:
                if len(source.users) > 1 and not self._is_of_a_kind(node):
                    return False
        return True

    def function(self, values: dict[fx.Node, Any]) -> fx.GraphModule:
        """All draws as a function without arguments."""
        own = fx.Graph()
        copies: dict[fx.Node, fx.Node] = {}
        constants = torch.nn.Module()
        for node in self.copied():
            if not self._is_of_a_kind(node):
                copies[node] = own.node_copy(node, copies.__getitem__)
                continue
            name = f"like_{len(copies)}"
            like = torch.empty_like(values[node])
            constants.register_buffer(name, like)
            make = OF_ITS_KIND.get(node.target) or DRAWN_LIKE[node.target]
            copies[node] = own.call_function(make, (own.get_attr(name),))
        for node, copy in copies.items():
            if copy.op == "get_attr" and node.op == "get_attr":
                setattr(constants, str(node.target), getattr(self.graph, str(node.target)))
        own.output(tuple(copies[node] for node in self.nodes))
        return fx.GraphModule(constants, own)


def _is_random(node: fx.Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def _without(graph: fx.GraphModule, draws: Sequence[fx.Node]) -> fx.GraphModule:
    """A copy of the graph in which draws are inputs, after all others."""
    own = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    inputs = [node for node in graph.graph.nodes if node.op == "placeholder"]
    for node in inputs:
        copies[node] = own.node_copy(node)
    for place, node in enumerate(draws):
        copies[node] = own.placeholder(f"noise_{place}")
    for node in graph.graph.nodes:
        if node not in copies:
            copies[node] = own.node_copy(node, copies.__getitem__)
    return fx.GraphModule(graph, own)
