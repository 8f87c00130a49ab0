r"""Fitting a critic while the generator stays as it is: $\min_C L_C(C, p)$."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..inference.data.tensors import take_rows
from ..inference.process.numbers import check_count, check_number
from .checks import require_instance
from .critics import logits
from .divergences import Divergence
from .games import Game

Batch = tuple[Any, ...]


class CriticFit(ABC):
    r"""$\min_C L_C(C, p)$ over the weights of a critic; abstract."""

    @abstractmethod
    def __call__(self, critic: nn.Module, game: Game, real: Batch, fake: Batch) -> None:
        """Fit the critic in place, from the weights it has.

        Args:
            critic: maps x `(B, *event)`, or `(x, *context)`, to logits `(B,)` or `(B, 1)`.
            game: whose critic's loss is minimized.
            real: data `(x, *context)`.
            fake: draws of the generator with their context.

        Raises:
            TypeError: for a critic that is no module, a divergence or a class in place of a game, or a tensor
                in place of a tuple.
        """


@dataclass(frozen=True)
class AdamFit(CriticFit):
    r"""Adam over minibatches with a learning rate that falls linearly to 0, and early stopping.

    The weights of the epoch stay that is best on a held-out fifth of the pairs, so that a critic with more
    weights than data does not end overfitted.

    Args:
        epochs: passes over the other four fifths.
        lr: learning rate at the start.
        batch_size: real data and fakes per step.

    Raises:
        TypeError: for what is no number.
        ValueError: for a negative number of epochs, a learning rate that is not positive, or an empty batch;
            in a fit, if the loss of the held-out pairs is finite after no epoch; the critic stays as it was.

    Example:
        >>> AdamFit(epochs=5)
        AdamFit(epochs=5, lr=0.002, batch_size=256)
    """

    epochs: int = 30
    lr: float = 2e-3
    batch_size: int = 256

    def __post_init__(self) -> None:
        fix = "AdamFit(epochs=30, lr=2e-3, batch_size=256)"
        check_count("AdamFit", "epochs", self.epochs, least=0, fix=fix)
        check_count("AdamFit", "batch_size", self.batch_size, fix=fix)
        check_number("AdamFit", "lr", self.lr, above=0, fix=fix)

    def __call__(  # noqa: D102
        self, critic: nn.Module, game: Game, real: Batch, fake: Batch
    ) -> None:
        _check_arguments(self, critic, game, real, fake)
        train, held_out = _hold_out_a_fifth(real, fake)
        optimizer = torch.optim.Adam(critic.parameters(), lr=self.lr, fused=True)
        best_loss = inf
        best_weights = _copy_weights(critic)
        for epoch in range(self.epochs):
            lr = self.lr * (1 - epoch / self.epochs)
            self._train_epoch(critic, game, optimizer, lr, train)
            held_out_loss = _evaluate(critic, game, *held_out)
            if held_out_loss < best_loss:
                best_loss = held_out_loss
                best_weights = _copy_weights(critic)
        critic.load_state_dict(best_weights)
        if self.epochs > 0 and best_loss == inf:
            raise ValueError(
                "AdamFit: expected a finite loss on held-out pairs after some epoch, "
                f"got {held_out_loss} after {self.epochs}. "
                f"Fix: AdamFit(lr={self.lr / 10:g}), data of unit scale, and two data or more."
            )

    def _train_epoch(
        self, critic: nn.Module, game: Game, optimizer: Optimizer, lr: float, train: list[Batch]
    ) -> None:
        """One pass over real data and fakes, each in an order of its own."""
        for group in optimizer.param_groups:
            group["lr"] = lr
        critic.train()
        real, fake = train
        real_order = torch.randperm(len(real[0])).to(real[0].device)
        fake_order = torch.randperm(len(fake[0])).to(fake[0].device)
        for start in range(0, len(real_order), self.batch_size):
            rows = slice(start, start + self.batch_size)
            real_part = take_rows(real, real_order[rows])
            fake_part = take_rows(fake, fake_order[rows])
            optimizer.zero_grad(set_to_none=True)
            loss(critic, game, real_part, fake_part).backward()
            optimizer.step()


@dataclass(frozen=True)
class LBFGSFit(CriticFit):
    """L-BFGS with strong Wolfe line search on all data at once: converges where a critic has few weights.

    Args:
        iterations: at most so many; a loss that no longer changes ends it.

    Raises:
        TypeError: for what is no number.
        ValueError: for no iteration; in a fit, for a loss that is NaN or infinite.

    Example:
        >>> LBFGSFit()
        LBFGSFit(iterations=200)
    """

    iterations: int = 200

    def __post_init__(self) -> None:
        check_count("LBFGSFit", "iterations", self.iterations, fix="LBFGSFit(iterations=200)")

    def __call__(  # noqa: D102
        self, critic: nn.Module, game: Game, real: Batch, fake: Batch
    ) -> None:
        _check_arguments(self, critic, game, real, fake)
        optimizer = torch.optim.LBFGS(
            critic.parameters(), max_iter=self.iterations, line_search_fn="strong_wolfe"
        )

        def closure() -> float:
            optimizer.zero_grad(set_to_none=True)
            total = loss(critic, game, real, fake)
            total.backward()
            return _require_finite(total.item())

        critic.train()
        optimizer.step(closure)


def loss(critic: nn.Module, game: Game, real: Batch, fake: Batch) -> Tensor:
    """The critic's loss in a game, 0-dim."""
    return game.critic_loss(logits(critic, *real), logits(critic, *fake))


def require_game(owner: str, game: Any) -> None:
    """Refuse a class, a divergence or anything else in place of a game.

    Args:
        owner: who was called, for the message.
        game: what was handed over.

    Raises:
        TypeError: if it is no game; the fix is the game that was meant.
    """
    fix = "NonSaturating()"
    if isinstance(game, Divergence):
        fix = f"FDivergence({game!r})"
    elif isinstance(game, type) and issubclass(game, Divergence):
        fix = f"FDivergence({game.__name__}())"
    elif isinstance(game, type) and issubclass(game, Game):
        fix = f"{game.__name__}()"
    require_instance(owner, game, Game, "a game", fix)


def _check_arguments(fit: CriticFit, critic: Any, game: Any, real: Any, fake: Any) -> None:
    owner = type(fit).__name__
    order = "fit(critic, game, (x,), (fakes,))"
    require_instance(owner, critic, nn.Module, "a critic", order)
    require_game(owner, game)
    require_instance(owner, real, tuple, "real data as a tuple (x, *context)", order)
    require_instance(owner, fake, tuple, "fakes as a tuple (y, *context)", order)


def _hold_out_a_fifth(real: Batch, fake: Batch) -> tuple[list[Batch], list[Batch]]:
    """Real data and fakes to train on, and those that tell the best epoch."""
    num_train = max(1, 4 * min(len(real[0]), len(fake[0])) // 5)
    train = [take_rows(batch, slice(num_train)) for batch in (real, fake)]
    held_out = [take_rows(batch, slice(num_train, None)) for batch in (real, fake)]
    return train, held_out


def _require_finite(total: float) -> float:
    if not isfinite(total):
        raise ValueError(
            f"LBFGSFit: expected a finite loss, got {total}. "
            "Fix: AdamFit(), of short steps, or data of unit scale."
        )
    return total


def _copy_weights(critic: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in critic.state_dict().items()}


def _evaluate(critic: nn.Module, game: Game, real: Batch, fake: Batch) -> float:
    """The critic's loss in evaluation mode, without a gradient."""
    critic.eval()
    with torch.no_grad():
        return loss(critic, game, real, fake).item()
