"""Loggers: who is told of a run as it goes, and may fail without ending it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from warnings import warn

from tqdm import tqdm

from ...inference.training.history import Row


class Logger:
    """Is told of a run: where it begins, its steps, its epochs, its results; abstract. A subclass has what it needs.

    Each method is called on rank 0 alone. What one raises is a warning, the first time, and the run goes on. A resumed
    run begins again.

    Example:
        >>> class Print(Logger):
        ...     def epoch(self, seed, row):
        ...         print(seed, row["epoch"], row["val_nelbo"])
        >>> Print().epoch(0, {"epoch": 1, "val_nelbo": 84.5})
        0 1 84.5
    """

    def begin(self, folder: Path, config: Mapping[str, Any]) -> None:
        """The run begins, or goes on.

        Args:
            folder: its directory.
            config: what its `config.yaml` says.
        """

    def step(self, seed: int, num_step: int, terms: Row) -> None:
        """A step was taken: the terms of its batch, in nats per datum.

        The terms stay on the device until 64 steps are there, or the epoch ends, and are then handed over together: one
        host read. Where no logger has this method there is none.
        """

    def epoch(self, seed: int, row: Row) -> None:
        """An epoch has ended: its row of `metrics.jsonl`."""

    def end(self, results: Sequence[Mapping[str, Any]]) -> None:
        """The run has ended: a row of `results.jsonl` for each seed."""


class PrintEvery(Logger):
    """Writes the metrics of every so many epochs to the terminal.

    Args:
        epochs: between two lines.
    """

    def __init__(self, epochs: int = 10):
        if epochs < 1:
            raise ValueError(
                f"PrintEvery: expected epochs of 1 or more, got {epochs}. "
                "Fix: PrintEvery(10), --loggers.epochs=10 on the command line."
            )
        self.epochs = epochs

    def epoch(self, seed: int, row: Row) -> None:  # noqa: D102
        number = int(row["epoch"])
        if number % self.epochs == 0:
            names = [name for name in ("train_loss", "val_loss", "val_nelbo") if name in row]
            told = "  ".join(f"{name} {row[name]:.4g}" for name in names)
            tqdm.write(f"seed {seed}  epoch {number}  {told}", file=sys.stderr)


class TensorBoard(Logger):
    """Curves for TensorBoard, a line for each seed: `pip install tensorboard`, `tensorboard --logdir runs`.

    Args:
        folder: default: `tensorboard/` in the run directory.
        steps: whether steps are drawn beside epochs.

    Raises:
        ImportError: without TensorBoard.
    """

    def __init__(self, folder: str | None = None, steps: bool = False):  # noqa: FBT001, FBT002
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError(
                "TensorBoard: expected the package tensorboard, got none. Fix: pip install tensorboard."
            ) from error
        self.folder = folder
        self.steps = steps
        self._make: Callable[[str], Any] = SummaryWriter
        self._root = Path()
        self._writers: dict[int, Any] = {}

    def begin(self, folder: Path, config: Mapping[str, Any]) -> None:  # noqa: D102
        self._root = folder / "tensorboard" if self.folder is None else Path(self.folder)

    def step(self, seed: int, num_step: int, terms: Row) -> None:  # noqa: D102
        if self.steps:
            for name, value in terms.items():
                self._writer(seed).add_scalar(f"step/{name}", value, num_step)

    def epoch(self, seed: int, row: Row) -> None:  # noqa: D102
        for name, value in row.items():
            if name != "epoch":
                self._writer(seed).add_scalar(f"epoch/{name}", value, int(row["epoch"]))

    def end(self, results: Sequence[Mapping[str, Any]]) -> None:  # noqa: D102
        for row in results:
            if "nll" in row:
                self._writer(row["seed"]).add_scalar("test/nll", row["nll"], 0)
        for writer in self._writers.values():
            writer.close()
        self._writers = {}

    def _writer(self, seed: int) -> Any:
        if seed not in self._writers:
            self._writers[seed] = self._make(str(self._root / f"seed-{seed}"))
        return self._writers[seed]


class Loggers:
    """Tells several loggers; what one raises is warned of once, and it is told of nothing more.

    Args:
        loggers: who is told.
    """

    def __init__(self, loggers: Sequence[Logger] = ()):
        self._loggers = list(loggers)

    @property
    def on_step(self) -> Callable[[int, int, Row], None] | None:
        """What training calls for each step: nothing where no logger has a `step` of its own."""
        takers = [logger for logger in self._loggers if type(logger).step is not Logger.step]
        if not takers:
            return None

        def tell(seed: int, num_step: int, terms: Row) -> None:
            for logger in takers:
                if logger in self._loggers:
                    self._tell(logger, lambda one: one.step(seed, num_step, terms))

        return tell

    def begin(self, folder: Path, config: Mapping[str, Any]) -> None:
        """Tell that the run begins."""
        self._tell_all(lambda logger: logger.begin(folder, config))

    def epoch(self, seed: int, row: Row) -> None:
        """Tell of an epoch."""
        self._tell_all(lambda logger: logger.epoch(seed, row))

    def end(self, results: Sequence[Mapping[str, Any]]) -> None:
        """Tell that the run has ended."""
        self._tell_all(lambda logger: logger.end(results))

    def _tell_all(self, tell: Callable[[Logger], None]) -> None:
        for logger in list(self._loggers):
            self._tell(logger, tell)

    def _tell(self, logger: Logger, tell: Callable[[Logger], None]) -> None:
        try:
            tell(logger)
        except Exception as error:  # of a user's logger: whatever it is, the run is worth more
            self._loggers.remove(logger)
            warn(
                f"logger {type(logger).__name__}: expected it to take what it was told, got {type(error).__name__}: "
                f"{error}. The run goes on without it. Fix: the class of that name.",
                stacklevel=4,
            )
