"""Adversarial training of the very program that a VAE trains."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..inference.run.states import (
    derive_seed,
    device_of,
    eval_mode,
    evaluation_mode,
    without_handlers,
)
from ..inference.training.trainer import Terms, Trainer
from .critics import Scores, logits
from .divergences import Divergence
from .drawing import Fakes
from .games import Game, NonSaturating
from .matching import check_match
from .penalties import R1, Penalty
from .players import Alternating, Play, Side


class GANTrainer(Trainer):
    r"""$\min_C L_C(C, p) + \text{penalties}$ against $\min_p L_p(C, p)$: likelihood-free training of a program p(x).

    The generator is any program that generates when its first argument is `None`: the same p(z) p(x|z) that
    `SVITrainer` trains, or a deterministic decoder with a `Delta` observation. Integer data get their noise from the
    batches: `Batches(x, transform=lambda x: within_cell(x, torch.rand(x.shape)))`.

    Without `noise` the critic sees $G(z) = E[x \mid z]$, and p is *the law of G(z)*, which
    `generate(generator, num, mean=True)` draws. The scale of the likelihood then never moves, and plain `generate` adds
    it to G(z). With `noise`, p is the law of x, which `generate(generator, num)` draws.

    The latents of K fakes reach the networks as (K, 1, …), leading dims that `mlp` and `ConvDecoder` broadcast over.
    `nn.BatchNorm` takes dim 1 for channels and fails there: `nn.LayerNorm` does not.

    The history has the terms `critic` and `generator`, the losses of the game, beside one term per penalty. No loss
    tells a better epoch, so that the last weights stay, averaged with `ema`, unless `fit(monitor=…)` names a term.

    Args:
        generator: a Pyro program, a module.
        critic: maps x `(B, *event)`, or `(x, *context)`, to logits `(B,)` or `(B, 1)`.
        game: what is played.
        penalties: what the critic minimizes beside its loss.
        play: who moves when, and by which optimizer.
        ema: decay of an exponential moving average of the generator's weights, which then validates and is kept.
        noise: whether the critic sees reparameterized draws of the observation, in place of its mean.

    Raises:
        TypeError: if generator or critic is no module, or game, penalties or play are none.
        ValueError: if they share parameters, or two penalties a name; at `fit`, for data or programs that do not match,
            or a non-finite loss; at `resume`, for the checkpoint of another game.

    References:
        Goodfellow et al. 2014, arXiv:1406.2661; Mescheder, Geiger, Nowozin 2018, arXiv:1801.04406.

    Example:
        >>> from pyro_dgm import LatentVariableModel, Normal, StandardNormal, mlp
        >>> generator = LatentVariableModel(StandardNormal(2), Normal(mlp(2, 9)))
        >>> trainer = GANTrainer(generator, mlp(9, 1))
        >>> len(trainer.fit(torch.ones(32, 9), epochs=3, progress=False))
        3
    """

    def __init__(
        self,
        generator: nn.Module,
        critic: nn.Module,
        game: Game = NonSaturating(),  # noqa: B008 - games, penalties and plays are frozen
        penalties: Sequence[Penalty] = (R1(1.0),),
        play: Play = Alternating(),  # noqa: B008
        ema: float | None = None,
        *,
        noise: bool = False,
    ):
        _check_modules(generator, critic)
        _check_rules(game, penalties, play)
        _warn_of_sigmoid(critic, game)
        super().__init__(
            nn.ModuleDict({"generator": generator, "critic": critic}), ema, averaged=generator
        )
        self.generator, self.critic = self._program_of(generator), critic
        self.game, self.penalties, self.play = game, tuple(penalties), play
        self.fakes = Fakes(self.generator, noise=noise)
        self._generator = Side("generator", generator, play.generator)
        self._critic = Side("critic", critic, play.critic)
        self._generator_moved = False

    @staticmethod
    def _program_of(trained: Any) -> nn.Module:
        """What generates, among all that is trained on the generator's side."""
        return trained

    @property
    def model(self) -> nn.Module:  # noqa: D102
        return self.generator

    @property
    def num_critic_steps(self) -> int:
        """How often the critic has moved."""
        return self._critic.num_steps

    @property
    def num_generator_steps(self) -> int:
        """How often the generator has moved."""
        return self._generator.num_steps

    def preflight(self, *batch: Any) -> None:  # noqa: D102
        check_match(self.fakes, self.critic, batch)

    def step(self, *batch: Any) -> Terms:  # noqa: D102
        before = self.num_generator_steps
        terms = self.play.step(self, *batch)
        self._generator_moved = self.num_generator_steps > before
        return terms

    def terms(self, *batch: Any) -> Terms:
        """Both losses of the game and the penalties, without a step."""
        return self._costs(batch, self.fakes(*batch))

    def log_ratio(self, x: Tensor, *context: Any, num: int = 10_000, seed: int = 0) -> Tensor:
        r"""$\log \pi(x) / p(x)$, `(B,)` in nats, as the critic knows it; exact for the best critic of the game alone.

        p is the law of the fakes that the critic was trained against: those of the last weights, not of their average
        (of the average only where `fit(monitor=…)` went back to an earlier epoch of it). It is a function of x that has
        a gradient where x has one, as `Refined` asks for, and leaves every handler and the random state alone.

        Args:
            x: where, `(B, *event)`.
            context: of x; a ratio of conditional laws, known up to a constant for each context by `PairedRelativistic`.
            num: fakes that fix the constant where the critic leaves one open; with a context, one for each row.
            seed: of the fakes.

        Raises:
            ValueError: if the game's critic is no log density ratio.
        """
        batch = self._placed(x, *context)
        differentiable = torch.is_grad_enabled() and batch[0].requires_grad
        with eval_mode(self.critic), torch.set_grad_enabled(differentiable):
            found = logits(self.critic, *batch)
        return self.game.log_ratio(
            found, self._of_fakes(batch, num, seed) if self.game.ratio_reads_fake else None
        )

    def _placed(self, *batch: Any) -> tuple:
        """The arguments where the weights are; a chain that has left the numbers asks for the ratio there as well."""
        device = device_of(self.module)
        return tuple(
            torch.as_tensor(b).to(device) if isinstance(b, (Tensor, np.ndarray)) else b
            for b in batch
        )

    def _of_fakes(self, batch: tuple, num: int, seed: int) -> Tensor:
        """Logits of fresh fakes, one for each row of a context, or `num` without one."""
        x, *context = batch
        with (
            without_handlers(),
            evaluation_mode(self.module, seed=derive_seed(seed, 0)),
            self._as_last(),
        ):
            return logits(
                self.critic,
                self.fakes(x if context else x[:1].expand(num, *x.shape[1:]), *context),
                *context,
            )

    @contextmanager
    def _as_last(self) -> Iterator[None]:
        """The generator with its last weights, in place of their average that `fit` has left there."""
        lasts = {} if self.ema is None or self.best or not self._is_deployed() else self._last
        tensors = {
            name: t for name, t in self.module.state_dict(keep_vars=True).items() if name in lasts
        }
        averaged = {name: t.data for name, t in tensors.items()}
        try:
            for name, tensor in tensors.items():
                tensor.data = lasts[name].to(
                    tensor.device
                )  # and not in place, where a graph may stand on the values
            yield
        finally:
            for name, tensor in tensors.items():
                tensor.data = averaged[name]

    # -- moves ------------------------------------------------------------------------------------------------------
    def critic_step(self, *batch: Any) -> Terms:
        """Move the critic once; returns the terms before it has moved."""
        with torch.no_grad():
            fake = self.fakes(*batch)
        terms = self._costs(batch, fake)
        self._critic.backward(self._critic_cost(terms))
        return self._moved(terms, self._critic)

    def generator_step(self, *batch: Any) -> Terms:
        """Move the generator once, against the critic as it is."""
        terms = self._generator_terms(*batch)
        self._generator.backward(self._generator_cost(terms))
        return self._moved(terms, self._generator)

    def joint_step(self, *batch: Any) -> Terms:
        """Move both, from the same weights and the same fakes."""
        terms = self.terms(*batch)
        self._critic.backward(self._critic_cost(terms), keep_graph=True)
        self._generator.backward(self._generator_cost(terms))
        return self._moved(terms, self._critic, self._generator)

    def _costs(self, batch: tuple, fake: Tensor) -> Terms:
        """Both losses of the game at the same logits, and the penalties."""
        score, real = Scores(self.critic, *batch[1:]), batch[0]
        if self.penalties and torch.is_grad_enabled():  # so that they share the pass of the losses
            real, fake = (
                x if x.requires_grad else x.detach().requires_grad_() for x in (real, fake)
            )
        of_real, of_fake = score(real), score(fake)
        return {
            "critic": self.game.critic_loss(of_real, of_fake),
            "generator": self.game.generator_loss(of_fake, of_real),
            **{penalty.name: penalty(score, real, fake) for penalty in self.penalties},
        }

    def _generator_terms(self, *batch: Any) -> Terms:
        """What the generator's own step looks at."""
        fake = logits(self.critic, self.fakes(*batch), *batch[1:])
        real = logits(self.critic, *batch) if self.game.generator_reads_real else None
        return {"generator": self.game.generator_loss(fake, real)}

    def _generator_cost(self, terms: Terms) -> Tensor:
        return terms["generator"]

    def _critic_cost(self, terms: Terms) -> Tensor:
        return terms["critic"] + sum(terms[penalty.name] for penalty in self.penalties)

    def _moved(self, terms: Terms, *sides: Side) -> Terms:
        """Move the sides that have their gradients, or pass over the step."""
        terms = {name: value.detach() for name, value in terms.items()}
        parameters = [p for side in sides for p in side.parameters]
        if self._max_skips and self._skips(torch.stack([*terms.values()]).sum(), parameters, terms):
            for side in sides:
                side.forget()
            return {}
        for side in sides:
            side.step()
        return terms

    # -- what the loop asks for -------------------------------------------------------------------------------------
    def average(self) -> None:
        """The generator's average takes in each of its steps, and none of the critic's."""
        if self.ema is not None and self._generator_moved:
            self.ema.update(self.num_generator_steps)

    def end_epoch(self) -> None:  # noqa: D102
        pass

    def state(self) -> dict[str, Any]:  # noqa: D102
        return {
            "generator": self._generator.state(),
            "critic": self._critic.state(),
            "rules": self._rules(),
        }

    def load(self, state: dict[str, Any]) -> None:  # noqa: D102
        if (rules := self._rules()) != state.get("rules"):
            raise ValueError(
                f"resume: expected a checkpoint of the game {rules}, got one of {state.get('rules')}. "
                "Fix: the same game=, penalties=, play= and noise=."
            )
        self._generator.load(state["generator"])
        self._critic.load(state["critic"])

    def _rules(self) -> dict[str, str]:
        """What is played, as text: losses that a checkpoint's moments and weights were made by."""
        penalties = ", ".join(f"{type(p).__name__}({vars(p)})" for p in self.penalties)
        return {
            "game": str(self.game),
            "penalties": penalties,
            "play": str(self.play),
            "noise": str(self.fakes.noise),
        }


