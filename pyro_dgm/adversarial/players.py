"""How generator and critic move: each by its own optimizer, one after the other or both at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..inference.run.distributed import average_gradients
from ..inference.training.trainer import Terms

if TYPE_CHECKING:
    from .trainer import GANTrainer

Build = Callable[[list[nn.Parameter]], Optimizer]


@dataclass(frozen=True)
class Player:
    r"""How one side moves: $\theta \leftarrow \theta - \mathrm{Adam}_{\eta, (0.5, 0.99)}(\nabla_\theta L)$.

    Args:
        lr: learning rate η of the default optimizer.
        optimizer: builds another torch optimizer from the parameters, such as `partial(torch.optim.SGD, lr=0.1)`.
        clip: global gradient norm above which gradients are scaled down.

    Raises:
        TypeError: for an optimizer in place of a function that builds one.
        ValueError: for a negative learning rate, or a norm that is not positive.
    """

    lr: float = 1e-3
    optimizer: Build | None = None
    clip: float | None = None

    def __post_init__(self) -> None:
        if self.optimizer is not None and not callable(self.optimizer):
            raise TypeError(
                "Player: expected a function that builds a torch optimizer from parameters, got "
                f"{type(self.optimizer).__name__}. Fix: Player(optimizer=partial(torch.optim.Adam, lr=1e-3))."
            )
        if not self.lr >= 0:
            raise ValueError(f"Player: expected lr >= 0, got {self.lr}.")
        if self.clip is not None and not self.clip > 0:
            raise ValueError(
                f"Player: expected clip > 0, got {self.clip}. Fix: clip=None, to leave gradients alone."
            )

    def built(self, parameters: list[nn.Parameter]) -> Optimizer:
        """The optimizer over the parameters."""
        if self.optimizer is not None:
            return self.optimizer(parameters)
        return torch.optim.Adam(parameters, lr=self.lr, betas=(0.5, 0.99), fused=True)


@dataclass(frozen=True)
class Play(ABC):
    """The order in which both sides move; abstract."""

    generator: Player = Player()
    critic: Player = Player()

    @abstractmethod
    def step(self, trainer: GANTrainer, *batch: Any) -> Terms:
        """One step of a trainer; returns the terms of both sides, none if a loss or a gradient was passed over."""

    def __str__(self) -> str:
        """The order alone, whoever the players are: what a checkpoint must agree with."""
        order = [
            f"{f.name}={getattr(self, f.name)!r}"
            for f in fields(self)
            if f.name not in ("generator", "critic")
        ]
        return f"{type(self).__name__}({', '.join(order)})"


@dataclass(frozen=True)
class Alternating(Play):
    r"""The critic moves $n$ times, each time on a new batch; then the generator, against the critic that has moved.

    Args:
        generator: how the generator moves.
        critic: how the critic moves.
        n_critic: n.

    Raises:
        ValueError: if `n_critic < 1`.

    Example:
        >>> play = Alternating(critic=Player(lr=2e-3), n_critic=5)
        >>> play.generator.lr, play.critic.lr
        (0.001, 0.002)
    """

    n_critic: int = 1

    def __post_init__(self) -> None:
        if self.n_critic < 1:
            raise ValueError(f"Alternating: expected n_critic >= 1, got {self.n_critic}.")

    def step(self, trainer: GANTrainer, *batch: Any) -> Terms:  # noqa: D102
        terms = trainer.critic_step(*batch)
        if not terms or trainer.num_critic_steps % self.n_critic:
            return terms
        moved = trainer.generator_step(*batch)
        return {**terms, **moved} if moved else {}


@dataclass(frozen=True)
class Simultaneous(Play):
    """Both gradients are taken at the same weights and from the same fakes, then both sides move: one pass for both.

    Args:
        generator: how the generator moves.
        critic: how the critic moves.
    """

    def step(self, trainer: GANTrainer, *batch: Any) -> Terms:  # noqa: D102
        return trainer.joint_step(*batch)


class Side:
    """The parameters of one side, with the optimizer that moves them and the number of times it has.

    Args:
        role: generator or critic, for messages.
        module: whose parameters it moves.
        player: how.

    Raises:
        ValueError: if nothing in the module requires a gradient.
        TypeError: if the player builds no torch optimizer.
    """

    def __init__(self, role: str, module: nn.Module, player: Player):
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        if not self.parameters:
            raise ValueError(
                f"GANTrainer: expected a {role} with parameters to train, got none that require gradients. "
                f"Fix: {role}.requires_grad_(True)."
            )
        self.optimizer, self.clip = player.built(self.parameters), player.clip
        if not isinstance(self.optimizer, Optimizer):
            raise TypeError(
                f"GANTrainer: expected a function that builds a torch optimizer for the {role}, got one that builds "
                f"{type(self.optimizer).__name__}. Fix: Player(optimizer=partial(torch.optim.Adam, lr=1e-3))."
            )
        self.num_steps = 0

    def backward(self, loss: Tensor, *, keep_graph: bool = False) -> None:
        """Gradients of this side alone: the other one, and whoever trains it next, finds none of them."""
        self.forget()
        loss.backward(inputs=self.parameters, retain_graph=keep_graph)
        average_gradients(self.parameters)

    def step(self) -> None:
        """Move, and forget the gradients."""
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self.optimizer.step()
        self.num_steps += 1
        self.forget()

    def forget(self) -> None:
        """Leave no gradient."""
        for parameter in self.parameters:
            parameter.grad = None

    def state(self) -> dict[str, Any]:
        """State of the optimizer, and the count."""
        return {"optimizer": self.optimizer.state_dict(), "num_steps": self.num_steps}

    def load(self, state: dict[str, Any]) -> None:
        """Take what `state` gave."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.num_steps = state["num_steps"]
