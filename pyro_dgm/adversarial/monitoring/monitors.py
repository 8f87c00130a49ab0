"""Signs that a game goes wrong, measured after an epoch: they warn, and never stop a run."""

from __future__ import annotations

import warnings
from math import nan
from numbers import Integral
from typing import Any

import torch

from ...evaluation.estimate import Estimate
from ...inference.data.tensors import take_rows
from ...inference.process.states import derive_seed, evaluation_mode, fork_rng
from ...inference.run.sessions import place_data, require_positive
from ...inference.training.history import History, Row
from ..checks import require_instance
from ..critics import logits
from ..trainer import GANTrainer
from .limits import Limits, limit_warnings
from .measures import critic_balance, ratio_identities, spread
from .swings import oscillation

SHORTEST = 30  # epochs before a swing is looked for: noise of fewer looks like one
WINDOW = 100  # latest epochs in which it is looked for


class MonitorWarning(UserWarning):
    """A monitor has left its range: what was measured, what the limit is, and what to do."""


class Monitors:
    r"""Measures a game after every epoch: `trainer.fit(x, on_epoch=Monitors(trainer, x))`.

    Fakes are those of the weights in training, against which the critic plays, not of their average. A
    monitor warns as it leaves its range, and is silent until it has come back. `rows` keeps all that was
    measured, by epoch: `balance`, `spread`, `duplicates`, `coverage`, `oscillation` and its `period` in
    epochs, and `real_over_fake` $E_p\,\pi/p$ and `fake_over_real` $E_\pi\,p/\pi$ where the game makes the
    critic a log ratio; standard errors as `…_stderr`.

    An epoch's losses are means over its steps: a swing that is shorter than four epochs is not seen as one,
    and none is before 30 epochs.

    Args:
        trainer: whose game.
        real: data `(N, *event)`, or a tuple with their context; `num` of them are drawn once.
        num: data and fakes of a measurement, which costs O(num²).
        limits: where to warn.
        patience: epochs before the first warning; a game starts far from its end.
        seed: of the choice and of the fakes; the random state of training stays as it is.

    Raises:
        TypeError: if the first argument is no trainer of a game, or `limits` is a class.
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
        require_instance(
            "Monitors", trainer, GANTrainer, "a GANTrainer first", "Monitors(trainer, x)"
        )
        require_instance(
            "Monitors", num, Integral, "num as an integer", "Monitors(trainer, (x, c))"
        )
        require_instance("Monitors", limits, Limits, "limits", "limits=Limits(strong=0.99)")
        require_positive(num=num)
        self.trainer = trainer
        self.num = num
        self.limits = limits
        self.patience = patience
        self.seed = seed
        batch = place_data(trainer.module, real if isinstance(real, tuple) else (real,))
        self.real = self._subset(batch)
        self.rows = History()
        self.losses = History()
        self._passed: set[str] = set()  # names of the limits that are passed as things stand

    def _subset(self, batch: tuple[Any, ...]) -> tuple[Any, ...]:
        """The data to measure by, drawn once."""
        x = batch[0]
        if min(self.num, len(x)) < 6:
            raise ValueError(
                f"Monitors: expected at least 6 data to measure by, got {len(x)} "
                f"and num={self.num}. Fix: num=500."
            )
        with fork_rng(seed=derive_seed(self.seed, 0)):
            rows = torch.randperm(len(x))[: self.num]
        return take_rows(batch, rows.to(x.device))

    def __call__(self, row: Row) -> None:
        """Measure after an epoch whose row of the history this is, and warn."""
        self.losses.append(row)
        measures = {"epoch": row["epoch"], **self.measured(), **self._oscillation()}
        self.rows.append(measures)
        if len(self.rows) > self.patience:
            self._warn(measures)

    def measured(self) -> Row:
        """Ratio identities, balance and spread of the game as it stands."""
        trainer = self.trainer
        with evaluation_mode(trainer.module, seed=derive_seed(self.seed, 1, trainer.num_epochs)):
            x, *context = self.real
            fakes = trainer.fakes(x, *context)
            real_logits = logits(trainer.critic, x, *context)
            fake_logits = logits(trainer.critic, fakes, *context)
            balance = critic_balance(real_logits, fake_logits)
            measures = {**_entries("balance", balance), **vars(spread(real=x, fake=fakes))}
        if not trainer.game.is_log_ratio:
            return measures
        real_over_fake, fake_over_real = ratio_identities(
            trainer.game.log_ratio(real_logits, fake_logits),
            trainer.game.log_ratio(fake_logits, fake_logits),
        )
        return {
            **measures,
            **_entries("real_over_fake", real_over_fake),
            **_entries("fake_over_real", fake_over_real),
        }

    def _oscillation(self) -> Row:
        """Of the loss that swings more; the last 100 epochs alone, so that an early swing is forgotten."""
        if len(self.losses) < SHORTEST:
            return {"oscillation": 0.0, "period": nan}
        of_critic = self._loss_oscillation("train_critic")
        of_generator = self._loss_oscillation("train_generator")
        index, period = of_generator if of_generator[0] > of_critic[0] else of_critic
        return {"oscillation": index, "period": period}

    def _loss_oscillation(self, name: str) -> tuple[float, float]:
        losses = self.losses.column(name)
        return oscillation(torch.tensor(losses[-WINDOW:], device="cpu"))

    def _warn(self, measures: Row) -> None:
        texts = limit_warnings(measures, self.limits, len(self.real[0]))
        for name, text in texts.items():
            if name not in self._passed:
                epoch = f"{measures['epoch']:.0f}"
                warnings.warn(MonitorWarning(f"epoch {epoch}: {text}"), stacklevel=3)
        self._passed = set(texts)

    def __repr__(self) -> str:
        return (
            f"Monitors(num={self.num}, limits={self.limits}, "
            f"patience={self.patience}, seed={self.seed})"
        )


def _entries(name: str, estimate: Estimate) -> Row:
    return {name: estimate.value, f"{name}_stderr": estimate.stderr}
