"""Matrix products of networks in half precision, and nothing else: neither what leaves a layer nor any density."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.rnn import RNNCellBase
from torch.nn.utils.parametrize import ParametrizationList
from torch.nn.utils.rnn import PackedSequence

from ...densities.precision import (
    HALF,
    autocast_is_on,
    dtype_of_networks,
    in_float32,
    networks_in,
)

# Layers that are a matrix product. A recurrent layer (RNN, LSTM, GRU) would keep its state, which is a sum over time,
# in half precision too; a cell takes and gives its state in float32.
PRODUCTS = (nn.Linear, _ConvNd, RNNCellBase, nn.MultiheadAttention)


@contextmanager
def autocast_networks(module: nn.Module, dtype: torch.dtype | None) -> Iterator[None]:
    r"""$y = \mathrm{float32}(\mathrm{bf16}(W)\, \mathrm{bf16}(x))$ in the linear, convolutional and attention layers.

    A region of autocast stands around each such layer alone. Around whole programs it would take in `scale.exp()` and
    log-determinants that a user's module computes, and around a whole network its last sigmoid, which half precision
    rounds to 1. Weights that a parametrization computes, by a spectral norm say, are computed in float32.

    Args:
        module: whose layers; those that it holds on entry.
        dtype: of the products, `None` for that of their inputs.
    """
    if (
        autocast_is_on()
    ):  # the caller's, which keeps casts of weights that the optimizer has moved since
        torch.clear_autocast_cache()
    with ExitStack() as stack:
        if dtype is not None:
            for part in module.modules():
                region = _region(part, dtype)
                if region is not None:
                    stack.enter_context(region.around(part))
            stack.enter_context(networks_in(dtype))
        yield


def check_autocast(owner: str, dtype: Any, module: nn.Module) -> None:
    """Refuse a dtype that needs a scaled loss, or is none, and networks in float64.

    Args:
        owner: who was called, for the message.
        dtype: what was handed over.
        module: what is trained.

    Raises:
        TypeError: for what is no dtype.
        ValueError: for another dtype than bfloat16, and for parameters in another one than float32.
    """
    if dtype is None:
        return
    if not isinstance(dtype, torch.dtype):
        raise TypeError(
            f"{owner}: expected autocast as a torch dtype or None, got {dtype!r}. "
            "Fix: autocast=torch.bfloat16."
        )
    if dtype is not torch.bfloat16:
        reason = ", whose gradients vanish without a scaled loss" if dtype in HALF else ""
        raise ValueError(
            f"{owner}: expected autocast=torch.bfloat16 or None, got {dtype}{reason}. "
            "Fix: autocast=torch.bfloat16."
        )
    for name, parameter in module.named_parameters():
        if parameter.is_floating_point() and parameter.dtype != torch.float32:
            raise ValueError(
                f"{owner}: expected parameters in float32 under autocast, got {parameter.dtype} of '{name}'. "
                "Fix: model.float() and guide.float(), or autocast=None."
            )


def refuse_nothing_to_autocast(owner: str, dtype: torch.dtype | None, module: nn.Module) -> None:
    """Refuse programs without a layer that autocast reaches, once all parts are made; as `check_autocast`.

    Raises:
        ValueError: for such programs.
    """
    check_autocast(owner, dtype, module)
    if dtype is None or any(isinstance(part, PRODUCTS) for part in module.modules()):
        return
    raise ValueError(
        f"{owner}: expected networks of nn.Linear, nn.Conv2d, … for autocast={dtype}, got none: it would change "
        "nothing. Fix: autocast=None; or nn.Linear in place of torch.nn.functional.linear."
    )


class _Region:
    """Autocast that is entered before a module's forward and left after it, whatever is raised there.

    Args:
        device: of the module.
        dtype: of its products; `None` for that of their inputs.
    """

    def __init__(self, device: str, dtype: torch.dtype | None):
        self.device = device
        self.dtype = dtype
        self._entered: list[torch.autocast] = []

    @contextmanager
    def around(self, module: nn.Module) -> Iterator[None]:
        """Every call of the module until then."""
        hooks = (
            module.register_forward_pre_hook(self._enter),
            module.register_forward_hook(self._leave, always_call=True),
        )
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _enter(self, module: nn.Module, inputs: Any) -> None:
        # Autograd's own threads, which run checkpointed layers again, stand in no region.
        is_on = self.dtype is not None and dtype_of_networks() in (None, self.dtype)
        # No cache: it would keep casts of weights that the optimizer has moved since.
        autocast = torch.autocast(self.device, self.dtype, enabled=is_on, cache_enabled=False)
        autocast.__enter__()
        self._entered.append(autocast)

    def _leave(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        if self._entered:  # none, where another hook has raised before
            self._entered.pop().__exit__(None, None, None)
        return _widened(output)


def _region(module: nn.Module, dtype: torch.dtype) -> _Region | None:
    """What stands around the calls of a module, if anything."""
    tensor = next(module.parameters(), None)
    if tensor is None:
        return None
    if isinstance(module, PRODUCTS):
        return _Region(tensor.device.type, dtype)
    if isinstance(module, ParametrizationList):
        return _Region(tensor.device.type, None)
    return None


def _widened(output: Any) -> Any:
    """What a layer returns, in float32 at least."""
    if isinstance(output, (Tensor, PackedSequence)):
        return in_float32(output) if isinstance(output, Tensor) else output.float()
    if type(output) in (tuple, list):
        return type(output)([_widened(entry) for entry in output])
    return output
