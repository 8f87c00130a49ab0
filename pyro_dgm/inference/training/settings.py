"""Settings that every trainer takes: by which schedule a learning rate changes."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau


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
