"""How far is a generator from the data's distribution? A fresh critic bounds it, on held-out data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import log
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from ...contract import PyroProgram
from ...display.tabular import Tabular
from ...evaluation.estimate import Estimate, Share, estimated, sum_of_independent
from ...inference.data.tensors import split_rows, take_rows, to_tensor
from ...inference.process.ambient import full_precision
from ...inference.process.states import derive_seed, evaluation_mode, fork_rng
from ...inference.run.sessions import place_data
from ..checks import describe, require_instance
from ..critics import logits
from ..drawing import Fakes
from ..fitting import AdamFit, Batch, CriticFit
from ..games import NonSaturating
from ..monitoring.measures import quantile
from .arguments import check_alike, check_builder, check_data, check_fit, check_generator

BLOCK = 10_000  # data that are generated or scored at once
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Optimality(Tabular):
    r"""How well a fresh critic tells held-out data from fakes, and the divergences that this bounds.

    The best critic is $D = \pi / (\pi + p)$: ½ everywhere if p = π.

    Every figure is over held-out data, its standard error too, the fitted critic given. No critic exceeds the
    best one, so that V̂, JSD and TV are lower bounds *in expectation*; how tight they are, the critic's
    family decides.

    Attributes:
        value: $\hat V = E_\pi \log D + E_p \log(1 - D)$, nats.
        accuracy: mean of the shares of real data and of fakes that D > ½ tells right; a tie counts half.
        quantiles_real: level → quantile of D over real data.
        quantiles_fake: level → quantile of D over fakes.
        num_train: real data that the critic was fitted to.
        num_held_out: real data that are scored.
        critic: the fitted critic, whose logits estimate $\log \pi / p$.
    """

    value: Estimate
    accuracy: Estimate
    quantiles_real: dict[float, Estimate]
    quantiles_fake: dict[float, Estimate]
    num_train: int
    num_held_out: int
    critic: nn.Module = field(repr=False, compare=False)
    kind = "lower bound in expectation"

    @property
    def jsd(self) -> Estimate:
        r"""$JSD(\pi, p) \ge \frac12 \hat V + \log 2$ in expectation, nats, at most log 2."""
        return self.value.scaled(1 / 2, log(2))

    @property
    def total_variation(self) -> Estimate:
        r"""$TV(\pi, p) \ge 2\,\mathrm{accuracy} - 1$ in expectation, at most 1."""
        return self.accuracy.scaled(2, -1)

    def columns(self) -> dict[str, list[Any]]:
        """One row per figure: its value, standard error, 95 % interval, and what kind of figure it is."""
        table: dict[str, list[Any]] = {
            name: [] for name in ("figure", "value", "stderr", "low", "high", "kind")
        }
        for name, estimate, kind in self._figures():
            low, high = estimate.interval()
            table["figure"].append(name)
            table["value"].append(estimate.value)
            table["stderr"].append(estimate.stderr)
            table["low"].append(low)
            table["high"].append(high)
            table["kind"].append(kind)
        return table

    def _figures(self) -> Iterator[tuple[str, Estimate, str]]:
        yield "V", self.value, self.kind
        yield "JSD", self.jsd, self.kind
        yield "TV", self.total_variation, self.kind
        yield "accuracy", self.accuracy, "of this critic"
        for level, estimate in self.quantiles_real.items():
            yield f"D(real) {level:.0%}", estimate, "of this critic"
        for level, estimate in self.quantiles_fake.items():
            yield f"D(fake) {level:.0%}", estimate, "of this critic"

    def __str__(self) -> str:
        num_train, num_held_out = self.num_train, self.num_held_out
        lines = [
            f"a fresh critic, fitted to {num_train} real data, on {num_held_out} held-out ones:",
            f"V        {_figure(self.value)}  {self.kind}; −1.386 where the distributions agree",
            f"JSD      {_figure(self.jsd)}  {self.kind}, nats",
            f"TV       {_figure(self.total_variation)}  {self.kind}",
            f"accuracy {_figure(self.accuracy)}  ½ + ½ TV for the best critic",
            f"D(real)  {_levels(self.quantiles_real)}",
            f"D(fake)  {_levels(self.quantiles_fake)}",
        ]
        return "\n".join(lines)


def _figure(estimate: Estimate) -> str:
    low, high = estimate.interval()
    return f"{estimate.value:7.4f} ± {estimate.stderr:.4f}  (95 %: {low:.4f} … {high:.4f})"


def _levels(quantiles: dict[float, Estimate]) -> str:
    return ", ".join(f"{level:.0%} {estimate}" for level, estimate in quantiles.items())


def optimality_report(
    generator: PyroProgram | Tensor,
    data: Any,
    critic: Callable[[], nn.Module],
    fit: CriticFit = AdamFit(),  # noqa: B008 - frozen
    *,
    held_out: float = 0.5,
    noise: bool = False,
    seed: int = 0,
) -> Optimality:
    r"""$\max_D E_\pi \log D + E_p \log(1 - D) = 2\,JSD(\pi, p) - 2 \log 2$, by a fresh critic.

    The generator stays as it is. Real data are split; the critic is fitted to one part and as many fresh
    fakes, and scored on the other part and as many others. Fit it on data that the generator was not trained
    on, or memorised data look as good as new ones.

    Args:
        generator: a Pyro program that generates, or fakes `(M, *event)` from anywhere; with context one for
            each of its rows, in their order.
        data: `(N, *event)`, or a tuple with context `(x, c, …)`: then the joint distributions of x and c are
            compared.
        critic: builds a fresh critic, such as `lambda: mlp(2, 64, 64, 1)`.
        fit: how the critic is fitted; `LBFGSFit()` for one with few weights.
        held_out: share of the data that is scored.
        noise: whether fakes are draws of the observation, in place of its mean, as in `GANTrainer`.
        seed: of the fakes, the split and the critic; the random state outside stays as it is.

    Raises:
        TypeError: if `critic` is a critic and no function that builds one, `data` is a program, `generator`
            is a class, a distribution or a trainer, or `fit` is a class or a game.
        ValueError: for a share outside (0, 1), fewer than two data in a part, data and fakes of different
            shapes, NaN or infinite values in either or in the critic's logits, or fakes that are not one per
            row of the context.

    References:
        Goodfellow et al. 2014, arXiv:1406.2661 (theorem 1); Lopez-Paz, Oquab 2017, arXiv:1610.06545.

    Example:
        >>> from pyro_dgm.gan import LBFGSFit
        >>> x = torch.randn(4000, 1, generator=torch.Generator().manual_seed(0))
        >>> report = optimality_report(x[:2000], x[2000:] + 2, lambda: nn.Linear(1, 1), LBFGSFit())
        >>> bool(abs(report.jsd.value - 0.3368) < 5 * report.jsd.stderr), report.kind
        (True, 'lower bound in expectation')
    """
    check_generator(generator)
    check_data(data)
    check_builder(critic)
    check_fit(fit)
    real = place_data(generator, data if isinstance(data, tuple) else (data,))
    x, *context = real
    y = _fakes(generator, real, noise=noise, seed=derive_seed(seed, 0))
    check_alike(real, y)
    fake = (y, *context)
    with (
        fork_rng(x, seed=derive_seed(seed, 1)),
        full_precision(x.device),
        torch.inference_mode(mode=False),
        torch.enable_grad(),
    ):
        real_train, real_held_out = _split(real, held_out)
        fake_train, fake_held_out = _split(fake, held_out)
        fresh_critic = _build(critic).to(x.device)
        fit(fresh_critic, NonSaturating(), real_train, fake_train)
    return _score(fresh_critic, real_held_out, fake_held_out, num_train=len(real_train[0]))


def _fakes(generator: Any, real: Batch, *, noise: bool, seed: int) -> Tensor:
    """As many fakes as data, each under the context of its datum; or those that are given."""
    if not callable(generator):
        return to_tensor(generator).to(real[0].device)
    fakes = Fakes(generator, noise=noise)
    with evaluation_mode(generator, seed=seed):
        return torch.cat([fakes(*rows) for rows in split_rows(real, BLOCK)])


def _split(batch: Batch, held_out: float) -> tuple[Batch, Batch]:
    """The part to fit to and the part to score, at random."""
    num = len(batch[0])
    num_train = round(num * (1 - held_out))
    num_held_out = num - num_train
    order = torch.randperm(num).to(batch[0].device)
    if not 0 < held_out < 1 or min(num_train, num_held_out) < 2:
        raise ValueError(
            "optimality_report: expected at least two data to fit to and two held out, "
            f"got {num_train} and {num_held_out} for held_out={held_out}. "
            "Fix: held_out=0.5, and more data."
        )
    return take_rows(batch, order[:num_train]), take_rows(batch, order[num_train:])


def _build(critic: Callable[[], nn.Module]) -> nn.Module:
    fix = "critic=lambda: mlp(2, 64, 1)"
    try:
        fresh_critic = critic()
    except TypeError as error:
        raise TypeError(
            "optimality_report: expected a function without arguments that builds a fresh critic, "
            f"got {describe(critic)}: {error}. Fix: {fix}."
        ) from error
    require_instance(
        "optimality_report", fresh_critic, nn.Module, "critic() to be an nn.Module", fix
    )
    return fresh_critic


def _score(critic: nn.Module, real: Batch, fake: Batch, num_train: int) -> Optimality:
    """The figures of a fitted critic on held-out data, from its logits c: D = σ(c)."""
    with evaluation_mode(critic, seed=0):
        c_real = _finite_logits(critic, real)
        c_fake = _finite_logits(critic, fake)
    real_right = (1 + c_real.sign()) / 2
    fake_right = (1 - c_fake.sign()) / 2
    return Optimality(
        value=sum_of_independent(_mean(-softplus(-c_real)), _mean(-softplus(c_fake))),
        accuracy=_balanced_share(real_right, fake_right),
        quantiles_real=_quantiles(c_real.sigmoid()),
        quantiles_fake=_quantiles(c_fake.sigmoid()),
        num_train=num_train,
        num_held_out=len(c_real),
        critic=critic.eval(),
    )


def _finite_logits(critic: nn.Module, batch: Batch) -> Tensor:
    """Logits in float64, none of them NaN: its sign would be 0, that of a critic that knows nothing."""
    blocks = [logits(critic, *rows) for rows in split_rows(batch, BLOCK)]
    c = torch.cat(blocks).double()
    num_bad = int((~c.isfinite()).sum())
    if num_bad:
        raise ValueError(
            "optimality_report: expected finite logits of the fitted critic, "
            f"got {num_bad} NaN or infinite of {len(c)}. "
            "Fix: AdamFit(lr=1e-4), or data of unit scale."
        )
    return c


def _balanced_share(real_right: Tensor, fake_right: Tensor) -> Share:
    """The mean of two shares of equally many data, with the standard error of two samples."""
    mean = sum_of_independent(_mean(real_right / 2), _mean(fake_right / 2))
    return Share(mean.value, mean.stderr, degrees=len(real_right) + len(fake_right) - 1)


def _mean(terms: Tensor) -> Estimate:
    """The mean over independent data."""
    return estimated(terms[None])


def _quantiles(values: Tensor) -> dict[float, Estimate]:
    return {level: quantile(values, level) for level in LEVELS}
