"""How far draws of a guide are to be trusted: by their importance weights, jointly and for every quantity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..display.tabular import Tabular
from ..evaluation.likelihood.psis import khat, khat_threshold
from ..evaluation.likelihood.smoothing import smooth_weights

MAX_BIAS = 0.05  # of a mean in standard deviations, and of a standard deviation relative to itself
MIN_SPREAD = 1e-12


@dataclass(frozen=True)
class Verdict(Tabular):
    r"""What the weights $w = p / q$ of K draws say of a guide and of every quantity h(z) that is read from it.

    A small joint k-hat says that the weights can be trusted, not that the guide can: the weighted moments are then
    those of the posterior, and `shift` and `ratio` are the errors of the guide's own. A mode where the guide never
    draws leaves no mark on any of them.

    Attributes:
        num: K.
        elbo: $E_q[\log w]$, nats; a lower bound of the log evidence where the priors are proper.
        khat: joint, of w.
        names: the quantities, one for each number of a site.
        mean: of the guide's own draws `(H,)`.
        sd: of the guide's own draws `(H,)`.
        khat_mean: k-hat of $|h - \bar h|\, w$, on which the estimate of a mean depends `(H,)`.
        khat_sd: k-hat of $(h - \bar h)^2 w$, on which that of a standard deviation depends `(H,)`.
        shift: the guide's mean less the weighted one, in weighted standard deviations `(H,)`.
        ratio: the guide's standard deviation over the weighted one `(H,)`.
        noise: standard error of `shift` `(H,)`.

    References:
        Vehtari, Simpson, Gelman, Yao, Gabry 2024, *Pareto smoothed importance sampling*, arXiv:1507.02646, on
        functions h; Yao, Vehtari, Simpson, Gelman 2018, *Yes, but did it work?*, arXiv:1802.02538.
    """

    num: int
    elbo: float
    khat: float
    names: tuple[str, ...]
    mean: Tensor
    sd: Tensor
    khat_mean: Tensor
    khat_sd: Tensor
    shift: Tensor
    ratio: Tensor
    noise: Tensor

    @classmethod
    def of(cls, log_weight: Tensor, names: Sequence[str], values: Tensor) -> Verdict:
        """The verdict on values `(K, H)` of quantities, drawn with log weights `(K,)`."""
        log_w = log_weight.double()
        log_w = torch.where(log_w.isnan(), -torch.inf, log_w)
        values = values.double()
        mean = values.mean(0)
        sd = values.std(0)
        distance = (values - mean).abs().clamp(min=MIN_SPREAD).log()
        weight = smooth_weights(log_w[:, None]).exp()
        weighted_mean = (weight * values).sum(0)
        square = (weight * (values - weighted_mean).square()).sum(0)
        weighted_sd = square.sqrt().clamp(min=MIN_SPREAD)
        # Of the difference of the two means, which share their draws.
        excess = weight - 1 / len(log_w)
        variance = (excess.square() * (values - weighted_mean).square()).sum(0)
        return cls(
            num=len(log_w),
            elbo=log_w.mean().item(),
            khat=khat(log_w[:, None]).item(),
            names=tuple(names),
            mean=mean,
            sd=sd,
            khat_mean=khat(log_w[:, None] + distance),
            khat_sd=khat(log_w[:, None] + 2 * distance),
            shift=(mean - weighted_mean) / weighted_sd,
            ratio=sd / weighted_sd,
            noise=variance.sqrt() / weighted_sd,
        )

    @property
    def threshold(self) -> float:
        """The k-hat up to which K draws give a reliable estimate."""
        return khat_threshold(self.num)

    @property
    def is_reliable(self) -> bool:
        """Whether the weights can be trusted jointly, and then see no error of the guide's own moments."""
        return self.khat <= self.threshold and not self.heavy and not self.biased

    @property
    def heavy(self) -> tuple[str, ...]:
        """The quantities whose mean has too heavy a tail to be estimated by weights."""
        return self._where(~(self.khat_mean <= self.threshold))

    @property
    def biased(self) -> tuple[str, ...]:
        """The quantities whose mean or standard deviation the weights move by more than 5 % and 4 errors."""
        shift = self.shift.abs() > MAX_BIAS + 4 * self.noise
        ratio = (self.ratio.log().abs() > MAX_BIAS + 4 * self.noise) & (
            self.khat_sd <= self.threshold
        )
        return self._where(shift | ratio)

    def _where(self, condition: Tensor) -> tuple[str, ...]:
        return tuple(self.names[i] for i in condition.nonzero().flatten().tolist())

    def columns(self) -> dict[str, Any]:
        """One row per quantity."""
        names = ("mean", "sd", "khat_mean", "khat_sd", "shift", "ratio", "noise")
        return {"name": list(self.names)} | {name: getattr(self, name) for name in names}

    def __str__(self) -> str:
        lines = [
            f"ELBO {self.elbo:.3f} nats, joint k-hat {self.khat:.2f} of {self.num} draws "
            f"(reliable up to {self.threshold:.2f})",
            f"{'quantity':<16}{'mean':>12}{'sd':>12}{'k-hat mean':>12}{'k-hat sd':>10}"
            f"{'shift':>8}{'ratio':>8}",
        ]
        for i, name in enumerate(self.names):
            lines.append(
                f"{name:<16}{self.mean[i]:12.4g}{self.sd[i]:12.4g}{self.khat_mean[i]:12.2f}"
                f"{self.khat_sd[i]:10.2f}{self.shift[i]:8.3f}{self.ratio[i]:8.3f}"
            )
        return "\n".join([*lines, self._advice()])

    def _advice(self) -> str:
        if self.is_reliable:
            return "reliable: the weights see no error of the guide"
        if self.khat > self.threshold or self.heavy:
            which = ", ".join(self.heavy) or "the joint weights"
            return f"NOT reliable: tails too heavy ({which}): more steps, a larger flow, or NUTS"
        return f"NOT reliable: the weights correct {', '.join(self.biased)}: train longer, or weigh the draws"
