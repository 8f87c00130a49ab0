"""Penalties on a critic's gradient, per datum and in float32 at least."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Score = Callable[[Tensor], Tensor]


class Penalty(ABC):
    """A cost that keeps a critic smooth; abstract. The critic minimizes it beside its loss in the game.

    Attributes:
        name: of its term in the history.
    """

    name: str

    @abstractmethod
    def __call__(self, critic: Score, real: Tensor, fake: Tensor) -> Tensor:
        """The mean cost over a batch, 0-dim; its gradient flows to the critic's weights.

        Args:
            critic: maps x `(B, *event)` to logits `(B,)` or `(B, 1)`, each of its own datum alone.
            real: data `(B, *event)`.
            fake: draws of the generator `(B, *event)`.
        """


@dataclass(frozen=True)
class _SquaredSlope(Penalty):
    r"""$\frac{\gamma}{2} E \|\nabla_x C(x)\|^2$, wherever x comes from."""

    gamma: float

    def __post_init__(self) -> None:
        _not_negative(self, gamma=self.gamma)

    def _at(self, critic: Score, x: Tensor) -> Tensor:
        return self.gamma / 2 * gradient(critic, x).square().sum(1).mean()


@dataclass(frozen=True)
class R1(_SquaredSlope):
    r"""$\frac{\gamma}{2} E_{x \sim \pi} \|\nabla_x C(x)\|^2$ on real data: it makes the equilibrium attract.

    Args:
        gamma: γ.

    Raises:
        ValueError: if γ is negative.

    References:
        Mescheder, Geiger, Nowozin 2018, arXiv:1801.04406.

    Example:
        >>> R1(2.0)(lambda x: 3 * x[:, 0], torch.zeros(5, 4), torch.zeros(5, 4))
        tensor(9.)
    """

    name = "r1"

    def __call__(self, critic: Score, real: Tensor, fake: Tensor) -> Tensor:
        return self._at(critic, real)


@dataclass(frozen=True)
class R2(_SquaredSlope):
    r"""$\frac{\gamma}{2} E_{x \sim p} \|\nabla_x C(x)\|^2$ on fakes.

    Args:
        gamma: γ.

    Raises:
        ValueError: if γ is negative.

    References:
        Mescheder, Geiger, Nowozin 2018, arXiv:1801.04406.
    """

    name = "r2"

    def __call__(self, critic: Score, real: Tensor, fake: Tensor) -> Tensor:
        return self._at(critic, fake)


@dataclass(frozen=True)
class GradientPenalty(Penalty):
    r"""$\lambda E (\|\nabla_x C(\hat x)\| - 1)^2$ at $\hat x = \epsilon x + (1 - \epsilon) y$, $\epsilon \sim U[0, 1]$.

    x is a datum, y a fake, ε one number per pair.

    Args:
        weight: λ.

    Raises:
        ValueError: if λ is negative.

    References:
        Gulrajani, Ahmed, Arjovsky, Dumoulin, Courville 2017, arXiv:1704.00028.
    """

    weight: float = 10.0
    name = "gp"

    def __post_init__(self) -> None:
        _not_negative(self, weight=self.weight)

    def __call__(self, critic: Score, real: Tensor, fake: Tensor) -> Tensor:
        share = torch.rand(len(real), *[1] * (real.dim() - 1), dtype=real.dtype, device=real.device)
        slopes = torch.linalg.vector_norm(gradient(critic, torch.lerp(fake, real, share)), dim=1)
        return self.weight * (slopes - 1).square().mean()


def _not_negative(penalty: Penalty, **weights: float) -> None:
    """A critic that is paid for its slope has no best slope."""
    for name, weight in weights.items():
        if not weight >= 0:
            raise ValueError(f"{type(penalty).__name__}: expected {name} >= 0, got {weight}.")


def gradient(critic: Score, x: Tensor) -> Tensor:
    r"""$\nabla_x C(x)$ of each datum, flattened: `(B, D)`, in float32 at least, and differentiable in the weights."""
    further = torch.is_grad_enabled()
    half = x.dtype in (torch.float16, torch.bfloat16)
    # A tensor that has a gradient already may have been scored with it: `Scores` then knows its logits.
    at = (
        x
        if further and x.requires_grad and not half
        else (x.float() if half else x).detach().requires_grad_()
    )
    with torch.enable_grad(), torch.autocast(x.device.type, enabled=False):
        # A logit depends on its own datum alone, so that the gradient of their sum holds that of each.
        (found,) = torch.autograd.grad(critic(at).sum(), at, create_graph=further)
    return found.flatten(1)
