"""By which metric epochs are compared, and when a run stops early."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import inf
from typing import Any, Protocol

from torch import nn
from torch.optim import Optimizer
from tqdm import tqdm

from ...display.progress import may_show
from ..objectives.schedules import Schedule
from ..process.numbers import check_count
from .history import Row
from .soundness import Unsound


class Patience:
    """Which epochs may be the best, and when there was no better one for too long.

    Both wait until every warm-up has ended: β of an objective by its schedule, and a learning rate that still rises. A
    weighted `loss` is another one in each epoch of a warm-up, and has no best among them; `nelbo` and the other terms
    are the same throughout. After so many epochs without a better one a run stops, counted from the end of the warm-up.

    Args:
        module: whose schedules are looked at.
        optimizers: whose learning rates are.
        limit: so many epochs; `None` to go on.
    """

    def __init__(self, module: nn.Module, optimizers: Sequence[Optimizer], limit: int | None):
        self.schedules = [m for m in module.modules() if isinstance(m, Schedule)]
        self.optimizers = optimizers
        self.limit = limit
        self.rates = self._rates()
        self.was_warm = self._are_schedules_warm()

    def end_epoch(self, metric: str | None) -> tuple[bool, bool]:
        """Whether the epoch that has ended was one of a warm-up, and whether it may be the best."""
        rates = self._rates()
        rises = any(now > before for now, before in zip(rates, self.rates, strict=True))
        was_warming_up = rises or not self.was_warm
        self.rates = rates
        self.was_warm = self._are_schedules_warm()
        changes = metric is not None and metric.endswith("_loss")
        return was_warming_up, not (was_warming_up and changes)

    def is_over(self, num_epochs: int, *since: int) -> bool:
        """Whether so many epochs have gone by since the latest of some."""
        return self.limit is not None and num_epochs - max(since) >= self.limit

    def _rates(self) -> list[float]:
        return [float(group["lr"]) for o in self.optimizers for group in o.param_groups]

    def _are_schedules_warm(self) -> bool:
        return all(schedule.has_ended() for schedule in self.schedules)


def check_rates(optimizers: Sequence[Optimizer], epoch: int) -> None:
    """Refuse a learning rate that climbs, or that is no number, as a schedule may have left it.

    Raises:
        Unsound: with the rate and the epoch.
    """
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            rate = float(group["lr"])
            if not 0 <= rate < inf:
                raise Unsound(
                    f"schedule: expected a finite learning rate >= 0 after epoch {epoch}, got {rate:g}. "
                    "Fix: LambdaLR(optimizer, lambda epoch: max(0.0, 1 - epoch / 100))."
                )


def check_limits(patience: Any, max_skips: Any) -> None:
    """Refuse a patience of no epoch, and a negative number of steps to pass over."""
    if patience is not None:
        check_count("fit", "patience", patience, fix="patience=20")
    check_count("fit", "max_skips", max_skips, least=0, fix="max_skips=0")


def choose_metric(names: list[str], monitor: str | None, patience: int | None) -> str | None:
    """The metric by which epochs are compared, which must exist before the first step; `None` for none."""
    if monitor is None:
        for name in ("val_nelbo", "val_njoint", "val_loss"):
            if name in names:
                return name
        if patience is not None:
            raise ValueError(
                "fit: patience needs a metric: expected validation data or monitor=, got neither. "
                f"Fix: give val=…, or monitor='{names[0]}'."
            )
        return None
    if monitor not in names:
        raise ValueError(
            f"fit: expected a metric among {names}, got monitor='{monitor}'. "
            f"Fix: monitor='{names[0]}', or give val=…."
        )
    return monitor


def progress_bar(epochs: int, *, shown: bool) -> tqdm:
    """A bar of so many epochs, on rank 0 alone."""
    return tqdm(total=epochs, unit="epoch", disable=not shown or not may_show())


class HasBar(Protocol):
    """Who says beside a bar what keeps it waiting."""

    bar: tqdm | None


@contextmanager
def bar_of(owner: HasBar, epochs: int, *, shown: bool) -> Iterator[tqdm]:
    """The bar of a run, which its owner has meanwhile."""
    with progress_bar(epochs, shown=shown) as owner.bar:
        try:
            yield owner.bar
        finally:
            owner.bar = None


def show_epoch(bar: tqdm, row: Row, metric: str | None) -> None:
    """Move a progress bar on by an epoch, with its metric or its first training term."""
    shown = metric or next(name for name in row if name.startswith("train_"))
    bar.set_postfix_str(f"{shown} {row[shown]:.2f}")
    bar.update()
