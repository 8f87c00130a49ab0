"""One declaration, several seeds: trainers that differ in their seed alone, trained at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from warnings import warn

import pyro
import torch
from torch import nn

from ...data.batches import Batch
from ...data.reading import as_batches
from ...process.states import check_seed, fork_rng
from ..checkpoints import KEEP, CheckpointFile
from ..driving import Plan
from ..history import Row
from ..monitoring import progress_bar
from ..svi import SVITrainer
from ..trainer import Trainer
from .checks import check_seeds, check_trainers
from .choice import Choice
from .histories import SeedHistory
from .runs import SeedRun, take_side_by_side
from .steps import SideBySide


class Replicates:
    r"""Runs $s = 1, …, S$ of one declaration, which differ in their seed alone and are trained at once.

    Each is what it would be by itself,

        torch.manual_seed(seed)
        trainer = build()
        trainer.fit(train, val, …, seed=seed)

    with `compile=False`, up to the rounding of other kernels: initialization, order of the data, noise, validation,
    best epoch, early stopping and checkpoints are its own. Loss and gradient of all runs are one graph (kernels with
    `compile=True` in the trainer, compiled once for all), and a fused Adam moves all of them by one call. A program
    whose noise depends on a value, as that of a discrete guide does, or that reads the value of a tensor has no such
    graph; then, with `autocast`, and for other trainers than `SVITrainer`, each run takes its own steps in turn: see
    `at_once`.

    Args:
        build: makes a trainer with parts of its own.
        seeds: one for each run.

    Attributes:
        trainers: by run, as if each had been trained alone.
        seeds: by run.
        errors: by seed, what has ended a run whose numbers were not finite any more; it stands at its last good epoch.

    Raises:
        TypeError: for a trainer in place of a function that builds one.
        ValueError: without a seed, for a seed twice, for parts that two trainers share, with several processes.

    Example:
        >>> import pyro.distributions as dist
        >>> from pyro_dgm import Bernoulli, Conditional, ELBO, StandardNormal, SVITrainer, VAE, mlp
        >>> def build():
        ...     vae = VAE(StandardNormal(2), Bernoulli(mlp(2, 9)), Conditional(dist.Normal, mlp(9, 4)))
        ...     return SVITrainer(ELBO(vae.model, vae.guide), lr=1e-2)
        >>> runs = Replicates(build, seeds=range(3))
        >>> history = runs.fit(torch.ones(32, 9), epochs=2, progress=False)
        >>> history["train_nelbo"].shape
        (3, 2)
    """

    def __init__(self, build: Callable[[], Trainer], seeds: Sequence[int]):
        self.seeds = [check_seed(seed) for seed in seeds]
        check_seeds(self.seeds, build)
        self.trainers: list[Trainer] = []
        for seed in self.seeds:
            with fork_rng(seed=seed):
                self.trainers.append(build())
        check_trainers(self.trainers)
        _say_once(self.trainers)
        self.errors: dict[int, Exception] = {}
        self._choice = Choice()

    def __len__(self) -> int:
        return len(self.trainers)

    def __iter__(self) -> Iterator[Trainer]:
        return iter(self.trainers)

    @property
    def at_once(self) -> int | None:
        """How many runs one graph takes: 1 where each takes its own steps; `None` before the first `fit`."""
        return self._choice.num

    @property
    def pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """Model and guide of each run, as `nll` and `seeds_to_arviz` take them.

        Raises:
            TypeError: of trainers without an objective.
        """
        found = []
        for trainer in self.trainers:
            if not isinstance(trainer, SVITrainer):
                raise TypeError(
                    f"pairs: expected trainers of model and guide, got {type(trainer).__name__}. "
                    "Fix: [trainer.generator for trainer in runs]."
                )
            found.append((trainer.objective.model, trainer.objective.guide))
        return found

    @property
    def history(self) -> SeedHistory:
        """All histories as one."""
        return SeedHistory(self.seeds, [trainer.history.rows for trainer in self.trainers])

    def fit(
        self,
        train: Any,
        val: Any = None,
        epochs: int | Sequence[int] = 1,
        batch_size: int = 128,
        *,
        monitor: str | None = None,
        patience: int | None = None,
        checkpoint: str | Path | None = None,
        checkpoint_every: int | None = None,
        checkpoint_keep: int = KEEP,
        on_epoch: Callable[[int, Row], None] | None = None,
        on_step: Callable[[int, int, Row], None] | None = None,
        progress: bool = True,
    ) -> SeedHistory:
        """Train every run for `epochs` more epochs; the arguments are those of `Trainer.fit`.

        Args:
            train: data of all runs, in an order of its own for each.
            val: scored after every epoch of each.
            epochs: of each run, from here on; one number for all of them, or one for each, as after a resume: 0 leaves
                a run as it is.
            batch_size: data per step of one run.
            monitor: metric by which a run compares its epochs.
            patience: epochs without a better one, after which a run ends.
            checkpoint: folder, in which run s writes `seed-s.pt`, which `Trainer.resume` reads as well.
            checkpoint_every: write it after every so many steps as well.
            checkpoint_keep: how many of a run stay.
            on_epoch: called with the seed and the row of every epoch of every run.
            on_step: called with seed, number and terms of every step of every run, up to 64 at once.
            progress: whether to show a bar.

        Returns:
            The histories of all epochs so far, as one.

        Warns:
            UserWarning: for a run that has ended because its numbers were not finite; the others go on.

        Raises:
            ValueError: as `Trainer.fit`, for what concerns all runs, and if no run is left.
        """
        num_epochs = self._epochs(epochs)
        going = self._going(num_epochs)
        first = self.trainers[going[0]]
        device = first.state.device
        # Moved to the device once, for all runs.
        data = as_batches(train, batch_size, first.model, device, shuffle=True, split=True)
        if val is not None:
            val = as_batches(
                val, batch_size, first.model, device, shuffle=False, split=True, name="val"
            )
        trainers = [self.trainers[row] for row in going]
        with (
            _around(device),
            progress_bar(sum(num_epochs[row] for row in going), shown=progress) as bar,
        ):
            runs: list[SeedRun] = []
            for row in going:
                seed = self.seeds[row]
                plan = Plan(
                    epochs=num_epochs[row],
                    batch_size=batch_size,
                    monitor=monitor,
                    patience=patience,
                    seed=seed,
                    file=CheckpointFile(_path(checkpoint, seed), checkpoint_every, checkpoint_keep),
                    on_epoch=_Report(seed, on_epoch, bar.update),
                    on_step=None if on_step is None else partial(on_step, seed),
                    progress=False,
                )
                fit = self.trainers[row].fitting(data, val, plan)
                runs.append(SeedRun(len(runs), fit, device))

            def choose(batches: Sequence[Batch]) -> SideBySide:
                return self._choice.steps(trainers, batches, bar.set_postfix_str)

            take_side_by_side(runs, choose)
        self._record(going, runs)
        return self.history

    def _epochs(self, epochs: int | Sequence[int]) -> list[int]:
        """How many more epochs each run has."""
        if not isinstance(epochs, Sequence):
            return [epochs] * len(self)
        if len(epochs) != len(self) or not any(epochs):
            raise ValueError(
                f"fit: expected epochs as one number, or one for each of {len(self)} seeds with some above 0, "
                f"got {list(epochs)}. Fix: epochs=10."
            )
        return list(epochs)

    def _going(self, epochs: Sequence[int]) -> list[int]:
        """The runs that have epochs before them, and that no error has ended."""
        alive = [row for row, seed in enumerate(self.seeds) if seed not in self.errors]
        if not alive:
            raise next(iter(self.errors.values()))
        return [row for row in alive if epochs[row] != 0]

    def _record(self, going: Sequence[int], runs: Sequence[SeedRun]) -> None:
        for row, run in zip(going, runs, strict=True):
            if run.error is not None:
                seed = self.seeds[row]
                self.errors[seed] = run.error
                warn(f"seed {seed}: {run.error}", stacklevel=3)
        if len(self.errors) == len(self.seeds):
            raise next(iter(self.errors.values()))

    def resume(self, folder: str | Path) -> None:
        """Go on from the checkpoints of all runs: the next `fit` goes on as if the first had never stopped.

        Raises:
            FileError: if one is missing or damaged.
            ValueError: for the checkpoint of a trainer with other settings.
        """
        for seed, trainer in zip(self.seeds, self.trainers, strict=True):
            trainer.resume(Path(folder) / _name(seed))

    def save(self, folder: str | Path) -> None:
        """Write everything needed to go on, one file for each run."""
        for seed, trainer in zip(self.seeds, self.trainers, strict=True):
            trainer.save(Path(folder) / _name(seed))

    def __repr__(self) -> str:
        return f"Replicates({self.trainers[0]!r}, seeds={self.seeds})"


@contextmanager
def _around(device: torch.device) -> Iterator[None]:
    """What stands around each of the fits, around all of them: they end in any order."""
    with (
        fork_rng(torch.empty(0, device=device)),
        pyro.validation_enabled(False),
        torch.inference_mode(mode=False),
        torch.enable_grad(),
    ):
        yield


class _Report:
    """Tells the bar and the user of an epoch."""

    def __init__(
        self, seed: int, on_epoch: Callable[[int, Row], None] | None, update: Callable[[], Any]
    ):
        self.seed = seed
        self.on_epoch = on_epoch
        self.update = update

    def __call__(self, row: Row) -> None:
        self.update()
        if self.on_epoch is not None:
            self.on_epoch(self.seed, row)


def _name(seed: int) -> str:
    return f"seed-{seed}.pt"


def _path(folder: str | Path | None, seed: int) -> Path | None:
    return None if folder is None else Path(folder) / _name(seed)


def _say_once(trainers: Sequence[Trainer]) -> None:
    """Let one of them alone say why its steps run eager: it is the same program in all."""
    said: list[str] = []
    for trainer in trainers:
        if trainer.fall_back is not None:
            trainer.fall_back.said = said
