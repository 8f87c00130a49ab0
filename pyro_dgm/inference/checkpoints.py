"""Weights as safetensors, everything else as weights-only state; files appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn


def save_weights(module: nn.Module, path: str | Path) -> None:
    """Write parameters and buffers as safetensors, each tensor once."""
    tensors = {name: t.detach().contiguous() for name, t in _owned(module).items()}
    _whole(Path(path), lambda temporary: temporary.write_bytes(save(tensors)))


def load_weights(module: nn.Module, path: str | Path) -> None:
    """Read what `save_weights` wrote into a module of the same structure.

    Raises:
        ValueError: if names or shapes differ.
    """
    found, owned = load_file(path), _owned(module)
    if set(found) != set(owned):
        raise ValueError(
            f"{path}: expected the module's {len(owned)} tensors, got {len(found)}; they differ in "
            f"{sorted(set(found) ^ set(owned))[:4]}. Fix: build the module with the arguments it was saved with."
        )
    for name, tensor in owned.items():
        if tensor.shape != found[name].shape:
            raise ValueError(
                f"{path}: expected '{name}' of shape {tuple(tensor.shape)}, got {tuple(found[name].shape)}. "
                "Fix: build the module with the arguments it was saved with."
            )
    with torch.no_grad():
        for name, tensor in owned.items():
            tensor.copy_(found[name])


def save_state(state: dict[str, Any], path: str | Path) -> None:
    """Write a dict of tensors and plain containers."""
    _whole(Path(path), lambda temporary: torch.save(state, temporary))


def load_state(path: str | Path) -> dict[str, Any]:
    """Read what `save_state` wrote; nothing is unpickled but tensors and plain containers."""
    return torch.load(path, map_location="cpu", weights_only=True)


def _owned(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers, each shared tensor under its first name."""
    tensors: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        tensors.setdefault(id(tensor), (name, tensor))
    return dict(tensors.values())


def _whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside the target and move into place, so that a killed process leaves the old file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        os.replace(temporary, path)  # noqa: PTH105 - the atomic call itself
    finally:
        temporary.unlink(missing_ok=True)
