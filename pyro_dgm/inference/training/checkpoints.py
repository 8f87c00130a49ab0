"""Weights as safetensors, everything else as weights-only state; files appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ..process.distributed import rank_and_world


def save_weights(module: nn.Module, path: str | Path) -> None:
    """Write parameters and buffers as safetensors, each tensor once."""
    tensors = {name: t.detach().contiguous() for name, t in _unique_tensors(module).items()}
    _write_atomically(Path(path), lambda temporary: temporary.write_bytes(save(tensors)))


def load_weights(module: nn.Module, path: str | Path) -> None:
    """Read what `save_weights` wrote into a module of the same structure.

    Raises:
        ValueError: if names or shapes differ; the module is then as it was.
    """
    saved = load_file(path)
    own = _unique_tensors(module)
    _check_structure(own, saved, path)
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(saved[name])


def save_state(state: dict[str, Any], path: str | Path) -> None:
    """Write a dict of tensors and plain containers."""
    _write_atomically(Path(path), lambda temporary: torch.save(state, temporary))


def load_state(path: str | Path) -> dict[str, Any]:
    """Read what `save_state` wrote; nothing is unpickled but tensors and plain containers."""
    return torch.load(path, map_location="cpu", weights_only=True)


@dataclass(frozen=True)
class CheckpointFile:
    """Where a running `fit` writes its state: after every epoch, and after every so many steps of one.

    Args:
        path: the file.
        every: steps of an epoch between two writes; `None` for whole epochs alone.

    Raises:
        ValueError: for steps without a file; for steps with several processes, of which a file holds one.
    """

    path: str | Path | None
    every: int | None = None

    def __post_init__(self) -> None:
        if self.every is None:
            return
        if self.every < 1:
            raise ValueError(
                f"checkpoint_every: expected at least 1, got {self.every}. "
                "Fix: checkpoint_every=1000, or leave it out."
            )
        _, world = rank_and_world()
        if self.path is None or world > 1:
            what = "no file" if self.path is None else f"{world} processes"
            raise ValueError(
                f"fit: expected checkpoint_every={self.every} with a file and one process, got "
                f"{what}. Fix: checkpoint='run.pt', or leave checkpoint_every out."
            )

    def due(self, num_steps: int) -> str | Path | None:
        """The file, if it is to be written after so many steps of an epoch."""
        if self.every is None or num_steps % self.every > 0:
            return None
        return self.path


def random_state(device: torch.device) -> dict[str, Any]:
    """The state of the generators that a run on a device draws from."""
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Put the generators where `random_state` found them."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], device)


def _unique_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers, each shared tensor under its first name."""
    names: dict[int, str] = {}
    tensors: dict[str, Tensor] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) not in names:
            names[id(tensor)] = name
            tensors[name] = tensor
    return tensors


def _check_structure(own: dict[str, Tensor], saved: dict[str, Tensor], path: str | Path) -> None:
    """Refuse a file whose tensors have other names or shapes than the module's."""
    if set(saved) != set(own):
        differing = sorted(set(saved) ^ set(own))[:4]
        raise ValueError(
            f"{path}: expected the module's {len(own)} tensors, got {len(saved)}; they differ in "
            f"{differing}. Fix: build the module with the arguments it was saved with."
        )
    for name, tensor in own.items():
        if tensor.shape != saved[name].shape:
            raise ValueError(
                f"{path}: expected '{name}' of shape {tuple(tensor.shape)}, got "
                f"{tuple(saved[name].shape)}. "
                "Fix: build the module with the arguments it was saved with."
            )


def _write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write to a neighbouring file and move it into place, so that a killed process leaves the old file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        os.replace(temporary, path)  # noqa: PTH105 - the atomic call itself
    finally:
        temporary.unlink(missing_ok=True)
