"""The state around a run: random numbers, modes, handlers, devices, and the tensors of a module."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from numbers import Integral
from typing import Any, TypeVar

import numpy as np
import pyro
import torch
from pyro.poutine.runtime import _DIM_ALLOCATOR, _PYRO_STACK
from pyro.util import get_rng_state, set_rng_state
from torch import Tensor, nn

from .ambient import TURN, default_device, full_precision

Item = TypeVar("Item")


def check_seed(seed: Any) -> int:
    """The seed as an integer.

    Raises:
        TypeError: for what is none.
    """
    if not isinstance(seed, Integral):
        raise TypeError(f"seed: expected an integer, got {seed!r}. Fix: seed=0.")
    return int(seed)


def derive_seed(*numbers: int) -> int:
    """One seed of several numbers, all of whose bits count.

    `torch.manual_seed` reads the low 32 bits alone on the CPU, so that `seed << 32 | i` would be `i`.
    """
    words: list[int] = []
    for number in numbers:
        words += divmod(check_seed(number) % 2**64, 2**32)
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0])


@contextmanager
def fork_rng(*tensors: Any, seed: int | None = None) -> Iterator[None]:
    """Fork the random state of the CPU and of every device in use, and seed it if a seed is given.

    Factory functions make their tensors where the first of the tensors is, and other threads wait.
    """
    devices = set()
    for tensor in tensors:
        if isinstance(tensor, Tensor) and tensor.device.type == "cuda":
            devices.add(tensor.device)
    with ExitStack() as stack:
        stack.enter_context(TURN.taken())
        stack.enter_context(default_device(_device_of_first(tensors)))
        stack.enter_context(torch.random.fork_rng(devices=sorted(devices, key=str), enabled=True))
        if seed is not None:
            torch.manual_seed(check_seed(seed))
        yield


@contextmanager
def fork_every_rng(*tensors: Any) -> Iterator[None]:
    """`fork_rng`, and a fork of the random states of numpy and Python: a program may draw from these as well."""
    with fork_rng(*tensors):
        state = get_rng_state()
        try:
            yield
        finally:
            set_rng_state(state)


@contextmanager
def estimation_mode(*tensors: Any, seed: int) -> Iterator[None]:
    """`fork_rng`, in full precision whatever autocast is around it: for an estimate of numbers alone."""
    with fork_rng(*tensors, seed=seed), full_precision(_device_of_first(tensors)):
        yield


def with_own_rng(items: Iterable[Item], seed: int) -> Iterator[Item]:
    """The items, made on a random state of their own: a loader that shuffles takes nothing from other draws."""
    with fork_rng(seed=seed):
        iterator = iter(items)
        state = torch.get_rng_state()
    while True:
        with fork_rng():
            torch.set_rng_state(state)
            try:
                item = next(iterator)
            except StopIteration:
                return
            state = torch.get_rng_state()
        yield item


@contextmanager
def eval_mode(*programs: Any) -> Iterator[None]:
    """Evaluation mode without gradients for the programs that are modules; every mode is restored afterwards."""
    modules: list[nn.Module] = []
    for program in programs:
        if isinstance(program, nn.Module):
            modules += program.modules()
    with TURN.taken(), torch.no_grad():
        modes = [module.training for module in modules]
        try:
            for module in modules:
                module.training = False
            yield
        finally:
            for module, mode in zip(modules, modes, strict=True):
                module.training = mode


@contextmanager
def evaluation_mode(*modules: Any, seed: int) -> Iterator[None]:
    """`eval_mode` on a seeded fork of the random state, with Pyro's validation off.

    What stands around it does not reach inside. Inference mode is left, as its tensors have no gradient, which chains
    and refinement take; autocast is left, and a program of float32 is asked in float32; factory functions make their
    tensors where the modules are; other threads wait for their turn.
    """
    if seed is None:
        check_seed(seed)  # `fork_rng` takes none for no seed; an estimate can't be repeated without
    with ExitStack() as stack:
        device = torch.empty(0, device=device_of(*modules))
        stack.enter_context(fork_rng(device, seed=seed))
        stack.enter_context(full_precision(device.device))
        stack.enter_context(torch.inference_mode(mode=False))
        stack.enter_context(eval_mode(*modules))
        stack.enter_context(pyro.validation_enabled(False))
        yield


@contextmanager
def without_handlers() -> Iterator[None]:
    """Run a program as if no handler and no plate stood around it: it is a value, and no part of the model."""
    stacks: tuple[list[Any], ...] = (_PYRO_STACK, _DIM_ALLOCATOR._stack)
    before = [stack[:] for stack in stacks]
    try:
        for stack in stacks:
            stack.clear()
        yield
    finally:
        for stack, frames in zip(stacks, before, strict=True):
            stack[:] = frames


def _device_of_first(values: Iterable[Any]) -> torch.device:
    """The device of the first tensor among some values; the CPU if there is none."""
    for value in values:
        if isinstance(value, Tensor):
            return value.device
    return torch.device("cpu")


def device_of(*programs: Any) -> torch.device:
    """The device of the programs' tensors; the CPU if they have none."""
    for program in programs:
        if isinstance(program, nn.Module):
            for tensor in (*program.parameters(), *program.buffers()):
                return tensor.device
    return torch.device("cpu")


def require_gradients(*programs: Any) -> None:
    """Refuse modules built in inference mode, through whose tensors no gradient passes.

    Raises:
        ValueError: with what it got, and the fix.
    """
    for program in programs:
        if not isinstance(program, nn.Module):
            continue
        for name, tensor in named_tensors(program):
            if tensor.is_inference():
                raise ValueError(
                    f"expected modules built outside torch.inference_mode(), got {type(program).__name__} "
                    f"whose '{name}' was made inside: no gradient passes through it. "
                    "Fix: build the modules outside of it."
                )


def named_tensors(root: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every place that holds a tensor, once, as `torch.func.functional_call` takes them.

    A module that two others share is one place, tied weights are several: torch would swap the tensors of a shared
    module under each of its names, and put the wrong ones back.
    """
    for prefix, module in root.named_modules():
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None:
                yield f"{prefix}.{name}" if prefix else name, tensor
