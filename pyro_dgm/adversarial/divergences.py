r"""f-divergences $D_f(\pi \| p) = E_p f(\pi / p)$, and the game in which a critic bounds one from below."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import log
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from .checks import require_instance
from .games import Game


class Divergence(ABC):
    r"""$D_f(\pi \| p) = E_p f(r)$ with $r = \pi / p$; abstract.

    A critic has outputs v in all of R; $T = g(v)$ takes them into the domain of the convex conjugate $f^*$.
    The bound $E_\pi T - E_p f^*(T)$ is tight at $T = f'(r)$, so that a fitted v knows $\log r$.

    References:
        Nguyen, Wainwright, Jordan 2010, arXiv:0809.0853; Nowozin, Cseke, Tomioka 2016, arXiv:1606.00709
        (table 2).
    """

    equation: str

    @abstractmethod
    def f(self, u: Tensor) -> Tensor:
        """The convex function f(u) at ratios u > 0."""

    @abstractmethod
    def g(self, v: Tensor) -> Tensor:
        """T = g(v), of any critic output."""

    @abstractmethod
    def conjugate(self, t: Tensor) -> Tensor:
        """f*(T), on its domain."""

    @abstractmethod
    def conjugate_of(self, v: Tensor) -> Tensor:
        """f*(g(v)) in one piece, which stays finite where f* of a rounded T does not."""

    @abstractmethod
    def log_ratio(self, v: Tensor) -> Tensor:
        """Log of π/p, given the critic's output v."""

    def __str__(self) -> str:
        return self.equation


@dataclass(frozen=True)
class KL(Divergence):
    r"""$KL(\pi \| p)$: $f(u) = u \log u$, $T = v$, $f^*(T) = e^{T - 1}$, $\log r = v - 1$.

    Example:
        >>> print(KL())
        KL(π‖p)
    """

    equation = "KL(π‖p)"

    def f(self, u: Tensor) -> Tensor:
        return torch.xlogy(u, u)

    def g(self, v: Tensor) -> Tensor:
        return v

    def conjugate(self, t: Tensor) -> Tensor:
        return (t - 1).exp()

    def conjugate_of(self, v: Tensor) -> Tensor:
        return (v - 1).exp()

    def log_ratio(self, v: Tensor) -> Tensor:
        return v - 1


@dataclass(frozen=True)
class ReverseKL(Divergence):
    r"""$KL(p \| \pi)$: $f(u) = -\log u$, $T = -e^{-v}$, $f^*(T) = -1 - \log(-T)$, $\log r = v$."""

    equation = "KL(p‖π)"

    def f(self, u: Tensor) -> Tensor:
        return -u.log()

    def g(self, v: Tensor) -> Tensor:
        return -(-v).exp()

    def conjugate(self, t: Tensor) -> Tensor:
        return -1 - (-t).log()

    def conjugate_of(self, v: Tensor) -> Tensor:
        return v - 1

    def log_ratio(self, v: Tensor) -> Tensor:
        return v


@dataclass(frozen=True)
class Pearson(Divergence):
    r"""$\chi^2(\pi \| p) = E_p (r - 1)^2$: $f(u) = (u - 1)^2$, $T = v$, $f^*(T) = T^2/4 + T$.

    $\log r = \log(1 + v/2)$. An output below −2 says r < 0, which no ratio is; its log is then −∞.
    """

    equation = "χ²(π‖p)"

    def f(self, u: Tensor) -> Tensor:
        return (u - 1).square()

    def g(self, v: Tensor) -> Tensor:
        return v

    def conjugate(self, t: Tensor) -> Tensor:
        return t.square() / 4 + t

    def conjugate_of(self, v: Tensor) -> Tensor:
        return self.conjugate(v)

    def log_ratio(self, v: Tensor) -> Tensor:
        return (v / 2).clamp(min=-1).log1p()


@dataclass(frozen=True)
class SquaredHellinger(Divergence):
    r"""$E_p (\sqrt r - 1)^2$: $f(u) = (\sqrt u - 1)^2$, $T = 1 - e^{-v}$, $f^*(T) = T/(1 - T)$.

    $\log r = 2v$.
    """

    equation = "H²(π, p) = ∫ (√π − √p)²"

    def f(self, u: Tensor) -> Tensor:
        return (u.sqrt() - 1).square()

    def g(self, v: Tensor) -> Tensor:
        return 1 - (-v).exp()  # expm1's derivative would round to 0 from |v| = 17 on in float32

    def conjugate(self, t: Tensor) -> Tensor:
        return t / (1 - t)

    def conjugate_of(self, v: Tensor) -> Tensor:
        return v.exp() - 1

    def log_ratio(self, v: Tensor) -> Tensor:
        return 2 * v


