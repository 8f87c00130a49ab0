"""Programs: modules whose forward samples from conditionals, as Pyro sites inside the data plate."""

from __future__ import annotations

from typing import Any

import pyro
import torch
from pyro.poutine.runtime import _PYRO_STACK, effectful
from pyro.poutine.trace_messenger import TraceMessenger
from torch import Tensor, nn

from ..contract import DATA


class Program(nn.Module):
    r"""A Pyro model or guide with parameters of its own: `forward(x=None, *context)` calls `pyro.sample`.

    Subclass it, build conditionals in `__init__`, and sample inside `data_plate` in `forward`. Model and guide
    take the same arguments; the first is the observation, which is `None` when the model generates.

    Under `pyro.infer.SVI` a program announces its parameters as `param` sites, so that plain `nn.Module`
    parts train. It never touches Pyro's global parameter store: a second instance trains as well as the
    first.

    Example:
        >>> class Coin(Program):
        ...     def forward(self, x=None):
        ...         with data_plate(x):
        ...             return pyro.sample("x", pyro.distributions.Bernoulli(0.5), obs=x)
        >>> Coin()(torch.ones(3))
        tensor([1., 1., 1.])
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # SVI.step collects what to optimize with a trace that records `param` sites alone; nobody
        # else needs them.
        for frame in _PYRO_STACK:
            if isinstance(frame, TraceMessenger) and frame.param_only:
                self._announce_parameters()
                break
        return super().__call__(*args, **kwargs)

    def _announce_parameters(self) -> None:
        for name, parameter in self.named_parameters():
            _announce(name, parameter)


def _announce(name: str, parameter: nn.Parameter) -> None:
    """Emit a `param` message whose value knows its unconstrained leaf, which is all that SVI asks of it."""
    value: Any = parameter.detach()
    value.unconstrained = lambda: parameter
    # One trace holds the sites of model and guide: the identity keeps equal names of different
    # parameters apart.
    emit = effectful(lambda *_, **__: value, type="param")
    emit(name=f"{name}@{id(parameter):x}", event_dim=None)


def require_data(guide: Program, x: Tensor | None) -> Tensor:
    """The data of a guide, which needs them: its latents are those of given data.

    Raises:
        ValueError: if x is `None`.
    """
    if x is None:
        raise ValueError(
            f"{type(guide).__name__}: expected data x, got None. "
            "Fix: guide(x), or generate with the model."
        )
    return x


def data_plate(*batch: Any, size: int | None = None) -> pyro.plate:
    r"""The plate `"data"` at dim −1 over the first tensor of `batch`; one datum where there is none.

    Args:
        batch: the program's own arguments, `(x, *context)`; `None` entries are passed over.
        size: number N of data in the full set. The log densities of a minibatch of B are then scaled by N/B,
            which matters only where there are global sites.

    Raises:
        ValueError: if a tensor has no batch dim, or the batch is larger than `size`.

    Example:
        >>> with data_plate(torch.zeros(5, 2)) as index:
        ...     len(index)
        5
    """
    tensors = [entry for entry in batch if isinstance(entry, Tensor)]
    if not tensors:
        return pyro.plate(DATA, 1, dim=-1)
    first = tensors[0]
    if first.dim() == 0:
        raise ValueError(
            f"data_plate: expected a tensor (B, *event), got a 0-dim tensor {first}. Fix: x[None]."
        )
    num = len(first)
    if size is None:
        return pyro.plate(DATA, num, dim=-1)
    if num > size:
        raise ValueError(
            f"data_plate: expected a batch of at most size={size} data, got {num}. "
            "Fix: size=len(data)."
        )
    rows = torch.arange(num, device=first.device)
    return pyro.plate(DATA, size, subsample=rows, dim=-1)
