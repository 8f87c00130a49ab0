"""Signs that a game goes wrong, measured after an epoch: they warn, and never stop a run."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from math import isfinite, nan
from typing import Any

import torch
from torch import Tensor

from ..evaluation.estimate import Estimate, estimated
from ..inference.run.data import take_rows
from ..inference.run.estimates import placed
from ..inference.run.session import require_positive
from ..inference.run.states import derive_seed, evaluation_mode, fork_rng
from ..inference.training.history import History, Row
from .critics import logits
from .trainer import GANTrainer

TINY = 1e-300  # one point repeated is as spread as one point repeated
NEIGHBOUR = 5
SHORTEST, WINDOW = 30, 100  # epochs in which a swing is looked for: noise of fewer looks like one


class MonitorWarning(UserWarning):
    """A monitor has left its range: what was measured, what the limit is, and what to do."""


@dataclass(frozen=True)
class Limits:
    r"""Where the monitors warn; the ideal of each stands beside it.

    Attributes:
        identity: distance of $E_p\,r$ and $E_\pi\,1/r$ from 1, beyond 5 standard errors (ideal 0).
        oscillation: index of a loss (ideal 0).
        strong: share of the pairs that the critic orders right, at most (ideal ½; 0.92 for normals two sd apart).
        weak: the same share, at least, less 5 standard errors.
        spread: mean distance of two fakes over that of two real data, at least (ideal 1).
        duplicates: share of fakes that sit on another fake, beyond that of the real data (ideal 0).
        coverage: share of the real data with a fake among their neighbours, at least (ideal 0.97).
    """

    identity: float = 0.5
    oscillation: float = 0.5
    strong: float = 0.98
    weak: float = 0.5
    spread: float = 0.5
    duplicates: float = 0.2
    coverage: float = 0.5


# -- what is measured -----------------------------------------------------------------------------------------------
def ratio_identities(log_r_real: Tensor, log_r_fake: Tensor) -> tuple[Estimate, Estimate]:
    r"""$E_p\,r = 1$ and $E_\pi\,1/r = 1$ for $r = \pi / p$: both means with their standard errors.

    A critic that is not the best one for this generator breaks them. The converse is false: r = 1 keeps both.

    Args:
        log_r_real: $\log r$ at real data `(m,)`, nats.
        log_r_fake: $\log r$ at fakes `(n,)`.

    Example:
        >>> ones, _ = ratio_identities(torch.zeros(5), torch.zeros(5))
        >>> print(ones)
        1.000 ± 0.000
    """
    return estimated(log_r_fake.double().exp()[None]), estimated((-log_r_real.double()).exp()[None])


def critic_balance(real: Tensor, fake: Tensor) -> Estimate:
    r"""$P(C(x) > C(y))$, $x \sim \pi$, $y \sim p$: ½ where the critic cannot tell them apart, 1 where it always can.

    A tie counts half. It needs no threshold and no probability, and so means the same in every game.

    Args:
        real: logits of real data `(m,)`.
        fake: logits of fakes `(n,)`.

    References:
        DeLong, DeLong, Clarke-Pearson 1988, Biometrics 44 (the standard error).

    Example:
        >>> critic_balance(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 1.0])).value
        0.875
    """
    above, below = _share_below(fake, real), 1 - _share_below(real, fake)
    variance = above.var().item() / len(real) + below.var().item() / len(fake)
    return Estimate(above.mean().item(), variance**0.5)


def _share_below(points: Tensor, at: Tensor) -> Tensor:
    ordered = points.sort().values
    found = torch.searchsorted(ordered, at) + torch.searchsorted(ordered, at, right=True)
    return found.double() / (2 * len(points))


def oscillation(series: Tensor) -> tuple[float, float]:
    r"""The index $\omega = \max_\tau \min(1, \tfrac{s_+}{s_-}) \min(\rho_\tau, -\rho_{\tau/2})$ of a series, and its τ.

    $\rho_\tau$ is the correlation of the series, less its line of best fit, with itself τ later, over the pairs that
    there are; $s_-$ and $s_+$ are the standard deviations of the earlier and of the later values. A swing comes back
    after a period and is turned round after half of one, so that an undamped or growing one has ω = 1, a damped one the
    share of the swing that is left a period later. A decay to a limit, or a trend, has ω = 0; white noise stays below
    0.3 for T = 100, below 0.5 for T = 30.

    Args:
        series: `(T,)`; periods from 4 to T/2 are looked at.

    Returns:
        ω in [0, 1] and the period τ in steps of the series, NaN where ω = 0.

    Example:
        >>> index, period = oscillation(torch.arange(100.0).mul(torch.pi / 10).sin())
        >>> index > 0.95, period
        (True, 20.0)
    """
    series = _detrended(series.double())
    found = [_swing(series, period) for period in range(4, len(series) // 2 + 1, 2)]
    best = max(found, default=0.0)
    if best <= 0:
        return 0.0, nan
    # A multiple of the period returns as well: the first peak that is nearly the highest is the period.
    peaks = (
        i
        for i, w in enumerate(found)
        if w >= 0.9 * best and w >= max(found[i + 1 : i + 2], default=0.0)
    )
    return best, 4.0 + 2 * next(peaks)


def _swing(series: Tensor, period: int) -> float:
    back, left = _returned(series, period)
    turned, _ = _returned(series, period // 2)
    return min(1.0, left) * min(back, -turned)


def _detrended(series: Tensor) -> Tensor:
    """A series less its line of best fit; zeros where that is all there is, up to rounding."""
    if len(series) < 3:
        return torch.zeros_like(series)
    time = torch.arange(len(series), dtype=series.dtype)
    time, level = time - time.mean(), series - series.mean()
    rest = level - (level @ time) / (time @ time) * time
    return rest if rest.norm() > 1e-9 * series.norm() else torch.zeros_like(rest)


def _returned(series: Tensor, lag: int) -> tuple[float, float]:
    """Correlation of a series with itself some steps later, and the ratio of the later to the earlier deviations."""
    earlier, later = (part - part.mean() for part in (series[:-lag], series[lag:]))
    before, after = earlier.norm().item(), later.norm().item()
    if before * after == 0:
        return 0.0, 0.0
    return (earlier @ later).item() / (before * after), after / before


@dataclass(frozen=True)
class Spread:
    """How fakes are spread beside as many real data.

    Attributes:
        spread: mean distance of two fakes over that of two real data.
        duplicates: share of fakes nearer to another fake than 99 % of the real data are to each other, less the share
            of real data that are.
        coverage: share of the real data with a fake nearer than their fifth real neighbour.
    """

    spread: float
    duplicates: float
    coverage: float


def spread(*, real: Tensor, fake: Tensor) -> Spread:
    """Mean distance, duplicates and coverage of fakes `(n, *event)` against real data `(n, *event)`.

    Args:
        real: data, six or more.
        fake: fakes, as many.

    References:
        Naeem et al. 2020, arXiv:2002.09797 (coverage).
    """
    real, fake = (x.reshape(len(x), -1).double() for x in (real, fake))
    within_real, within_fake, across = (
        torch.cdist(a, b) for a, b in ((real, real), (fake, fake), (real, fake))
    )
    nearest_real, nearest_fake = (
        d.fill_diagonal_(torch.inf).min(1).values for d in (within_real, within_fake)
    )
    twin = nearest_real.quantile(0.01)
    return Spread(
        spread=((_mean_distance(within_fake) + TINY) / (_mean_distance(within_real) + TINY)).item(),
        duplicates=(
            (nearest_fake <= twin).double().mean() - (nearest_real <= twin).double().mean()
        ).item(),
        coverage=(across.min(1).values <= within_real.kthvalue(NEIGHBOUR, 1).values)
        .double()
        .mean()
        .item(),
    )


def _mean_distance(distances: Tensor) -> Tensor:
    num = len(distances)
    return distances.masked_fill(distances.isinf(), 0).sum() / (num * (num - 1))


# -- when --------------------------------------------------------------------------------------------------------------
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
        limits: Limits = Limits(),
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
        outside = _complaints(found, self.limits)
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


def _complaints(found: Row, limits: Limits) -> dict[str, str]:
    """What is outside its range, and what to do."""
    said, right = {}, f"the critic orders {found['balance']:.3f} of the pairs right"
    if found["balance"] > limits.strong:
        said["strong"] = (
            f"{right} (limit {limits.strong}): it is too strong to teach. Fix: a larger penalty, R1(10.0), or a lower "
            "critic lr."
        )
    if found["balance"] < limits.weak - 5 * found["balance_stderr"]:
        said["weak"] = (
            f"{right}, fewer than a guess (limit {limits.weak}): the generator has left it behind. "
            "Fix: Alternating(n_critic=2), or a higher critic lr."
        )
    if found["oscillation"] > limits.oscillation:
        said["oscillation"] = (
            f"a loss swings with index {found['oscillation']:.2f} (limit {limits.oscillation}) and period "
            f"{found['period']:.0f} epochs. Fix: penalties=(R1(1.0),), lower lr, or ema=0.999 for the samples."
        )
    return {**said, **_of_fakes(found, limits), **_of_ratio(found, limits)}


def _of_fakes(found: Row, limits: Limits) -> dict[str, str]:
    said = {}
    if found["spread"] < limits.spread:
        said["spread"] = (
            f"two fakes are {found['spread']:.3f} times as far apart as two data (limit {limits.spread}): the "
            "generator collapses. Fix: R1 with a larger gamma, or a game that looks at pairs, PairedRelativistic()."
        )
    if found["duplicates"] > limits.duplicates:
        said["duplicates"] = (
            f"{found['duplicates']:.1%} more fakes than data sit on another one (limit {limits.duplicates:.0%}): "
            "few points are made. Fix: more latent dims, or noise=True."
        )
    if found["coverage"] < limits.coverage:
        said["coverage"] = (
            f"{found['coverage']:.1%} of the data have a fake near them (limit {limits.coverage:.0%}): modes are "
            "missing. Fix: train longer, or a larger generator."
        )
    return said


def _of_ratio(found: Row, limits: Limits) -> dict[str, str]:
    return {
        name: f"{name} has mean {found[name]:.3f} ± {found[f'{name}_stderr']:.3f} (expected 1 ± {limits.identity}): "
        "the critic's log ratio is not that of this generator. Fix: Alternating(n_critic=5), a smaller penalty, or "
        "optimality_report, which fits a fresh one."
        for name in ("real_over_fake", "fake_over_real")
        if name in found and not _near_one(found[name], found[f"{name}_stderr"], limits.identity)
    }


def _near_one(value: float, stderr: float, distance: float) -> bool:
    return isfinite(value) and abs(value - 1) <= distance + 5 * stderr