@dataclass(frozen=True)
class JensenShannon(Divergence):
    r"""$2\,JSD(\pi, p)$: $f(u) = u \log u - (u + 1) \log\frac{u + 1}{2}$.

    $T = \log 2 - \mathrm{softplus}(-v)$, $f^*(T) = -\log(2 - e^T)$ and $\log r = v$.
    """

    equation = "2 JSD(π, p)"

    def f(self, u: Tensor) -> Tensor:
        return torch.xlogy(u, u) - (u + 1) * ((u + 1) / 2).log()

    def g(self, v: Tensor) -> Tensor:
        return log(2) - softplus(-v)

    def conjugate(self, t: Tensor) -> Tensor:
        return -(2 - t.exp()).log()

    def conjugate_of(self, v: Tensor) -> Tensor:
        return softplus(v) - log(2)

    def log_ratio(self, v: Tensor) -> Tensor:
        return v


@dataclass(frozen=True)
class GANDivergence(Divergence):
    r"""$2\,JSD(\pi, p) - 2 \log 2$: $f(u) = u \log u - (u + 1) \log(u + 1)$.

    $T = -\mathrm{softplus}(-v) = \log D$, $f^*(T) = -\log(1 - e^T)$ and $\log r = v$: the game is `Minimax`.
    """

    equation = "2 JSD(π, p) − 2 log 2"

    def f(self, u: Tensor) -> Tensor:
        return torch.xlogy(u, u) - (u + 1) * u.log1p()

    def g(self, v: Tensor) -> Tensor:
        return -softplus(-v)

    def conjugate(self, t: Tensor) -> Tensor:
        return -torch.log1p(-t.exp())

    def conjugate_of(self, v: Tensor) -> Tensor:
        return softplus(v)

    def log_ratio(self, v: Tensor) -> Tensor:
        return v


@dataclass(frozen=True)
class FDivergence(Game):
    r"""$\min_p \max_v E_\pi g(v) - E_p f^*(g(v))$; at the best critic the value is $D_f(\pi \| p)$.

    Args:
        of: the divergence, such as `KL()`, `ReverseKL()`, `Pearson()`, `SquaredHellinger()`,
            `JensenShannon()`, `GANDivergence()`.

    Raises:
        TypeError: for a class or a game in place of a divergence.

    References:
        Nowozin, Cseke, Tomioka 2016, arXiv:1606.00709.

    Example:
        >>> from pyro_dgm.gan import KL
        >>> game = FDivergence(KL())
        >>> game.log_ratio(torch.tensor(1.0))
        tensor(0.)
        >>> print(game)
        FDivergence: critic E_p f*(T) − E_π T, generator −E_p f*(T), bound on KL(π‖p)
    """

    of: Divergence

    def __post_init__(self) -> None:
        fix = _divergence_fix(self.of)
        require_instance("FDivergence", self.of, Divergence, "a divergence", fix)

    @property
    def equation(self) -> str:  # type: ignore[override]
        return f"critic E_p f*(T) − E_π T, generator −E_p f*(T), bound on {self.of}"

    @property
    def divergence(self) -> str:  # type: ignore[override]
        return f"−({self.of})"

    @property
    def equilibrium(self) -> float:  # type: ignore[override]
        """$-f(1)$."""
        return -self.of.f(torch.ones(())).item()

    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return self.of.conjugate_of(fake).mean() - self.of.g(real).mean()

    def generator_loss(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        return -self.of.conjugate_of(fake).mean()

    def log_ratio(self, logits: Tensor, fake: Tensor | None = None) -> Tensor:
        return self.of.log_ratio(logits)


def _divergence_fix(value: Any) -> str:
    """The game that was meant, as code."""
    if isinstance(value, Game):
        return f"game={value!r}, which is a game already"
    if isinstance(value, type) and issubclass(value, Divergence):
        return f"FDivergence({value.__name__}())"
    return "FDivergence(KL())"
