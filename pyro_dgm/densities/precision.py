"""The precision of densities: float32 or better, whatever the dtype of the data and of the networks' outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from copy import copy
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Transform

HALF = (torch.float16, torch.bfloat16)
AUTOCAST_DEVICES = ("cpu", "cuda")
PARTS = (Distribution, Transform)  # what a distribution is made of, beside tensors

_NETWORKS: ContextVar[torch.dtype | None] = ContextVar("dtype of networks", default=None)


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
    """The floating tensors of a distribution and of its parts; modules, whose dtype is their own, are left out."""
    parts = [part]
    met: set[int] = set()  # a transform and its inverse may hold each other
    while parts:
        part = parts.pop()
        met.add(id(part))
        for value in vars(part).values():
            for entry in value if type(value) in (list, tuple) else (value,):
                if isinstance(entry, Tensor):
                    if entry.is_floating_point():
                        yield entry
                elif isinstance(entry, PARTS) and id(entry) not in met:
                    parts.append(entry)


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
    return _with_tensors(part, change, {})


def _with_tensors(value: Any, change: Callable[[Tensor], Tensor], twins: dict[int, Any]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if type(value) in (list, tuple):
        return type(value)([_with_tensors(entry, change, twins) for entry in value])
    if not isinstance(value, PARTS):
        return value
    if id(value) not in twins:
        twins[id(value)] = twin = copy(value)
        for name, entry in vars(value).items():
            vars(twin)[name] = _with_tensors(entry, change, twins)
    return twins[id(value)]


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


@contextmanager
def full_precision_networks() -> Iterator[None]:
    """A region in which networks keep the dtype of their inputs, also in a step with `autocast`.

    Where a network is the map itself and no conditioner of one, as in a residual flow, its log-determinant is that of
    the map in float32 alone. A penalty on the slope of a network stands in one, too.

    Example:
        >>> with full_precision_networks():
        ...     y = torch.nn.Linear(2, 2)(torch.zeros(3, 2))
    """
    with networks_in(torch.float32), without_autocast():
        yield


@contextmanager
def networks_in(dtype: torch.dtype) -> Iterator[None]:
    """A region in which networks compute their products in a dtype, where they heed `dtype_of_networks`."""
    token = _NETWORKS.set(dtype)
    try:
        yield
    finally:
        _NETWORKS.reset(token)


def dtype_of_networks() -> torch.dtype | None:
    """What the innermost region of `networks_in` around here says; `None` where there is none."""
    return _NETWORKS.get()


def network_output(raw: Any) -> Any:
    """What a network gives to a distribution: in float32 where autocast gave it half of that, and no parameter itself.

    A parameter, or a view of one, would move under the distribution when an optimizer writes it.
    """
    if not isinstance(raw, Tensor):
        return raw
    if raw.dtype in HALF and autocast_is_on():
        return raw.float()
    is_parameter = raw.is_leaf and raw.requires_grad
    return raw.clone() if is_parameter or raw._is_view() else raw
