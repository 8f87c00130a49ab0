"""Weights as safetensors, everything else as weights-only state; files appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ..run.distributed import rank_and_world


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


def check_average(path: str | Path, *, wanted: bool, found: bool) -> None:
    """Refuse a checkpoint that has an average of the weights where none is kept, or lacks it."""
    if wanted != found:
        has, lacks = ("an ", "no ") if found else ("no ", "an ")
        raise ValueError(
            f"{path}: expected a checkpoint with {lacks}EMA, got one with {has}EMA. Fix: the same ema=."
        )


def checked_file(path: str | Path | None, every: int | None) -> tuple[str | Path, int] | None:
    """Where to write and after how many steps; `None` where only whole epochs are written."""
    if every is None:
        return None
    if path is None or rank_and_world()[1] > 1:
        what = "no file" if path is None else f"{rank_and_world()[1]} processes"
        raise ValueError(
            f"fit: expected checkpoint_every={every} with a file and one process, got {what}. "
            "Fix: checkpoint='run.pt', or leave checkpoint_every out."
        )
    return path, every


def random_state(device: torch.device) -> dict[str, Any]:
    """The state of the generators that a run on a device draws from."""
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Put the generators where `random_state` found them."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], device)
