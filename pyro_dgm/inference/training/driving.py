"""A fit asks for steps, somebody takes them: one after the other for one trainer, side by side for several.

A fit is a generator. It yields one epoch after the other, and an epoch yields its batches and is sent the terms of the
step on each. What stands around the steps (checks, validation, best weights, checkpoints) is the fit's own, whoever
takes them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from dataclasses import dataclass

from ..data.batches import Batch
from ..run.sessions import require_positive
from .checkpoints import CheckpointFile
from .compiled.graphs import Terms
from .history import Row
from .monitoring import check_limits
from .running import OnStep, Values

TakeStep = Callable[[Batch], Terms | Values]
Steps = Generator[Batch, Terms | Values, None]
Fit = Generator[Steps, None, None]


@dataclass(frozen=True)
class Plan:
    """How long a fit goes on, by what it compares its epochs, and where it is kept: the arguments of `Trainer.fit`.

    Raises:
        ValueError: for no epoch, an empty batch, a patience of no epoch, or a negative number of steps to pass over.
    """

    epochs: int = 1
    batch_size: int = 128
    monitor: str | None = None
    patience: int | None = None
    max_skips: int = 0
    seed: int = 0
    file: CheckpointFile = CheckpointFile(None)
    on_epoch: Callable[[Row], None] | None = None
    on_step: OnStep | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        require_positive(epochs=self.epochs, batch_size=self.batch_size)
        check_limits(self.patience, self.max_skips)


def drive(fit: Fit, steps: Callable[[], AbstractContextManager[TakeStep]]) -> None:
    """Take all steps that a fit asks for.

    Args:
        fit: what asks.
        steps: opens what takes the steps of one epoch.
    """
    for epoch in fit:
        try:
            with steps() as step:
                answer(epoch, step)
        except BaseException as error:
            fit.throw(error)
            raise


def answer(epoch: Steps, step: TakeStep) -> None:
    """Take the steps of one epoch; what a step raises is raised where the epoch asked for it."""
    batch = next(epoch, None)
    while batch is not None:
        try:
            terms = step(batch)
        except Exception as error:
            epoch.throw(error)
            raise
        try:
            batch = epoch.send(terms)
        except StopIteration:
            return
