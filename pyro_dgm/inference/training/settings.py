"""Settings that every trainer takes: how it is compiled, and by which schedule a learning rate changes."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from ..run.structure import Structure


def check_compile(owner: str, compile: Any) -> None:
    """Refuse what is neither a truth value nor the name of a mode of `torch.compile`.

    Args:
        owner: who was called, for the message.
        compile: what was handed over.

    Raises:
        TypeError, ValueError: with the modes that there are.
    """
    if not isinstance(compile, (bool, str)):
        raise TypeError(
            f"{owner}: expected compile as True, False or the name of a mode, got {compile!r}. "
            "Fix: compile=True."
        )
    if isinstance(compile, bool):
        return
    from torch._inductor import list_mode_options  # a second of imports, and only here needed

    modes = list(list_mode_options())
    if compile not in modes:
        raise ValueError(
            f"{owner}: expected compile as True, False or one of {modes}, got {compile!r}. "
            "Fix: compile=True."
        )


def mode_of(compile: bool | str) -> str | None:  # noqa: FBT001
    """The mode of the compiler that a setting names, if it names one."""
    return compile if isinstance(compile, str) else None


def refuse_sums(structure: Structure) -> None:
    """Refuse to compile a pair some of whose latents are summed over."""
    if structure.summed:
        raise ValueError(
            f"compile: expected latents that are drawn, got {list(structure.summed)}, which are summed over: "
            "Pyro's sum reads tensors on the host. Fix: compile=False."
        )


def build_schedule(owner: str, schedule: Any, optimizer: Optimizer) -> LRScheduler:
    """The learning-rate scheduler that a function builds.

    Args:
        owner: who was called, for the message.
        schedule: builds a scheduler from an optimizer.
        optimizer: whose learning rate it changes.

    Raises:
        TypeError: if it builds something else, or one that asks for a metric.
        ValueError: if it is one of another optimizer.
    """
    fix = "Fix: schedule=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 50)."
    built = schedule(optimizer) if callable(schedule) else schedule
    if isinstance(built, ReduceLROnPlateau) or not isinstance(built, LRScheduler):
        raise TypeError(
            f"{owner}: expected a function that builds a torch learning-rate scheduler, which "
            f"steps once per epoch without a metric, got one that builds {type(built).__name__}. {fix}"
        )
    if built.optimizer is not optimizer:
        raise ValueError(
            f"{owner}: expected a schedule of the trainer's own optimizer, got one of another. {fix}"
        )
    return built
