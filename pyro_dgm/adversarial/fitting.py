r"""Fitting a critic to laws that stay as they are: $\min_C L_C(C, p)$, by minibatches or by full batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor, nn

from ..inference.run.data import take_rows
from .critics import logits
from .games import Game

Batch = tuple


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
        """


@dataclass(frozen=True)
class AdamFit(CriticFit):
    r"""Adam over minibatches, the learning rate falling linearly to 0; the epoch that is best on held-out pairs stays.

    A fifth of the pairs tells the best epoch, so that a critic with more weights than data does not end overfitted.

    Args:
        epochs: passes over the other four fifths.
        lr: learning rate at the start.
        batch_size: real data and fakes per step.

    Raises:
        ValueError: in a fit, if the loss of the held-out pairs is finite after no epoch; the critic stays as it was.
    """

    epochs: int = 30
    lr: float = 2e-3
    batch_size: int = 256

    def __call__(self, critic: nn.Module, game: Game, real: Batch, fake: Batch) -> None:  # noqa: D102
        optimizer = torch.optim.Adam(critic.parameters(), lr=self.lr, fused=True)
        num = max(1, 4 * min(len(real[0]), len(fake[0])) // 5)
        held_out = [take_rows(batch, slice(num, None)) for batch in (real, fake)]
        best, kept = torch.inf, _copied(critic)
        for epoch in range(self.epochs):
            for group in optimizer.param_groups:
                group["lr"] = self.lr * (1 - epoch / self.epochs)
            self._epoch(
                critic, game, optimizer, [take_rows(batch, slice(num)) for batch in (real, fake)]
            )
            found = _loss_without_gradient(critic, game, *held_out)
            if found < best:
                best, kept = found, _copied(critic)
        critic.load_state_dict(kept)
        if self.epochs > 0 and best == torch.inf:
            raise ValueError(
                f"AdamFit: expected a finite loss on held-out pairs after some epoch, got {found} after {self.epochs}. "
                f"Fix: AdamFit(lr={self.lr / 10:g}), data of unit scale, and two data or more."
            )

    def _epoch(
        self, critic: nn.Module, game: Game, optimizer: torch.optim.Optimizer, train: list[Batch]
    ) -> None:
        critic.train()
        orders = [torch.randperm(len(x)).to(x.device) for x, *_ in train]
        for start in range(0, len(orders[0]), self.batch_size):
            rows = slice(start, start + self.batch_size)
            parts = [
                take_rows(batch, order[rows]) for batch, order in zip(train, orders, strict=True)
            ]
            optimizer.zero_grad(set_to_none=True)
            loss(critic, game, *parts).backward()
            optimizer.step()


@dataclass(frozen=True)
class LBFGSFit(CriticFit):
    """L-BFGS with strong Wolfe line search on all data at once: converges where a critic has few weights.

    Args:
        iterations: at most so many; a loss that no longer changes ends it.

    Raises:
        ValueError: in a fit, for a loss that is NaN or infinite.
    """

    iterations: int = 200

    def __call__(self, critic: nn.Module, game: Game, real: Batch, fake: Batch) -> None:  # noqa: D102
        optimizer = torch.optim.LBFGS(
            critic.parameters(), max_iter=self.iterations, line_search_fn="strong_wolfe"
        )

        def closure() -> float:
            optimizer.zero_grad(set_to_none=True)
            value = loss(critic, game, real, fake)
            value.backward()
            return _finite(value.item())

        critic.train()
        optimizer.step(closure)


def _finite(value: float) -> float:
    if not isfinite(value):
        raise ValueError(
            f"LBFGSFit: expected a finite loss, got {value}. Fix: AdamFit(), of short steps, or data of unit scale."
        )
    return value


def _copied(critic: nn.Module) -> dict[str, Tensor]:
    return {name: t.clone() for name, t in critic.state_dict().items()}


def loss(critic: nn.Module, game: Game, real: Batch, fake: Batch) -> Tensor:
    """The critic's loss in a game, 0-dim."""
    return game.critic_loss(logits(critic, *real), logits(critic, *fake))


def _loss_without_gradient(critic: nn.Module, game: Game, real: Batch, fake: Batch) -> float:
    critic.eval()
    with torch.no_grad():
        return loss(critic, game, real, fake).item()
