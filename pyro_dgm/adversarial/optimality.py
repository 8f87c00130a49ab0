"""How far is a generator from the data's law? A fresh critic, fitted to the frozen generator, bounds it from below."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil, floor, log, sqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from ..evaluation.estimate import Estimate
from ..inference.run.data import check_data, split_rows, take_rows
from ..inference.run.estimates import estimating, placed
from ..inference.run.states import derive_seed, fork_rng
from .critics import logits
from .drawing import Fakes
from .fitting import AdamFit, CriticFit
from .games import NonSaturating

BLOCK = 10_000  # data that are generated or scored at once
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Optimality:
    r"""What a fresh critic knows of held-out data: $D = \pi / (\pi + p)$ if it is the best one, ½ everywhere if p = π.

    Every figure is over held-out data, its standard error too, the fitted critic given. No critic exceeds the best
    one, so that V̂, JSD and TV are lower bounds *in expectation*; how tight they are, the critic's family decides.

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
        return Estimate(self.value.value / 2 + log(2), self.value.stderr / 2)

    @property
    def total_variation(self) -> Estimate:
        r"""$TV(\pi, p) \ge 2\,\mathrm{accuracy} - 1$ in expectation, at most 1."""
        return Estimate(2 * self.accuracy.value - 1, 2 * self.accuracy.stderr)

    def __str__(self) -> str:
        return "\n".join(
            [
                f"a fresh critic, fitted to {self.num_train} real data, on {self.num_held_out} held-out ones:",
                f"V        {_row(self.value)}  {self.kind}; −1.386 where the laws agree",
                f"JSD      {_row(self.jsd)}  {self.kind}, nats",
                f"TV       {_row(self.total_variation)}  {self.kind}",
                f"accuracy {_row(self.accuracy)}  ½ + ½ TV for the best critic",
                *(
                    f"D({name})  "
                    + ", ".join(f"{level:.0%} {found}" for level, found in quantiles.items())
                    for name, quantiles in (
                        ("real", self.quantiles_real),
                        ("fake", self.quantiles_fake),
                    )
                ),
            ]
        )


def optimality_report(
    generator: Callable | Tensor,
    data: Any,
    critic: Callable[[], nn.Module],
    fit: CriticFit = AdamFit(),  # noqa: B008 - frozen
    *,
    held_out: float = 0.5,
    noise: bool = False,
    seed: int = 0,
) -> Optimality:
    r"""$\max_D E_\pi \log D + E_p \log(1 - D) = 2\,JSD(\pi, p) - 2 \log 2$, by a fresh critic on held-out data.

    The generator stays as it is. Real data are split; the critic is fitted to one part and as many fresh fakes, and
    scored on the other part and as many others. Fit it on data that the generator was not trained on, or memorised data
    look as good as new ones.

    Args:
        generator: a Pyro program that generates, or fakes `(M, *event)` from anywhere; with context one for each of
            its rows, in their order.
        data: `(N, *event)`, or a tuple with context `(x, c, …)`: then the laws of x beside c are compared.
        critic: builds a fresh critic, such as `lambda: mlp(2, 64, 64, 1)`.
        fit: how the critic is fitted; `LBFGSFit()` for one with few weights.
        held_out: share of the data that is scored.
        noise: whether fakes are draws of the observation, in place of its mean, as in `GANTrainer`.
        seed: of the fakes, the split and the critic; the random state outside stays as it is.

    Raises:
        TypeError: if `critic` is a critic and no function that builds one, or `data` is a program.
        ValueError: for a share outside (0, 1), fewer than two data in a part, data and fakes of different shapes, NaN
            or infinite values in either or in the critic's logits, or fakes that are not one per row of the context.

    References:
        Goodfellow et al. 2014, arXiv:1406.2661 (theorem 1); Lopez-Paz, Oquab 2017, arXiv:1610.06545.

    Example:
        >>> from pyro_dgm.gan import LBFGSFit
        >>> x = torch.randn(4000, 1, generator=torch.Generator().manual_seed(0))
        >>> report = optimality_report(x[:2000], x[2000:] + 2, lambda: nn.Linear(1, 1), LBFGSFit())
        >>> bool(abs(report.jsd.value - 0.3368) < 5 * report.jsd.stderr), report.kind
        (True, 'lower bound in expectation')
    """
    if isinstance(critic, nn.Module):
        raise TypeError(
            f"optimality_report: expected a function that builds a fresh critic, got {type(critic).__name__}, which "
            "may have seen the held-out data. Fix: critic=lambda: mlp(2, 64, 1)."
        )
    if callable(data):
        raise TypeError(
            f"optimality_report: expected the generator and then the data, got {type(data).__name__} as data. "
            "Fix: optimality_report(generator, x, critic)."
        )
    real = placed(generator, data if isinstance(data, tuple) else (data,))
    fake = (_fakes(generator, real, noise, derive_seed(seed, 0)), *real[1:])
    _check_alike(real, fake[0])
    with fork_rng(real[0], seed=derive_seed(seed, 1)):
        parts = [_split(batch, held_out) for batch in (real, fake)]
        fresh = critic().to(real[0].device)
        fit(fresh, NonSaturating(), parts[0][0], parts[1][0])
    return _report(fresh, parts[0][1], parts[1][1], len(parts[0][0][0]))


