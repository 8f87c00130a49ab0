"""The tensors of several runs as rows of one: what moves all of them moves each."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..compiled.updates import is_fused


class Stack:
    r"""$\Theta = (\theta_1, …, \theta_S)$: of each tensor of a module one of shape (S, …), whose rows the modules hold.

    A module keeps its parameters and buffers, and whoever reads or writes them in place reads and writes the rows. So
    everything that is done to one run alone (validation, best weights, checkpoints) is done as ever.

    Args:
        columns: the same tensors of all modules, `columns[k][s]` tensor k of module s.
        left: rows that are no module's any more.
    """

    def __init__(self, columns: Sequence[Sequence[Tensor]], left: Collection[int] = ()):
        self.columns = [list(column) for column in columns]
        self.left = left
        self.tensors: list[Tensor] = []
        self.join()

    @torch.no_grad()
    def join(self) -> None:
        """Bring the tensors together, unless they are."""
        if self._is_joined():
            return
        self.tensors = [torch.stack([t.detach() for t in column]) for column in self.columns]
        for own, row in self._pairs():
            own.data = row

    def _is_joined(self) -> bool:
        if not self.tensors:
            return False
        return all(own.data_ptr() == row.data_ptr() for own, row in self._pairs())

    def _pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Each tensor of a module with its row."""
        for column, joined in zip(self.columns, self.tensors, strict=True):
            for number, (own, row) in enumerate(zip(column, joined, strict=True)):
                if number not in self.left:
                    yield own, row

    def leave(self, row: int) -> None:
        """Give one module memory of its own."""
        for column in self.columns:
            column[row].data = column[row].detach().clone()


class Moments:
    """The states of several fused Adams as that of one over stacked parameters.

    Args:
        optimizers: one for each run, equal in their settings and in the number of their steps.
        parameters: the same parameters of all runs, `parameters[k][s]` parameter k of run s.
        stacked: the stacks of these parameters.
        left: rows that are no run's any more.
    """

    def __init__(
        self,
        optimizers: Sequence[Optimizer],
        parameters: Sequence[Sequence[nn.Parameter]],
        stacked: Sequence[Tensor],
        left: Collection[int],
    ):
        self.optimizers = optimizers
        self.parameters = parameters
        self.left = left
        self.stacked = [_parameter_in(tensor) for tensor in stacked]
        self.first = next(row for row in range(len(optimizers)) if row not in left)
        self.optimizer = self._joint()
        self.stacks = self._join()

    def _joint(self) -> Optimizer:
        """The optimizer of a run, over the stacks."""
        own = self.optimizers[self.first]
        places = {id(column[self.first]): k for k, column in enumerate(self.parameters)}
        groups = []
        for group in own.param_groups:
            stacked = [self.stacked[places[id(p)]] for p in group["params"] if id(p) in places]
            groups.append({**group, "params": stacked})
        build: Any = type(own)
        return build(groups)

    def _join(self) -> list[Stack]:
        stacks = []
        for column, stacked in zip(self.parameters, self.stacked, strict=True):
            states = [o.state.get(p, {}) for o, p in zip(self.optimizers, column, strict=True)]
            own = states[self.first]
            names = [name for name in own if name != "step"]
            if not names:
                continue
            moments = [[_like(state.get(name), own[name]) for state in states] for name in names]
            stack = Stack(moments, self.left)
            stacks.append(stack)
            joint = dict(zip(names, stack.tensors, strict=True))
            self.optimizer.state[stacked] = {"step": own["step"].clone(), **joint}
        return stacks

    def share_counts(self) -> None:
        """Give each run the number of steps that have been taken."""
        for column, stacked in zip(self.parameters, self.stacked, strict=True):
            if stacked not in self.optimizer.state:
                continue
            count = self.optimizer.state[stacked]["step"]
            for row, parameter in enumerate(column):
                if row not in self.left:
                    self.optimizers[row].state[parameter]["step"] = count

    def leave(self, row: int) -> None:
        """Give one run memory and a count of its own."""
        for stack in self.stacks:
            stack.leave(row)
        for state in self.optimizers[row].state.values():
            state["step"] = state["step"].clone()


def _parameter_in(tensor: Tensor) -> nn.Parameter:
    """A parameter in the memory of a tensor."""
    parameter = nn.Parameter(tensor)
    parameter.data = tensor
    return parameter


def _like(value: Tensor | None, other: Tensor) -> Tensor:
    """What a run that has left remembers: something of the right shape, read by nobody."""
    return torch.zeros_like(other) if value is None else value


def are_alike(
    optimizers: Sequence[Optimizer], parameters: Sequence[Sequence[nn.Parameter]]
) -> bool:
    """Whether one fused Adam over the stacks does what they do: equal settings, and equal numbers of steps.

    It reads the numbers on the host.

    Args:
        optimizers: of the runs.
        parameters: of each run, in one order.
    """
    if not all(is_fused(o) and type(o) is type(optimizers[0]) for o in optimizers):
        return False
    described = []
    for optimizer, own in zip(optimizers, parameters, strict=True):
        places = {id(p): k for k, p in enumerate(own)}
        steps = [_num_steps(optimizer, p) for p in own]
        groups = []
        for group in optimizer.param_groups:
            settings = {name: value for name, value in group.items() if name != "params"}
            groups.append((settings, [places.get(id(p)) for p in group["params"]]))
        described.append((steps, groups))
    has_begun = any(num is not None for num in described[0][0])
    return has_begun and all(other == described[0] for other in described)


def _num_steps(optimizer: Optimizer, parameter: nn.Parameter) -> float | None:
    state = optimizer.state.get(parameter)
    return float(state["step"]) if state else None
