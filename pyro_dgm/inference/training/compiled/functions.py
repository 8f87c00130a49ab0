"""A function that runs programs, as kernels in which no handler runs: for estimates, which take many but no steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyro
import torch
from torch import Tensor, fx, nn
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx

from ...data.tensors import Batch
from ...process.states import fork_rng, named_tensors
from .compilation import kind_of
from .graphs import tensors_of
from .kernels import kernels_of, script_of

CLOSE = 1e-4  # of the norm of a result: float32 sums in any order
LONG = 500  # operations, beyond which kernels take a minute and more, and a script half a second

Results = Sequence[Tensor]
Function = Callable[..., Results]


class CompiledFunction:
    r"""$y = f(x)$ as kernels: under the same seed the numbers of the function itself, up to rounding.

    Pyro's handlers run while the graph is captured, and never again; noise is drawn by torch's own kernels, in the
    order of the program. Parameters and buffers are those that the modules hold when it is built. It is compared with
    the function before it is used. Building takes some seconds. On a CPU a graph of many operations, as an
    autoregressive flow that is run dim by dim, becomes a script in place of kernels: half the gain, at once.

    Args:
        function: takes tensors and other arguments, reads no tensor's value, and returns tensors, none of which is an
            argument.
        modules: whatever holds parameters that it uses; what is no module is left out.
        inputs: an example of its arguments. It can be called on tensors of the same shapes and dtypes, with the same
            other arguments.

    Raises:
        ValueError: for a function that reads a tensor's value, or draws numbers outside torch.
    """

    def __init__(self, function: Function, modules: Sequence[Any], inputs: Batch):
        self._kernels: Function
        root = _Root(function, modules)
        self._tensors = [*{id(tensor): tensor for _, tensor in named_tensors(root)}.values()]
        graph = _capture(root, self._tensors, inputs)
        example = [*self._tensors, *[value.contiguous() for value in tensors_of(inputs)]]
        is_on_cpu = all(tensor.device.type == "cpu" for tensor in example)
        with fork_rng(*example):  # a script is made by a run
            if len(graph.graph.nodes) > LONG and is_on_cpu:
                self._kernels = script_of(graph, example)
            else:
                self._kernels = kernels_of(graph, example, None, same_noise=True)
        self._compare(function, inputs)

    def __call__(self, *inputs: Any) -> Results:
        """The results."""
        with torch.no_grad():
            # Kernels are made for the strides of the example, and look at none
            given = [value.contiguous() for value in tensors_of(inputs)]
            return self._kernels(*self._tensors, *given)

    def _compare(self, function: Function, inputs: Batch) -> None:
        """Refuse kernels that give other results than the function under one seed."""
        found = []
        for run in (function, self):
            with pyro.validation_enabled(False), fork_rng(*inputs, seed=0):
                found.append(run(*inputs))
        for expected, value in zip(*found, strict=True):
            expected, value = expected.double().nan_to_num(), value.double().nan_to_num()
            if bool((expected - value).norm() > CLOSE * expected.norm()):
                raise ValueError(
                    "compile: expected the kernels to repeat the programs under one seed, but their results differ. "
                    "Numbers drawn or changed outside torch are burnt into a graph. "
                    "Fix: draw with torch, keep what changes in buffers, or compile=False."
                )


class RepeatedFunction:
    """A function that is called many times: by kernels for each kind of arguments, where they pay.

    Args:
        function: as `CompiledFunction` takes it.
        modules: whatever holds parameters that it uses.
        compile: whether there are kernels; `None` for where there can be some, and else by the function itself.
    """

    def __init__(self, function: Function, modules: Sequence[Any], *, compile: bool | None):
        self.function, self.modules, self.compile = function, modules, compile
        self._kernels: dict[Any, Function] = {}

    def __call__(self, *inputs: Any) -> Results:
        """The results."""
        if self.compile is False:
            return self.function(*inputs)
        kind = tuple([kind_of(x) for x in inputs])
        if kind not in self._kernels:
            self._kernels[kind] = self._built(inputs)
        return self._kernels[kind](*inputs)

    def _built(self, inputs: Batch) -> Function:
        try:
            return CompiledFunction(self.function, self.modules, inputs)
        except Exception:  # of the user's programs, of the compiler, of a machine that has none
            if self.compile:
                raise
            return self.function


class _Root(nn.Module):
    """A function as the forward of a module that holds all modules it uses, as `functional_call` needs it."""

    def __init__(self, function: Function, modules: Sequence[Any]):
        super().__init__()
        self.function = function
        self.programs = nn.ModuleList([m for m in modules if isinstance(m, nn.Module)])

    def forward(self, *inputs: Any) -> Results:
        return self.function(*inputs)


def _capture(root: _Root, tensors: Sequence[Tensor], inputs: Batch) -> fx.GraphModule:
    """A function as one graph of the tensors of its modules, and then those of its arguments."""
    places = [(name, id(tensor)) for name, tensor in named_tensors(root)]
    ids = [id(tensor) for tensor in tensors]

    def flat(*values: Tensor) -> list[Tensor]:
        given = dict(zip(ids, values, strict=False))
        state = {name: given[place] for name, place in places}
        arguments = iter(values[len(ids) :])
        filled = tuple([next(arguments) if isinstance(x, Tensor) else x for x in inputs])
        return list(functional_call(root, state, filled, tie_weights=False))

    with torch.no_grad(), pyro.validation_enabled(False), fork_rng(*inputs):
        try:
            return make_fx(flat)(*tensors, *tensors_of(inputs))
        except Exception as error:
            raise ValueError(
                f"compile: the programs can't be traced into one graph: {error}\n"
                "One that branches on a tensor's value has no single graph. "
                "Fix: torch.where in place of the branch, or compile=False."
            ) from error
