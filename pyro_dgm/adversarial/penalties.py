"""Penalties on a critic's gradient, per datum and in float32 at least."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..densities.precision import full_precision_networks
from ..inference.process.numbers import check_number

Score = Callable[[Tensor], Tensor]


class Penalty(ABC):
    """A cost that keeps a critic smooth, and that it minimizes together with its loss in the game; abstract.

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
    r"""$\frac{\gamma}{2} E \|\nabla_x C(x)\|^2$, wherever x comes from; abstract."""

    gamma: float

    def __post_init__(self) -> None:
        _require_non_negative(self, "gamma", self.gamma)

    def _at(self, critic: Score, x: Tensor) -> Tensor:
        squared_norms = gradient(critic, x).square().sum(1)
        return self.gamma / 2 * squared_norms.mean()


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
    r"""$\lambda E (\|\nabla_x C(\hat x)\| - 1)^2$ between data and fakes.

    $\hat x = \epsilon x + (1 - \epsilon) y$, where x is a datum, y a fake, and $\epsilon \sim U[0, 1]$ one
    number per pair.

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
        _require_non_negative(self, "weight", self.weight)

    def __call__(self, critic: Score, real: Tensor, fake: Tensor) -> Tensor:
        one_per_pair = [len(real)] + [1] * (real.dim() - 1)
        epsilon = torch.rand(one_per_pair, dtype=real.dtype, device=real.device)
        slopes = gradient(critic, torch.lerp(fake, real, epsilon))
        norms = torch.linalg.vector_norm(slopes, dim=1)
        return self.weight * (norms - 1).square().mean()


def gradient(critic: Score, x: Tensor) -> Tensor:
    r"""$\nabla_x C(x)$ of each datum, `(B, D)`, in float32 at least, and differentiable in the weights."""
    differentiable = torch.is_grad_enabled()
    points = _points(x, keep_graph=differentiable)
    with torch.enable_grad(), full_precision_networks():
        # A logit depends on its own datum alone: the gradient of their sum holds that of each.
        total = critic(points).sum()
        (slopes,) = torch.autograd.grad(total, points, create_graph=differentiable)
    return slopes.flatten(1)


def _points(x: Tensor, *, keep_graph: bool) -> Tensor:
    """The data as a tensor that a gradient can be taken in."""
    if x.dtype in (torch.float16, torch.bfloat16):
        return x.float().detach().requires_grad_()
    if keep_graph and x.requires_grad:
        return x  # it may have been scored with its gradient: `Scores` then knows its logits
    return x.detach().requires_grad_()


def _require_non_negative(penalty: Penalty, name: str, weight: float) -> None:
    """A critic that is paid for its slope has no best slope."""
    kind = type(penalty).__name__
    check_number(kind, name, weight, least=0, fix=f"{kind}({name}=1.0), or no penalty")
