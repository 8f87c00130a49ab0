"""The precision of densities: float32 or better, whatever the dtype of the data and of the networks' outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from copy import copy
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Transform

HALF = (torch.float16, torch.bfloat16)
AUTOCAST_DEVICES = ("cpu", "cuda")


def dtype_of(distribution: Any) -> torch.dtype:
    """The floating dtype of a distribution's parameters, that of the widest; the default dtype if it has none.

    Example:
        >>> dtype_of(torch.distributions.Normal(torch.zeros(2, dtype=torch.float64), 1.0))
        torch.float64
    """
    found: torch.dtype | None = None
    for tensor in floating_tensors(distribution):
        found = tensor.dtype if found is None else torch.promote_types(found, tensor.dtype)
    return torch.get_default_dtype() if found is None else found


def floating_tensors(part: Any) -> Iterator[Tensor]:
    """The floating tensors that a distribution holds, and those that its parts hold; those of modules are left out."""
    for value in vars(part).values():
        if isinstance(value, Tensor):
            if value.is_floating_point():
                yield value
        elif isinstance(value, Distribution | Transform):
            yield from floating_tensors(value)
        elif isinstance(value, list | tuple):
            for entry in value:
                if isinstance(entry, Distribution | Transform):
                    yield from floating_tensors(entry)
                elif isinstance(entry, Tensor) and entry.is_floating_point():
                    yield entry


def as_observed(distribution: Any, value: Any) -> Any:
    """Integers and booleans in the floating dtype of the distribution, half of one as float32; others as they are.

    Arithmetic in the dtype of the data wraps around: 255 + 1 is 0 in uint8, and 300 is 44.
    """
    if not isinstance(value, Tensor) or value.is_floating_point() or value.is_complex():
        return value.float() if is_half(value) else value
    return value.to(at_least_float32(dtype_of(distribution)))


def in_float32(value: Any) -> Any:
    """A tensor, or a distribution with its parameters, in float32 where it has less; otherwise the very same."""
    if isinstance(value, Tensor):
        return value.float() if value.dtype in HALF else value
    if any(tensor.dtype in HALF for tensor in floating_tensors(value)):
        return with_tensors(value, in_float32)
    return value


def in_float64(distribution: Any) -> Any:
    """A distribution with its parameters in float64."""

    def widen(tensor: Tensor) -> Tensor:
        return tensor.to(wide_dtype(tensor)) if tensor.is_floating_point() else tensor

    return with_tensors(distribution, widen)


def with_tensors(part: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A copy of a distribution or a transform whose tensors, and those of its parts, are changed."""
    changed = {}
    for name, value in vars(part).items():
        new = _with_tensors_of_entry(value, change)
        if new is not value:
            changed[name] = new
    if not changed:
        return part
    twin = copy(part)
    vars(twin).update(changed)
    return twin


def _with_tensors_of_entry(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Distribution | Transform):
        return with_tensors(value, change)
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        entries = [_with_tensors_of_entry(entry, change) for entry in value]
        if any(new is not old for new, old in zip(entries, value, strict=True)):
            return type(value)(entries)
    return value


def wide_dtype(tensor: Tensor) -> torch.dtype:
    """float64; float32 on a device that has no more."""
    return torch.float32 if tensor.device.type == "mps" else torch.float64


def is_half(value: Any) -> bool:
    """Whether it is a tensor of float16 or bfloat16."""
    return isinstance(value, Tensor) and value.dtype in HALF


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """The dtype, float32 for a half."""
    return torch.float32 if dtype in HALF else dtype


def autocast_is_on() -> bool:
    """Whether operations around here are autocast to a dtype of half the precision."""
    return any(torch.is_autocast_enabled(device) for device in AUTOCAST_DEVICES)


def without_autocast() -> AbstractContextManager[Any]:
    """A region in which operations keep the dtype of their inputs, whatever autocast stands around it."""
    if not autocast_is_on():
        return nullcontext()
    stack = ExitStack()
    for device in AUTOCAST_DEVICES:
        if torch.is_autocast_enabled(device):
            stack.enter_context(torch.autocast(device, enabled=False))
    return stack


def network_output(raw: Any) -> Any:
    """What a network gives to a distribution: in float32 where autocast gave it half of that."""
    return raw.float() if is_half(raw) and autocast_is_on() else raw
