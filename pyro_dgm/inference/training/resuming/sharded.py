"""Files and modules that `torch.distributed.fsdp.fully_shard` has sharded: whole tensors there, parts here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from ...process.distributed import has_sharded, is_sharded

State = dict[str, Any]


def shard_state(
    state: State, module: nn.Module, averages: Sequence[Tensor], optimizers: Mapping[str, Any]
) -> State:
    """The state of a file with the parts of this rank, where the module holds parts; as it is where it holds none.

    Args:
        state: of a run, with whole tensors.
        module: what is trained.
        averages: the moving averages of its weights.
        optimizers: by name, all that moves it.
    """
    if not has_sharded(module):
        return state
    own = module.state_dict()
    found = {**state, "module": _as_named(state["module"], own)}
    if state["best"]:
        found["best"] = {**state["best"], "weights": _as_named(state["best"]["weights"], own)}
    if state["ema"] is not None:
        pairs = zip(state["ema"], averages, strict=True)
        found["ema"] = [_part(saved, average) for saved, average in pairs]
    found["trainer"] = dict(state["trainer"])
    for name, optimizer in optimizers.items():
        if isinstance(optimizer, Optimizer):
            found["trainer"][name] = _moments(state["trainer"][name], optimizer)
    return found


def _as_named(saved: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: _part(t, own[name]) if name in own else t for name, t in saved.items()}


def _moments(saved: State, optimizer: Optimizer) -> State:
    """The state of an optimizer, whose tensors of a parameter's shape are cut as the parameter is."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    states = {}
    for place, of_parameter in saved["state"].items():
        parameter = parameters[place]
        states[place] = {
            name: _part(value, parameter) if _is_like(value, parameter) else value
            for name, value in of_parameter.items()
        }
    return {**saved, "state": states}


def _is_like(value: Any, parameter: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == parameter.shape


def _part(saved: Tensor, own: Any) -> Tensor:
    """This rank's part of a whole tensor, cut as its own one is."""
    if not is_sharded(own) or saved.shape != own.shape:
        return saved
    from torch.distributed.tensor import distribute_tensor

    whole = saved.to(own.device)
    return distribute_tensor(whole, own.device_mesh, own.placements, src_data_rank=None)
