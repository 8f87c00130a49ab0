"""How generator and critic move: each by its own optimizer, one after the other or both at once."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..inference.process.distributed import average_gradients
from ..inference.process.numbers import check_count, check_number
from ..inference.training.parameters import Moved, trainable_parameters
from ..inference.training.settings import build_schedule
from ..inference.training.soundness import Stateful

Build = Callable[[list[nn.Parameter]], Optimizer]


class Move(Enum):
    """What moves: one side against the other as it is, or both from the same weights and the same fakes."""

    CRITIC = "critic"
    GENERATOR = "generator"
    BOTH = "both"


@dataclass(frozen=True)
class Player:
    r"""How one side moves: $\theta \leftarrow \theta - \mathrm{Adam}_{\eta, (0.5, 0.99)}(\nabla_\theta L)$.

    Args:
        lr: learning rate η of the default optimizer.
        optimizer: builds another torch optimizer from the parameters, such as `partial(torch.optim.SGD, lr=0.1)`.
        clip: global gradient norm above which gradients are scaled down.
        schedule: builds a torch learning-rate scheduler from the optimizer; it steps once per epoch, whether or not
            the side has moved in it.

    Raises:
        TypeError: for an optimizer or a scheduler in place of a function that builds one; for what is no number.
        ValueError: for a learning rate or a norm that is not positive and finite.
    """

    lr: float = 1e-3
    optimizer: Build | None = None
    clip: float | None = None
    schedule: Callable[[Optimizer], LRScheduler] | None = None

    def __post_init__(self) -> None:
        if self.optimizer is not None and not callable(self.optimizer):
            raise TypeError(
                "Player: expected a function that builds a torch optimizer from parameters, got "
                f"{type(self.optimizer).__name__}. Fix: Player(optimizer=partial(torch.optim.Adam, lr=1e-3))."
            )
        if self.schedule is not None and not callable(self.schedule):
            raise TypeError(
                "Player: expected a function that builds a torch learning-rate scheduler from an optimizer, got "
                f"{type(self.schedule).__name__}. Fix: Player(schedule=partial(torch.optim.lr_scheduler.StepLR, "
                "step_size=50))."
            )
        check_number("Player", "lr", self.lr, above=0, fix="Player(lr=1e-3)")
        if self.clip is not None:
            fix = "clip=None, to leave gradients alone"
            check_number("Player", "clip", self.clip, above=0, fix=fix)

    def build_optimizer(self, parameters: list[nn.Parameter]) -> Optimizer:
        """The optimizer over the parameters."""
        if self.optimizer is not None:
            return self.optimizer(parameters)
        return torch.optim.Adam(parameters, lr=self.lr, betas=(0.5, 0.99), fused=True)


@dataclass(frozen=True)
class Play(ABC):
    """The order in which both sides move; abstract. A subclass says it as a `plan`, which the trainer carries out.

    Args:
        generator: how the generator moves.
        critic: how the critic moves.
    """

    generator: Player = Player()
    critic: Player = Player()

    @abstractmethod
    def plan(self, num_critic_steps: int) -> tuple[Move, ...]:
        """The moves of one step, in their order, on one batch.

        The rest of a plan is left out after a move that was passed over.

        Args:
            num_critic_steps: how often the critic has moved before.
        """

    def __str__(self) -> str:
        """The order alone, whoever the players are: what a checkpoint must agree with."""
        order = []
        for field in fields(self):
            if field.name not in ("generator", "critic"):
                order.append(f"{field.name}={getattr(self, field.name)!r}")
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
        >>> [len(play.plan(num_critic_steps)) for num_critic_steps in range(5)]
        [1, 1, 1, 1, 2]
    """

    n_critic: int = 1

    def __post_init__(self) -> None:
        check_count("Alternating", "n_critic", self.n_critic, fix="Alternating(n_critic=1)")

    def plan(self, num_critic_steps: int) -> tuple[Move, ...]:
        """The critic alone, until it has moved n times; then the generator as well."""
        if (num_critic_steps + 1) % self.n_critic:
            return (Move.CRITIC,)
        return Move.CRITIC, Move.GENERATOR


@dataclass(frozen=True)
class Simultaneous(Play):
    """Both gradients are taken at the same weights and from the same fakes, then both sides move: one pass for both.

    Args:
        generator: how the generator moves.
        critic: how the critic moves.
    """

    def plan(self, num_critic_steps: int) -> tuple[Move, ...]:
        """Both at once."""
        return (Move.BOTH,)


class Side:
    """The parameters of one side, with the optimizer that moves them and the number of times it has.

    Args:
        role: generator or critic, for messages.
        module: whose parameters it moves.
        player: how.

    Raises:
        ValueError: if nothing in the module requires a gradient, or was made in inference mode.
        TypeError: if the player builds no torch optimizer, or no scheduler of it.
    """

    def __init__(self, role: str, module: nn.Module, player: Player):
        self.parameters = trainable_parameters(module, "GANTrainer", role)
        self.optimizer = player.build_optimizer(self.parameters)
        self.clip = player.clip
        if not isinstance(self.optimizer, Optimizer):
            raise TypeError(
                f"GANTrainer: expected a function that builds a torch optimizer for the {role}, "
                f"got one that builds {type(self.optimizer).__name__}. "
                "Fix: Player(optimizer=partial(torch.optim.Adam, lr=1e-3))."
            )
        self.schedule = None
        if player.schedule is not None:
            self.schedule = build_schedule("GANTrainer", player.schedule, self.optimizer)
        self.moved = Moved("GANTrainer", role, module, self.optimizer)
        self.num_steps = 0

    def average(self, num_data: int) -> None:
        """Take the gradients of all ranks into those of this one.

        Args:
            num_data: of this rank's batch, of which its gradients are means; 0 where it has none.
        """
        average_gradients(self.parameters, num_data)

    def step(self) -> None:
        """Move, and forget the gradients."""
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self.optimizer.step()
        self.num_steps += 1
        self.forget()

    def end_epoch(self) -> None:
        """Move the learning rate on by its schedule."""
        if self.schedule is None:
            return
        with warnings.catch_warnings():
            if (
                self.num_steps == 0
            ):  # as in the first epochs of a long plan, whose length is in epochs all the same
                own = "Detected call of `lr_scheduler.step"
                warnings.filterwarnings("ignore", message=own, category=UserWarning)
            self.schedule.step()

    def forget(self) -> None:
        """Leave no gradient."""
        for parameter in self.parameters:
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """State of the optimizer, and the count."""
        return {"optimizer": self.optimizer.state_dict(), "num_steps": self.num_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what `state_dict` gave."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.num_steps = state["num_steps"]


def saved_parts(generator: Side, critic: Side) -> dict[str, Stateful]:
    """What moves both sides, by the name under which a checkpoint holds it."""
    parts: dict[str, Stateful] = {"generator": generator, "critic": critic}
    if generator.schedule is not None:
        parts["generator's schedule"] = generator.schedule
    if critic.schedule is not None:
        parts["critic's schedule"] = critic.schedule
    return parts
