"""An optimizer's step inside an epoch, in which nothing but the gradients changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer

FUSED = (Adam, AdamW)


class Update:
    r"""$\theta \leftarrow \theta + \Delta(g)$: the step of an optimizer, and of a fused Adam its one kernel alone.

    At every step an optimizer walks over its groups, parameters and states, which for a small network takes longer than
    the arithmetic. Here the first step is the optimizer's own. If it is a fused Adam or AdamW, its tensors are then
    listed once, and each further step is one call on these lists: the same kernel on the same tensors, so the same
    bits. Every other optimizer takes all steps itself.

    Args:
        optimizer: any optimizer of torch.
        parameters: all that it moves.

    Example:
        >>> p = nn.Parameter(torch.ones(2))
        >>> with Update(torch.optim.SGD([p], lr=0.5), [p]).bound() as update:
        ...     update([torch.ones(2)])
        >>> p.tolist()
        [0.5, 0.5]
    """

    def __init__(self, optimizer: Optimizer, parameters: Sequence[nn.Parameter]):
        self.optimizer = optimizer
        self.parameters = list(parameters)
        self._is_fused = is_fused(optimizer)
        self._groups: list[_Group] = []
        self._used: list[bool] = []
        self._last: Sequence[Tensor | None] | None = None

    @contextmanager
    def bound(self) -> Iterator[Update]:
        """Keep lists for the steps inside; until the end nobody else may take a step of the optimizer."""
        try:
            yield self
        finally:
            self._release()

    @property
    def is_bound(self) -> bool:
        """Whether lists are kept, so that the next step is one call on them."""
        return bool(self._groups)

    @torch.no_grad()
    def __call__(self, gradients: Sequence[Tensor | None]) -> None:
        """Move each parameter by its gradient; those without one stay as they are."""
        used = [gradient is not None for gradient in gradients]
        if self._groups and used == self._used:
            for group in self._groups:
                group.step(gradients)
            self._last = gradients
            return
        self._release()
        self._leave(gradients)
        self.optimizer.step()
        if self._is_fused:
            self._list(used)

    def _list(self, used: list[bool]) -> None:
        """List the tensors of all parameters that have a gradient."""
        self._used = used
        places = {id(p): i for i, p in enumerate(self.parameters) if used[i]}
        for settings in self.optimizer.param_groups:
            self._groups += _groups_of(self.optimizer, settings, places)

    def _release(self) -> None:
        for group in self._groups:
            group.give_back()
        self._groups = []
        if self._last is not None:
            self._leave(self._last)
        self._last = None

    def _leave(self, gradients: Sequence[Tensor | None]) -> None:
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient


@dataclass(frozen=True)
class _Group:
    """What a fused Adam moves by one call: parameters of one group, one dtype, one device and one step count.

    Their states share the tensor that counts the steps until `give_back`.
    """

    settings: dict[str, Any]
    kernel: Any
    places: list[int]
    parameters: list[nn.Parameter]
    states: list[dict[str, Tensor]]
    lists: tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]

    def step(self, gradients: Sequence[Tensor | None]) -> None:
        settings = self.settings
        self.states[0]["step"].add_(1)
        self.kernel(
            self.parameters,
            [gradients[place] for place in self.places],
            *self.lists,
            lr=settings["lr"],
            beta1=settings["betas"][0],
            beta2=settings["betas"][1],
            weight_decay=settings["weight_decay"],
            eps=settings["eps"],
            amsgrad=settings["amsgrad"],
            maximize=False,
        )

    def give_back(self) -> None:
        """Give every state a count of its own, as the optimizer has them."""
        for state in self.states:
            state["step"] = state["step"].clone()


def is_fused(optimizer: Optimizer) -> bool:
    """Whether an optimizer is torch's own Adam or AdamW, fused, and its step nothing but that kernel."""
    has_hooks = optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks
    if type(optimizer) not in FUSED or has_hooks:
        return False
    for group in optimizer.param_groups:
        if not group["fused"] or group["maximize"] or isinstance(group["lr"], Tensor):
            return False
    return True


def _groups_of(
    optimizer: Optimizer, settings: dict[str, Any], places: dict[int, int]
) -> list[_Group]:
    """A group of the optimizer, apart by dtype, device and step count, which is read on the host."""
    is_decoupled = isinstance(optimizer, AdamW) or settings.get("decoupled_weight_decay", False)
    kernel = torch._fused_adamw_ if is_decoupled else torch._fused_adam_
    parts: dict[Any, list[nn.Parameter]] = {}
    for parameter in settings["params"]:
        if id(parameter) in places:
            count = optimizer.state[parameter]["step"].item()
            parts.setdefault((parameter.dtype, parameter.device, count), []).append(parameter)
    return [_group(optimizer, settings, kernel, part, places) for part in parts.values()]


def _group(
    optimizer: Optimizer,
    settings: dict[str, Any],
    kernel: Any,
    parameters: list[nn.Parameter],
    places: dict[int, int],
) -> _Group:
    states = [optimizer.state[p] for p in parameters]
    for state in states:
        state["step"] = states[0]["step"]
    maxima = [state["max_exp_avg_sq"] for state in states] if settings["amsgrad"] else []
    lists = (
        [state["exp_avg"] for state in states],
        [state["exp_avg_sq"] for state in states],
        maxima,
        [state["step"] for state in states],
    )
    own = [places[id(p)] for p in parameters]
    return _Group(settings, kernel, own, parameters, states, lists)