def _fakes(generator: Any, real: tuple, noise: bool, seed: int) -> Tensor:  # noqa: FBT001
    """As many fakes as data, each under the context of its datum; or those that are given."""
    if not callable(generator):
        return torch.as_tensor(generator).to(real[0].device)
    fakes = Fakes(generator, noise=noise)
    with estimating(generator, seed=seed):
        return torch.cat([fakes(*batch) for batch in split_rows(real, BLOCK)])


def _check_alike(batch: tuple, fake: Tensor) -> None:
    real = batch[0]
    if real.shape[1:] != fake.shape[1:] or real.dtype != fake.dtype:
        raise ValueError(
            "optimality_report: expected data and fakes of one event shape and dtype, got "
            f"{tuple(real.shape[1:])} {real.dtype} and {tuple(fake.shape[1:])} {fake.dtype}. "
            f"Fix: data.reshape(len(data), *{tuple(fake.shape[1:])}).to({fake.dtype})."
        )
    if len(fake) != len(real) and any(isinstance(c, Tensor) and c.dim() > 0 for c in batch[1:]):
        raise ValueError(
            f"optimality_report: expected one fake per row of the context, {len(real)}, got {len(fake)}. "
            "Fix: optimality_report(generator, (x, c), critic), or the context that the fakes were made under."
        )
    check_data(fake, "optimality_report: fakes")


def _split(batch: tuple, held_out: float) -> tuple[tuple, tuple]:
    """The part to fit to and the part to score, at random."""
    order = torch.randperm(len(batch[0])).to(batch[0].device)
    num = round(len(order) * (1 - held_out))
    if not 0 < held_out < 1 or min(num, len(order) - num) < 2:
        raise ValueError(
            f"optimality_report: expected at least two data to fit to and two held out, got {num} and "
            f"{len(order) - num} for held_out={held_out}. Fix: held_out=0.5, and more data."
        )
    return take_rows(batch, order[:num]), take_rows(batch, order[num:])


def _report(critic: nn.Module, real: tuple, fake: tuple, num_train: int) -> Optimality:
    with estimating(critic, seed=0):
        of_real, of_fake = (
            torch.cat([logits(critic, *b) for b in split_rows(batch, BLOCK)])
            for batch in (real, fake)
        )
    of_real, of_fake = (_checked(c.double()) for c in (of_real, of_fake))
    right = (of_real.sign() + 1) / 2, (1 - of_fake.sign()) / 2
    return Optimality(
        value=_sum_of_means(-softplus(-of_real), -softplus(of_fake)),
        accuracy=_sum_of_means(right[0] / 2, right[1] / 2),
        quantiles_real=_quantiles(of_real.sigmoid()),
        quantiles_fake=_quantiles(of_fake.sigmoid()),
        num_train=num_train,
        num_held_out=len(of_real),
        critic=critic.eval(),
    )


def _checked(found: Tensor) -> Tensor:
    """Logits as they are, unless one is NaN, whose sign would be 0, that of a critic that knows nothing."""
    if num := int((~found.isfinite()).sum()):
        raise ValueError(
            "optimality_report: expected finite logits of the fitted critic, got "
            f"{num} NaN or infinite of {len(found)}. Fix: AdamFit(lr=1e-4), or data of unit scale."
        )
    return found


def _sum_of_means(*terms: Tensor) -> Estimate:
    variance = sum(t.var().item() / len(t) for t in terms)
    return Estimate(sum(t.mean().item() for t in terms), sqrt(variance))


def _quantiles(values: Tensor) -> dict[float, Estimate]:
    return {level: quantile(values, level) for level in LEVELS}


def quantile(values: Tensor, level: float) -> Estimate:
    r"""A quantile with Woodruff's standard error: half the distance of the quantiles at $q \pm \sqrt{q (1 - q) / n}$.

    Args:
        values: independent draws `(n,)`.
        level: q in (0, 1).

    References:
        Woodruff 1952, *Confidence intervals for medians and other position measures*, JASA 47.
    """
    ordered, last = values.sort().values, len(values) - 1
    half = sqrt(level * (1 - level) / len(values))
    below, above = max(0, floor(last * (level - half))), min(last, ceil(last * (level + half)))
    return Estimate(
        ordered[round(last * level)].item(), (ordered[above] - ordered[below]).item() / 2
    )


def _row(found: Estimate) -> str:
    low, high = found.interval()
    return f"{found.value:7.4f} ± {found.stderr:.4f}  (95 %: {low:.4f} … {high:.4f})"
