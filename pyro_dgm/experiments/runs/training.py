"""The training of all seeds of an experiment, at once where they are several; and from their checkpoints."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...arviz_export.netcdf import num_bytes_of_draws
from ...files.locking import require_room
from ...inference.process.distributed import raise_together, rank_and_world
from ...inference.process.states import fork_rng
from ...inference.run.structure import preflight
from ...inference.training.history import Row
from ...inference.training.monitoring import Patience
from ...inference.training.replicates.replicates import Replicates
from ...inference.training.trainer import Trainer
from ..configuration.experiment import Experiment
from ..configuration.reading import build
from ..data.checks import check_splits
from .fakes import check_test
from .folders import check_checkpoint
from .layout import CHECKPOINTS, METRICS, checkpoint_of
from .loggers import Loggers
from .metrics import append_metrics, rebuild_metrics

# Room that a seed takes, in sizes of its weights: two checkpoints and a third one as it is written, each with weights,
# their average, the best ones and two moments of the optimizer; and the weights themselves.
ROOM = 16
ROOM_FOR_THE_REST = 2**22  # bytes
NUM_DESCRIBED = 100  # data in posterior.nc
DRAWS_DESCRIBED = 200


class Seeds:
    """The seeds of an experiment in a run directory: a trainer and its programs for each.

    Args:
        experiment: what is trained.
        folder: the run directory.
        device: where.
        loggers: are told of steps and epochs.

    Attributes:
        programs: model and guide by seed.
        trainers: by seed.
        errors: by seed, what has ended a run whose numbers were not finite any more.
    """

    def __init__(
        self,
        experiment: Experiment,
        folder: Path,
        device: torch.device,
        loggers: Loggers,
    ):
        self.experiment = experiment
        self.folder = folder
        self.device = device
        self.loggers = loggers
        declared: list[nn.Module] = []

        def declare() -> Trainer:
            declared.append(experiment.programs().to(device))
            return experiment.trainer(declared[-1], device)

        seeds = experiment.seeds
        self._runs: Replicates | None = None
        if len(seeds) > 1:
            self._runs = Replicates(declare, seeds)
            trainers = self._runs.trainers
        else:
            with fork_rng(seed=seeds[0]):
                trainers = [declare()]
        self.programs = dict(zip(seeds, declared, strict=True))
        self.trainers = dict(zip(seeds, trainers, strict=True))

    @property
    def errors(self) -> dict[int, Exception]:  # noqa: D102
        return {} if self._runs is None else self._runs.errors

    def check(self) -> None:
        """Look at all that is needed before the first step.

        Raises:
            ValueError: for splits that are empty or of different shapes, and for programs that break the contract.
            FileError: for a disk that would be full before the run has ended.
        """
        data = self.experiment.data
        check_splits(data)
        programs: Any = next(iter(self.programs.values()))
        size = sum(t.numel() * t.element_size() for t in programs.state_dict().values())
        of_draws = 0
        if not self.experiment.has_likelihood:
            check_test(data, self.experiment.evaluation.limit)
        else:
            with fork_rng():
                batch = self.experiment.batches().first()
            first = [value[:2].to(self.device) for value in batch]
            structure = build("model", lambda: preflight(programs.model, programs.guide, *first))
            of_draws = num_bytes_of_draws(structure, NUM_DESCRIBED, DRAWS_DESCRIBED)
        with raise_together():
            if rank_and_world()[0] == 0:
                room = (ROOM * size + of_draws) * len(self.programs) + ROOM_FOR_THE_REST
                require_room(self.folder, room)

    def train(self, *, resume: bool, progress: bool = True) -> None:
        """Train every seed up to the epochs of the experiment in all; metrics and checkpoints are written as it goes.

        Args:
            resume: go on from the checkpoints that there are.
            progress: whether to show a bar.

        Raises:
            ValueError: if a resumed run has more epochs already.
            FileError: for a damaged checkpoint.
        """
        if resume:
            for seed, trainer in self.trainers.items():
                if check_checkpoint(self.folder, seed):
                    trainer.resume(checkpoint_of(self.folder, seed))
        (self.folder / CHECKPOINTS).mkdir(exist_ok=True)
        if rank_and_world()[0] == 0:
            histories = {seed: trainer.history for seed, trainer in self.trainers.items()}
            rebuild_metrics(self.folder / METRICS, histories)
        left = [self._epochs_left(trainer) for trainer in self.trainers.values()]
        for trainer, num in zip(self.trainers.values(), left, strict=True):
            if num == 0:  # it was stopped between its training and its evaluation
                trainer.state.deploy()
        if any(left):
            self._fit(left, progress=progress)

    def _fit(self, left: list[int], *, progress: bool) -> None:
        experiment = self.experiment
        train, val = experiment.batches(), experiment.validation()
        options: dict[str, Any] = {"patience": experiment.patience, "progress": progress}
        on_step = self.loggers.on_step if rank_and_world()[0] == 0 else None
        if self._runs is not None:
            options |= {"checkpoint": self.folder / CHECKPOINTS, "on_epoch": self._record}
            options["on_step"] = on_step
            self._runs.fit(train, val, left, experiment.batch_size, **options)
            return
        ((seed, trainer),) = self.trainers.items()
        options |= {"checkpoint": checkpoint_of(self.folder, seed), "seed": seed}
        options["on_epoch"] = partial(self._record, seed)
        options["on_step"] = None if on_step is None else partial(on_step, seed)
        trainer.fit(train, val, left[0], experiment.batch_size, **options)

    def _record(self, seed: int, row: Row) -> None:
        if rank_and_world()[0] == 0:
            append_metrics(self.folder / METRICS, seed, row)
            self.loggers.epoch(seed, row)

    def _epochs_left(self, trainer: Trainer) -> int:
        num, done = self.experiment.epochs, trainer.num_epochs
        if num < done:
            raise ValueError(
                f"expected more epochs than the {done} of the run, got {num}. "
                f"Fix: --epochs={done + num}."
            )
        patience = Patience(trainer.module, (), self.experiment.patience)
        has_ended = done > 0 and patience.is_over(
            done, trainer.best.get("epoch", 0), trainer.state.warm_up
        )
        return 0 if has_ended else num - done
