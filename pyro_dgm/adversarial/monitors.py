"""Signs that a game goes wrong, measured after an epoch: they warn, and never stop a run."""

from __future__ import annotations

import warnings
from math import nan
from typing import Any

import torch

from ..evaluation.estimate import Estimate
from ..inference.run.estimates import evaluation_mode, placed, require_positive, take_rows
from ..inference.run.traces import derive_seed, fork_rng
from ..inference.training.history import History, Row
from .critics import logits
from .limits import Limits, complaints
from .measures import critic_balance, ratio_identities, spread
from .swings import oscillation
from .trainer import GANTrainer

SHORTEST, WINDOW = 30, 100  # epochs in which a swing is looked for: noise of fewer looks like one


class MonitorWarning(UserWarning):
    """A monitor has left its range: what was measured, what the limit is, and what to do."""


class Monitors:
    r"""Measures a game after every epoch: `trainer.fit(x, on_epoch=Monitors(trainer, x))`.

    Fakes are those of the weights in training, against which the critic plays, not of their average. A monitor warns as
    it leaves its range, and is silent until it has come back. `rows` keeps all that was measured, by epoch: `balance`,
    `spread`, `duplicates`, `coverage`, `oscillation` and its `period` in epochs, and `real_over_fake` $E_p\,\pi/p$ and
    `fake_over_real` $E_\pi\,p/\pi$ where the game makes the critic a log ratio; standard errors as `…_stderr`.

    An epoch's losses are means over its steps: a swing that is shorter than four epochs is not seen as one, and
    none is before 30 epochs.

    Args:
        trainer: whose game.
        real: data `(N, *event)`, or a tuple with their context; `num` of them are drawn once.
        num: data and fakes of a measurement, which costs O(num²).
        limits: where to warn.
        patience: epochs before the first warning; a game starts far from its end.
        seed: of the choice and of the fakes; the random state of training stays as it is.

    Raises:
        TypeError: if the first argument is no trainer of a game.
        ValueError: for fewer than six data.
    """

    def __init__(
        self,
        trainer: GANTrainer,
        real: Any,
        num: int = 500,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        patience: int = 10,
        seed: int = 0,
    ):
        if not isinstance(trainer, GANTrainer):
            raise TypeError(
                f"Monitors: expected a GANTrainer first, got {type(trainer).__name__}. Fix: Monitors(trainer, x)."
            )
        require_positive(num=num)
        batch = placed(trainer.module, real if isinstance(real, tuple) else (real,))
        if min(num, len(batch[0])) < 6:
            raise ValueError(
                f"Monitors: expected at least 6 data to measure by, got {len(batch[0])} and num={num}. Fix: num=500."
            )
        with fork_rng(seed=derive_seed(seed, 0)):
            self.real = take_rows(batch, torch.randperm(len(batch[0]))[:num].to(batch[0].device))
        self.trainer, self.limits, self.patience, self.seed = trainer, limits, patience, seed
        self.rows, self.losses = History(), History()
        self._outside: set[str] = set()

    def __call__(self, row: Row) -> None:
        """Measure after an epoch whose row of the history this is, and warn."""
        self.losses.append(row)
        found = {"epoch": row["epoch"], **self.measured(), **self._oscillation()}
        self.rows.append(found)
        if len(self.rows) > self.patience:
            self._warn(found)

    def measured(self) -> Row:
        """Ratio identities, balance and spread of the game as it stands."""
        trainer = self.trainer
        with evaluation_mode(trainer.module, seed=derive_seed(self.seed, 1, trainer.num_epochs)):
            x, *context = self.real
            fakes = trainer.fakes(x, *context)
            real, fake = (
                logits(trainer.critic, x, *context),
                logits(trainer.critic, fakes, *context),
            )
            found = _entries(balance=critic_balance(real, fake)) | vars(spread(real=x, fake=fakes))
        if not trainer.game.is_log_ratio:
            return found
        forward, backward = ratio_identities(
            *(trainer.game.log_ratio(at, fake) for at in (real, fake))
        )
        return {**found, **_entries(real_over_fake=forward, fake_over_real=backward)}

    def _oscillation(self) -> Row:
        """Of the loss that swings more; the last 100 epochs alone, so that an early swing is forgotten."""
        if len(self.losses) < SHORTEST:
            return {"oscillation": 0.0, "period": nan}
        columns = [
            torch.tensor(self.losses.column(f"train_{name}")[-WINDOW:])
            for name in ("critic", "generator")
        ]
        index, period = max((oscillation(column) for column in columns), key=lambda found: found[0])
        return {"oscillation": index, "period": period}

    def _warn(self, found: Row) -> None:
        outside = complaints(found, self.limits)
        for name, text in outside.items():
            if name not in self._outside:
                warnings.warn(MonitorWarning(f"epoch {found['epoch']:.0f}: {text}"), stacklevel=3)
        self._outside = set(outside)


def _entries(**estimates: Estimate) -> Row:
    return {
        f"{name}{end}": v
        for name, e in estimates.items()
        for end, v in (("", e.value), ("_stderr", e.stderr))
    }
