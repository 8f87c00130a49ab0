"""What runs a graph: kernels that are compiled for it, or torch's own interpreter where it is a long loop."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from torch import Tensor, fx

from .elementary import share_exponentials

# The calls of kernels are compiled, too, and what `_split_biases` has split stays so.
ON_A_CPU: dict[str, Any] = {"cpp_wrapper": True, "pattern_matcher": False}

Function = Callable[..., Sequence[Tensor]]


def kernels_of(
    graph: fx.GraphModule,
    inputs: Sequence[Tensor],
    mode: str | None,
    *,
    same_noise: bool = False,
) -> Function:
    """A graph as kernels.

    Inductor takes the graph as it is: through `torch.compile` its guards alone would cost a tenth of a small step.

    Args:
        graph: operations on flat inputs; it is taken over.
        inputs: an example of them.
        mode: a mode of `torch.compile`.
        same_noise: draw by torch's own kernels, the very numbers of the program, in place of faster ones.
    """
    from torch import _inductor as inductor  # a second of imports, and only here needed

    options = inductor.list_mode_options(mode) if mode else None
    if mode is None and all(x.device.type == "cpu" for x in inputs):
        share_exponentials(graph)
        _split_biases(graph)
        options = ON_A_CPU
    if same_noise:
        options = {**(options or {}), "fallback_random": True}
    with torch.no_grad(), pyro.validation_enabled(False), warnings.catch_warnings():
        own = ".*torch._prims_common.check"
        warnings.filterwarnings("ignore", message=own, category=FutureWarning)
        return inductor.compile(graph, list(inputs), options=options)


def script_of(graph: fx.GraphModule, inputs: Sequence[Tensor]) -> Function:
    """The operations of a graph one after the other by torch's own interpreter, without a line of Python.

    Kernels of a loop over time take about four seconds of compilation a time step; a script takes a hundredth of it,
    and keeps most of the gain. Its noise is torch's own, that of the program.
    """

    def by_node(*values: Tensor) -> tuple[Tensor, ...]:
        # torch's tracer looks through all locals of a frame at each operation, and the graph as one Python function
        # has as many as it has operations.
        return tuple(fx.Interpreter(graph).run(*values))

    with torch.no_grad(), pyro.validation_enabled(False), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of constants, which a graph has by its nature
        return _Script(torch.jit.trace(by_node, tuple(inputs), check_trace=False))


@dataclass(frozen=True)
class _Script:
    """A script that is run as it is written.

    What the interpreter would look for in its first runs (types to specialize on, kernels to fuse) gains nothing on a
    CPU, and takes as long as the capture and gigabytes for a long loop.
    """

    script: Any

    def __call__(self, *inputs: Any) -> tuple[Tensor, ...]:
        with torch.jit.optimized_execution(False):
            return self.script(*inputs)


def _split_biases(graph: fx.GraphModule) -> None:
    """B + A B as two operations: the sum then goes into the kernel of what follows, in place of a copy of b."""
    for node in list(graph.graph.nodes):
        node.meta = {}  # sizes as they were captured, which the wrapper in C++ can't read
        if node.target is not torch.ops.aten.addmm.default or node.kwargs:
            continue
        bias, left, right = node.args
        with graph.graph.inserting_before(node):
            product = graph.graph.call_function(torch.ops.aten.mm.default, (left, right))
            total = graph.graph.call_function(torch.ops.aten.add.Tensor, (product, bias))
        node.replace_all_uses_with(total)
        graph.graph.erase_node(node)
    graph.recompile()
