"""Weights as safetensors, everything else as weights-only state; files appear whole or not at all."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from ...files.errors import FileError
from ...files.reading import read_file
from ...files.stamps import (
    check_archive,
    check_tensors,
    label_of_header,
    stamp_archive,
    stamp_tensors,
)
from ...files.writing import older, write_file

FIX_WEIGHTS = "the file that save_weights(module, path) wrote"
FIX_STATE = "the file that fit(checkpoint=…) or trainer.save wrote, or train anew"


KEEP = 2  # checkpoints of a run that stay: where the newest is damaged, the one before it is there


def save_weights(module: nn.Module, path: str | Path) -> None:
    """Write parameters and buffers as safetensors, each tensor once, with a digest in the metadata.

    Raises:
        FileError: if the file can't be written; what was there is then as it was.
    """
    write_file(path, weights_content(module))


def weights_content(module: nn.Module) -> bytes:
    """The bytes that `save_weights` writes."""
    tensors = {name: t.detach().contiguous() for name, t in _unique_tensors(module).items()}
    return stamp_tensors(save(tensors, metadata=label_of_header()))


def load_weights(module: nn.Module, path: str | Path) -> None:
    """Read what `save_weights` wrote into a module of the same structure.

    The digest is compared before a tensor is used. Weights without one, of another tool, are read under a warning.

    Raises:
        FileError: if the file is missing, empty, damaged, of another kind or too new; the module is then as it was.
        ValueError: if names or shapes differ; the same.
    """
    content = read_file(path, "weights as safetensors", FIX_WEIGHTS)
    check_tensors(content, path, FIX_WEIGHTS)
    try:
        saved = load(content)
    except SafetensorError as error:
        raise FileError(path, "weights as safetensors", str(error), FIX_WEIGHTS) from error
    own = _unique_tensors(module)
    _check_structure(own, saved, path)
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(saved[name])


def save_state(state: dict[str, Any], path: str | Path, keep: int = 1) -> None:
    """Write a dict of tensors and plain containers, with a digest that `torch.load` passes over.

    Args:
        state: what to write.
        path: the file.
        keep: how many versions stay; the ones before it are `path.1`, `path.2`, ….

    Raises:
        FileError: if the file can't be written; what was there is then as it was.
    """
    buffer = BytesIO()
    torch.save(_alone(state), buffer)
    with stamp_archive(buffer) as content:
        write_file(path, content, keep)


def _alone(tree: Any) -> Any:
    """Nested containers without memory of others: a tensor that is a row of a larger one is written with all of it."""
    if isinstance(tree, Tensor):
        is_part = tree.untyped_storage().nbytes() > tree.numel() * tree.element_size()
        return tree.clone() if is_part else tree
    if isinstance(tree, dict):
        return {key: _alone(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(map(_alone, tree))
    return tree


def load_state(path: str | Path) -> dict[str, Any]:
    """Read what `save_state` wrote; nothing is unpickled but tensors and plain containers.

    The digest is compared before a tensor is used. A file without one, of an older version, is read under a warning
    where the sums that the archive itself keeps agree.

    Raises:
        FileError: if the file is missing, empty, damaged, of another kind or too new.
    """
    try:
        return _read_state(path)
    except FileError as error:
        if error.fix != FIX_STATE:
            raise
        raise FileError(path, error.expected, error.got, fix_of_state(path)) from error


def _read_state(path: str | Path) -> dict[str, Any]:
    content = read_file(path, "a checkpoint", FIX_STATE)
    check_archive(content, path, FIX_STATE)
    try:
        state = torch.load(BytesIO(content), map_location="cpu", weights_only=True)
    except (RuntimeError, UnpicklingError, ValueError, EOFError) as error:
        got = f"an archive of another kind ({str(error).splitlines()[0].rstrip('.')})"
        what = "a checkpoint of tensors and plain containers"
        raise FileError(path, what, got, FIX_STATE) from error
    if not isinstance(state, dict):
        raise FileError(path, "a checkpoint", f"a {type(state).__name__}", FIX_STATE)
    return state


def check_keys(state: dict[str, Any], names: Iterable[str], path: str | Path) -> None:
    """Refuse a file that holds something else than the state of a run.

    Raises:
        FileError: if a name is missing.
    """
    missing = sorted(set(names) - set(state))
    if missing:
        got = f"a file without {missing}"
        raise FileError(path, "the checkpoint of a run", got, fix_of_state(path))


def fix_of_state(path: str | Path) -> str:
    """The newest checkpoint before it that is whole, where there is one."""
    age = 1
    while older(path, age).exists():
        before = older(path, age)
        if _is_whole(before):
            return f"go on from the one before it, {before}: mv {before} {path}"
        age += 1
    return FIX_STATE


def _is_whole(path: Path) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an older version, without a digest
        try:
            _read_state(path)
        except FileError:
            return False
    return True


@dataclass(frozen=True)
class CheckpointFile:
    """Where a running `fit` writes its state: after every epoch, and after every so many steps of one.

    Args:
        path: the file.
        every: steps of an epoch between two writes; `None` for whole epochs alone.
        keep: how many of them stay: `path` is the newest, `path.1` the one before it.

    Raises:
        ValueError: for fewer than one kept; for steps without a file.
    """

    path: str | Path | None
    every: int | None = None
    keep: int = KEEP

    def __post_init__(self) -> None:
        if self.keep < 1:
            raise ValueError(
                f"checkpoint_keep: expected at least 1, got {self.keep}. Fix: checkpoint_keep=2."
            )
        if self.every is None:
            return
        if self.every < 1:
            raise ValueError(
                f"checkpoint_every: expected at least 1, got {self.every}. "
                "Fix: checkpoint_every=1000, or leave it out."
            )
        if self.path is None:
            raise ValueError(
                f"fit: expected checkpoint_every={self.every} with a file, got none. "
                "Fix: checkpoint='run.pt', or leave checkpoint_every out."
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
