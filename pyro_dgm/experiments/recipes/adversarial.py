"""Training against a critic, as a part of an experiment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ...adversarial.games import Game, NonSaturating
from ...adversarial.penalties import R1, Penalty
from ...adversarial.players import Alternating, Play
from ...adversarial.trainer import GANTrainer
from ...inference.data.batches import Batches
from ...inference.data.binarization import binarize
from ...inference.objectives.elbo import Objective
from ...programs.dequantization.noise import within_cell
from ...programs.vae import VAE
from ..data.datasets import Data, Kind
from .networks import Dense, Network
from .units import on_data, require_complete


@dataclass(frozen=True)
class Adversarial:
    r"""Training against a critic, in place of an objective or, with `bound`, beside it: −ELBO + λ · game.

    Args:
        critic: what the critic is made of; the data give its sizes.
        game: what is played.
        penalties: what the critic minimizes in addition to its loss: one, or a list.
        play: who moves when, each with its learning rate.
        ema: decay of an average of the generator's weights.
        weight: λ, of the game next to a bound.
        noise: whether the critic sees draws of the observation, in place of its mean.
        bound: whether the generator's side minimizes the objective as well.
        compile: whether each move becomes one graph.
    """

    critic: Network = Dense()
    game: Game = NonSaturating()
    penalties: Penalty | list[Penalty] = R1(1.0)
    play: Play = Alternating()
    ema: float | None = None
    weight: float = 1.0
    noise: bool = field(default=False, kw_only=True)
    bound: bool = field(default=False, kw_only=True)
    compile: bool | str = field(default=False, kw_only=True)

    def build(self, programs: Any, data: Data, objective: Objective | None = None) -> GANTrainer:
        """The trainer of a module with `model` and `guide` against a critic, whose weights the global seed draws.

        It trains on `batches(data, batch_size)`.

        Args:
            programs: what a recipe has built.
            data: whose sizes the critic takes.
            objective: over that model and guide; needed with `bound` alone.

        Raises:
            ValueError: with `bound` and no objective, and as `GANTrainer`.
        """
        require_complete("adversarial", data)
        if self.bound and objective is None:
            raise ValueError(
                "adversarial: expected an objective next to bound=True, got none. "
                "Fix: --objective=ELBO, or --adversarial.bound=false."
            )
        return GANTrainer(
            generator_of(programs),
            on_data(data, self.critic.encode(data, 1)),
            self.game,
            _as_tuple(self.penalties),
            self.play,
            self.ema,
            noise=self.noise,
            bound=objective if self.bound else None,
            weight=self.weight if self.bound else 1.0,
            compile=self.compile,
        )

    def batches(self, data: Data, batch_size: int) -> Batches:
        """The training data in batches; integers get noise up to the next one, unless a bound scores them."""
        if self.bound or data.kind is Kind.REAL:
            return data.batches(batch_size)
        add_noise = binarize_with_noise if data.dynamic else with_noise
        train = data.split("train")
        return Batches(train if len(train) > 1 else train[0], batch_size, transform=add_noise)


def generator_of(programs: Any) -> nn.Module:
    """The program that generates: of a VAE p(z) p(x | z), without its dequantization; else the model."""
    return programs.generator if isinstance(programs, VAE) else programs.model


def with_noise(x: Tensor) -> Tensor:
    """Integers x as x + u with u uniform in [0, 1)."""
    return within_cell(x, torch.rand(x.shape, device=x.device))


def binarize_with_noise(x: Tensor) -> Tensor:
    """Fresh binary draws of grey values, and noise on them."""
    return with_noise(binarize(x))


def _as_tuple(penalties: Penalty | list[Penalty]) -> tuple[Penalty, ...]:
    return (penalties,) if isinstance(penalties, Penalty) else tuple(penalties)
