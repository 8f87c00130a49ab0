"""By which metric epochs are compared, and when a run stops early."""

from __future__ import annotations

from tqdm import tqdm

from ..process.distributed import rank_and_world
from .history import Row


def check_limits(patience: int | None, max_skips: int) -> None:
    """Refuse a patience of no epoch, and a negative number of steps to pass over."""
    if patience is not None and patience < 1:
        raise ValueError(f"fit: expected patience >= 1, got {patience}. Fix: patience=20.")
    if max_skips < 0:
        raise ValueError(f"fit: expected max_skips >= 0, got {max_skips}. Fix: max_skips=0.")


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
    rank, _ = rank_and_world()
    return tqdm(total=epochs, unit="epoch", disable=not shown or rank > 0)


def show_epoch(bar: tqdm, row: Row, metric: str | None) -> None:
    """Move a progress bar on by an epoch, with its metric or its first training term."""
    shown = metric or next(name for name in row if name.startswith("train_"))
    bar.set_postfix_str(f"{shown} {row[shown]:.2f}")
    bar.update()