def _check_modules(generator: nn.Module, critic: nn.Module) -> None:
    for role, module in (("generator", generator), ("critic", critic)):
        if not isinstance(module, nn.Module):
            raise TypeError(
                f"GANTrainer: expected the {role} as an nn.Module, got {type(module).__name__}, whose parameters "
                "nobody would train. Fix: subclass Program (or nn.Module)."
            )
    shared = {id(p) for p in generator.parameters()} & {id(p) for p in critic.parameters()}
    if shared:
        raise ValueError(
            f"GANTrainer: expected a critic with parameters of its own, got {len(shared)} that the generator has as "
            "well: each side would undo the other's steps. Fix: copy.deepcopy of the shared part."
        )


def _check_rules(game: Any, penalties: Any, play: Any) -> None:
    """Refuse what is no game, no penalties or no play."""
    made = f"{game.__name__}()" if isinstance(game, type) else repr(game)
    instead = f"FDivergence({made})" if isinstance(game, Divergence) else made
    known = isinstance(game, (Divergence, type))
    _check_kind("a game", game, Game, f"game={instead}" if known else "game=NonSaturating()")
    one = isinstance(penalties, Penalty)
    for penalty in (penalties,) if one or not isinstance(penalties, Sequence) else penalties:
        _check_kind("penalties", penalty, Penalty, "penalties=(R1(1.0),)")
    if one:
        raise TypeError(
            f"GANTrainer: expected a sequence of penalties, got {penalties}. Fix: penalties=({penalties},)."
        )
    _check_kind("a play", play, Play, "play=Alternating()")
    _check_names(penalties)


def _check_kind(what: str, value: Any, kind: type, fix: str) -> None:
    if not isinstance(value, kind):
        got = f"the class {value.__name__}" if isinstance(value, type) else repr(value)
        raise TypeError(f"GANTrainer: expected {what}, got {got}. Fix: {fix}.")


def _warn_of_sigmoid(critic: nn.Module, game: Game) -> None:
    last: Any = critic
    while isinstance(last, nn.Sequential):
        last = next(
            (m for m in reversed(last) if not isinstance(m, (nn.Flatten, nn.Identity))), None
        )
    if isinstance(last, nn.Sigmoid) and not game.is_probability:
        warnings.warn(
            f"GANTrainer: expected a critic with logits on all reals, as {type(game).__name__} takes, got one that "
            "ends in nn.Sigmoid: its losses apply σ themselves. Fix: leave the last layer out.",
            stacklevel=3,
        )


def _check_names(penalties: Sequence[Penalty]) -> None:
    names = [penalty.name for penalty in penalties]
    if len(set(names)) < len(names):
        raise ValueError(
            f"GANTrainer: expected penalties of different names, got {names}. Fix: one of each kind, with its weight."
        )
