r"""Games between a generator p and a critic C that compares it with the data's distribution π.

Every game is a pair of losses, functions of the critic's logits; of both, lower is better. Means over a batch
of logits `(B,)` stand for the expectations.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import log

import torch
from torch import Tensor
from torch.nn.functional import softplus


class Game(ABC):
    r"""$\min_C L_C(C, p)$ and $\min_p L_p(C, p)$ as functions of the logits $c = C(x)$; abstract.

    Attributes:
        equation: both losses, as text.
        divergence: what the critic's best loss measures, as text.
        equilibrium: that loss where p = π.
        generator_reads_real: whether the generator's loss needs the logits of real data.
        is_log_ratio: whether the critic knows a log density ratio, `log_ratio`; else that raises with the
            reason.
        ratio_reads_fake: whether `log_ratio` needs logits of fakes, which fix a constant.
        is_probability: whether the best critic's output is D in [0, 1] itself, where a final `nn.Sigmoid` is
            right.
    """

    equation: str
    divergence: str
    equilibrium: float
    generator_reads_real: bool = False
    is_log_ratio: bool = True
    ratio_reads_fake: bool = False
    is_probability: bool = False

    @abstractmethod
    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """What the critic minimizes, 0-dim."""

    @abstractmethod
    def generator_loss(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """What the generator minimizes, 0-dim."""

    @abstractmethod
    def log_ratio(self, logits: Tensor, fake: Tensor | None = None) -> Tensor:
        r"""$\log \pi(x) / p(x)$ as the best critic knows it, of the shape of `logits`.

        Args:
            logits: critic's outputs where the ratio is asked for.
            fake: its outputs at draws of p, which `PairedRelativistic` needs.

        Raises:
            ValueError: if the game's critic is no log density ratio.
        """

    def __call__(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """`(critic loss, generator loss)` of logits of real data and of fakes."""
        return self.critic_loss(real, fake), self.generator_loss(fake, real)

    def __str__(self) -> str:
        return f"{type(self).__name__}: {self.equation}"


class _Logistic(Game):
    """A game whose critic is a classifier with logits c: D = σ(c)."""

    divergence = "2 log 2 − 2 JSD(π, p)"
    equilibrium = 2 * log(2)

    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(-real).mean() + softplus(fake).mean()

    def log_ratio(self, logits: Tensor, fake: Tensor | None = None) -> Tensor:
        return logits


@dataclass(frozen=True)
class Minimax(_Logistic):
    r"""$\min_p \max_D E_\pi \log D + E_p \log(1 - D)$ with $D = \sigma(c)$, the original game.

    At the best D its value is $2\,JSD(\pi, p) - 2 \log 2$. The generator learns nothing from fakes that the
    critic is sure of: its gradient is $-\sigma(c)$.

    References:
        Goodfellow et al. 2014, arXiv:1406.2661.

    Example:
        >>> critic_loss, generator_loss = Minimax()(torch.zeros(3), torch.zeros(3))
        >>> critic_loss, generator_loss
        (tensor(1.3863), tensor(-0.6931))
    """

    equation = "critic −E_π log D − E_p log(1 − D), generator E_p log(1 − D), D = σ(c)"

    def generator_loss(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        return -softplus(fake).mean()


@dataclass(frozen=True)
class NonSaturating(_Logistic):
    r"""$L_C$ of `Minimax`, $L_p = -E_p \log D$: the generator learns most from the fakes that fool nobody.

    Its gradient $-\sigma(-c)$ does not vanish where the critic is sure of a fake. At the best critic the
    generator descends $KL(p \| \pi) - 2\,JSD(\pi, p)$.

    References:
        Goodfellow et al. 2014, arXiv:1406.2661 (section 3); Arjovsky, Bottou 2017, arXiv:1701.04862 (theorem
        2.5).

    Example:
        >>> print(NonSaturating())
        NonSaturating: critic −E_π log D − E_p log(1 − D), generator −E_p log D, D = σ(c)
    """

    equation = "critic −E_π log D − E_p log(1 − D), generator −E_p log D, D = σ(c)"

    def generator_loss(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        return softplus(-fake).mean()


@dataclass(frozen=True)
class LeastSquares(Game):
    r"""$L_C = \frac12 E_\pi (c - 1)^2 + \frac12 E_p c^2$, $L_p = \frac12 E_p (c - 1)^2$.

    The critic's output is D itself. At the best critic $L_C = \frac14 - \frac18 \int (\pi - p)^2 / (\pi +
    p)$.

    References:
        Mao et al. 2017, arXiv:1611.04076.
    """

    equation = "critic ½ E_π (c − 1)² + ½ E_p c², generator ½ E_p (c − 1)²"
    divergence = "¼ − ⅛ ∫ (π − p)² / (π + p)"
    equilibrium = 0.25
    is_probability = True

    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return ((real - 1).square().mean() + fake.square().mean()) / 2

    def generator_loss(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        return (fake - 1).square().mean() / 2

    def log_ratio(self, logits: Tensor, fake: Tensor | None = None) -> Tensor:
        r"""$\log D / (1 - D)$ with $D = c$; an output outside (0, 1) is no probability, its log ratio ±∞."""
        return torch.logit(logits.clamp(0, 1))


@dataclass(frozen=True)
class Hinge(Game):
    r"""$L_C = E_\pi (1 - c)_+ + E_p (1 + c)_+$, $L_p = -E_p c$; at the best critic $L_C = 2 - 2\,TV(\pi, p)$.

    References:
        Lim, Ye 2017, arXiv:1705.02894; Miyato et al. 2018, arXiv:1802.05957.
    """

    equation = "critic E_π (1 − c)₊ + E_p (1 + c)₊, generator −E_p c"
    divergence = "2 − 2 TV(π, p)"
    equilibrium = 2.0
    is_log_ratio = False

    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return (1 - real).relu().mean() + (1 + fake).relu().mean()

    def generator_loss(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        return -fake.mean()

    def log_ratio(self, logits: Tensor, fake: Tensor | None = None) -> Tensor:
        raise ValueError(
            "Hinge: expected a game whose critic is a log density ratio, got one whose is not: "
            "its best critic is sign(π − p), which says which density is higher, not by how much. "
            "Fix: fit a fresh critic with NonSaturating()."
        )


@dataclass(frozen=True)
class Wasserstein(Game):
    r"""$L_C = E_p c - E_\pi c$, $L_p = -E_p c$; over 1-Lipschitz critics $-L_C = W_1(\pi, p)$.

    Nothing here bounds the critic: give `penalties=(GradientPenalty(),)`, or `spectral_norm(critic)`.

    References:
        Arjovsky, Chintala, Bottou 2017, arXiv:1701.07875.
    """

    equation = "critic E_p c − E_π c, generator −E_p c"
    divergence = "−W₁(π, p), over 1-Lipschitz critics"
    equilibrium = 0.0
    is_log_ratio = False

    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return fake.mean() - real.mean()

    def generator_loss(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        return -fake.mean()

    def log_ratio(self, logits: Tensor, fake: Tensor | None = None) -> Tensor:
        raise ValueError(
            "Wasserstein: expected a game whose critic is a log density ratio, "
            "got one whose is not: its best critic is a Kantorovich potential, "
            "a cost of transport and no density. "
            "Fix: fit a fresh critic with NonSaturating()."
        )


@dataclass(frozen=True)
class PairedRelativistic(Game):
    r"""$L_C = E_{x \sim \pi, y \sim p}\, \mathrm{softplus}(C(y) - C(x))$; $L_p$ has real and fake exchanged.

    Pairs are the i-th real with the i-th fake. The best critic knows $\log \pi / p$ up to a constant, which
    $E_p\, \pi / p = 1$ fixes: the log of the mean of $e^c$ over fakes.

    Raises:
        ValueError: for batches of real and fake logits of different lengths, or without real ones.

    References:
        Jolicoeur-Martineau 2019, arXiv:1807.00734; Huang et al. 2024, arXiv:2501.05441.
    """

    equation = "critic E softplus(c(y) − c(x)), generator E softplus(c(x) − c(y)), x ~ π, y ~ p"
    divergence = "log 2 − JSD(π⊗p, p⊗π)"
    equilibrium = log(2)
    generator_reads_real = True
    ratio_reads_fake = True

    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(_differences(fake, real)).mean()

    def generator_loss(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        return softplus(-_differences(fake, real)).mean()

    def log_ratio(self, logits: Tensor, fake: Tensor | None = None) -> Tensor:
        if fake is None:
            raise ValueError(
                "PairedRelativistic: expected the logits of fakes as well, since its critic knows "
                "the log ratio up to a constant, got none. "
                "Fix: game.log_ratio(logits, fake=critic(fakes))."
            )
        log_mean_exp = fake.flatten().logsumexp(0) - log(fake.numel())
        return logits - log_mean_exp


def _differences(fake: Tensor, real: Tensor | None) -> Tensor:
    """Differences c(y) − c(x) of pairs, `(B,)`."""
    if real is None:
        raise ValueError(
            "PairedRelativistic: expected one real logit for each fake one, got no real ones. "
            "Fix: game.generator_loss(fake, real), both (B,)."
        )
    if real.shape != fake.shape:
        raise ValueError(
            "PairedRelativistic: expected one real logit for each fake one, "
            f"got {tuple(real.shape)} real ones and {tuple(fake.shape)} fakes. "
            "Fix: game.generator_loss(fake, real), both (B,)."
        )
    return fake - real
