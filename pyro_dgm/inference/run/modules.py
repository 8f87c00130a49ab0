"""The tensors of a module as `torch.func.functional_call` takes them."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn


def named_tensors(root: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every place that holds a tensor, once: a module that two others share is one place, tied weights are several.

    torch would swap the tensors of a shared module under each of its names, and put the wrong ones back.
    """
    for prefix, module in root.named_modules():
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None:
                yield f"{prefix}.{name}" if prefix else name, tensor
