"""Adversarial training of the very program that a VAE trains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..inference.data.batches import Batch
from ..inference.objectives.elbo import Objective
from ..inference.process.ambient import TURN
from ..inference.process.autocast import check_autocast, refuse_nothing_to_autocast
from ..inference.process.states import (
    derive_seed,
    device_of,
    eval_mode,
    evaluation_mode,
    without_handlers,
)
from ..inference.training.compiled.graphs import Terms
from ..inference.training.compiled.options import FallBack, check_compile
from ..inference.training.driving import TakeStep
from ..inference.training.running import Values
from ..inference.training.trainer import Trainer
from .arguments import check_modules, check_rules, warn_of_sigmoid
from .critics import logits
from .drawing import Fakes
from .games import Game, NonSaturating
from .matching import check_match
from .moves import Contest
from .penalties import R1, Penalty
from .players import Alternating, Move, Play, Side, saved_parts
from .rules import GameRules
from .stepping import Moves


class GANTrainer(Trainer):
    r"""$\min_C L_C(C, p) + \text{penalties}$ against $\min_p L_p(C, p)$: likelihood-free training of a program p(x).

    The generator is any program that generates when its first argument is `None`: the same p(z) p(x|z) that
    `SVITrainer` trains, or a deterministic decoder with a `Delta` observation. Integer data get their noise from the
    batches: `Batches(x, transform=lambda x: within_cell(x, torch.rand(x.shape)))`.

    Without `noise` the critic sees $G(z) = E[x \mid z]$, and p is *the distribution of G(z)*, which
    `generate(generator, num, mean=True)` draws. The scale of the likelihood then never moves, and plain `generate` adds
    it to G(z). With `noise`, p is the distribution of x, which `generate(generator, num)` draws.

    With a `bound` ℓ, such as `ELBO(vae.model, vae.guide)`, the generator's side is model and guide of it as well,
    and one optimizer minimizes $\ell + \lambda L_p(C, p)$, see `HybridTrainer`.

    `nn.BatchNorm` serves in a generator; in a critic it mixes the data, and a penalty on its gradient warns.

    The history has the terms `critic` and `generator`, the losses of the game, and one term per penalty. No loss of a
    game tells a better epoch, so that the last weights stay, averaged with `ema`, unless `fit(monitor=…)` names a term.
    With a bound it has its terms, too, and `loss` is the sum; the weights of the best `val_nelbo` are kept.

    Args:
        generator: a Pyro program, a module.
        critic: maps x `(B, *event)`, or `(x, *context)`, to logits `(B,)` or `(B, 1)`.
        game: what is played.
        penalties: what the critic minimizes in addition to its loss.
        play: who moves when, and by which optimizer.
        ema: decay of an exponential moving average of the generator's weights, which then validates and is kept.
        noise: whether the critic sees reparameterized draws of the observation, in place of its mean.
        bound: an objective that the generator's side minimizes as well; its model shares the generator's decoder.
        weight: λ, of the game's loss in that sum.
        compile: whether each move becomes one graph (10 to 60 s once for each), or the name of a `torch.compile` mode;
            `"auto"`, as in `SVITrainer`, for each move by itself.
        autocast: as in `SVITrainer`, in both sides; penalties see the critic in float32.

    Raises:
        TypeError: if an argument is of another kind than these.
        ValueError: for shared parameters, two penalties of a name, a negative weight, a bound of another generator;
            at `fit`, for what does not match or a non-finite loss; at `resume`, for a checkpoint of another game.

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
        bound: Objective | None = None,
        weight: float = 1.0,
        compile: bool | str = False,
        autocast: torch.dtype | None = None,
    ):
        check_rules(game, penalties, play)
        check_modules(generator, critic, bound, weight)
        check_compile(compile, takes_mode=True)
        warn_of_sigmoid(critic, game)
        self.fakes = Fakes(generator, noise=noise)
        self._contest = Contest(self.fakes, critic, game, penalties, bound, weight)
        trained = self._contest.generator
        self._generator = Side("generator", trained, play.generator)
        self._critic = Side("critic", critic, play.critic)
        module = nn.ModuleDict({"generator": trained, "critic": critic})
        check_autocast("GANTrainer", autocast, module)
        super().__init__(module, ema, averaged=trained)
        self.generator = generator
        self.critic = critic
        self.game = game
        self.penalties = tuple(penalties)
        self.play = play
        self.bound, self.weight = bound, weight
        self.compile, self.autocast = compile, autocast
        self.fall_back = FallBack.of("GANTrainer", compile)
        self._moves = Moves(self._contest, compile, self.announce, self.fall_back, autocast)
        rules = GameRules(game, penalties, play, noise, None if bound is None else weight)
        self.state.optimizers = {"rules": rules, **saved_parts(self._generator, self._critic)}
        self.moved = (self._generator.moved, self._critic.moved)
        self._generator_moved = False

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
        if self.bound is not None:
            self.bound.preflight(*batch)
        check_match(self.fakes, self.critic, batch, self.penalties)
        refuse_nothing_to_autocast("GANTrainer", self.autocast, self.module)

    @TURN.taken()
    def step(self, *batch: Any) -> Terms:
        """Carry out the plan of the play; returns the terms of both sides, none if a move was passed over."""
        before, num_skipped = self.num_generator_steps, self.num_skipped
        terms: Terms = {}
        for move in self.play.plan(self.num_critic_steps):
            found = self.move(move, *batch)
            if self.num_skipped > num_skipped:
                terms = {}
                break
            terms.update(found)
        self._generator_moved = self.num_generator_steps > before
        if terms and self.bound is not None and "loss" not in terms:
            # The critic alone has moved, and every row of the history has the same terms.
            terms = self._contest.report(terms, *batch)
        return terms

    @contextmanager
    def steps(self) -> Iterator[TakeStep]:  # noqa: D102
        if not self.compile or self._is_overridden() or self.state.skips.limit:
            with super().steps() as step:
                yield step
            return
        sides = self._critic, self._generator
        with self._moves.bound(self.play, *sides, self.is_ragged) as play:

            def step(batch: Batch) -> Terms | Values:
                before = self.num_generator_steps
                terms = play(batch)
                self._generator_moved = self.num_generator_steps > before
                return terms

            yield step

    def _is_overridden(self) -> bool:
        """Whether a step or a move is another one than here, of a subclass, say."""
        for name in ("step", "move", "critic_step", "generator_step", "joint_step"):
            if getattr(getattr(self, name), "__func__", None) is not getattr(GANTrainer, name):
                return True
        return False

    def terms(self, *batch: Any) -> Terms:
        """Both losses of the game, the penalties and the terms of the bound, without a step."""
        return self._moves.costs[Move.BOTH].terms(*batch)

    def move(self, move: Move, *batch: Any) -> Terms:
        """One move on a batch; returns the terms before it, none if passed over, or on other ranks' data alone."""
        if move is Move.CRITIC:
            return self.critic_step(*batch)
        return (self.generator_step if move is Move.GENERATOR else self.joint_step)(*batch)

    def critic_step(self, *batch: Any) -> Terms:
        """Move the critic once; returns the terms before it has moved."""
        return self._move(Move.CRITIC, batch, self._critic)

    def generator_step(self, *batch: Any) -> Terms:
        """Move the generator once, against the critic as it is."""
        return self._move(Move.GENERATOR, batch, self._generator)

    def joint_step(self, *batch: Any) -> Terms:
        """Move both, from the same weights and the same fakes."""
        return self._move(Move.BOTH, batch, self._critic, self._generator)

    @TURN.taken()
    def _move(self, move: Move, batch: Batch, *sides: Side) -> Terms:
        """Move the sides by the gradients of a move, or pass over the step."""
        if batch and self.fakes.site is None:
            # nobody has called preflight; a graph can't hold what is found by values
            self.fakes.inspect(*batch)
        terms = self._moves.backend(move, eager=self.is_ragged(batch)).backward(*batch)
        num_data = len(batch[0]) if batch else 0  # other ranks alone may have a batch
        for side in sides:
            side.average(num_data)
        parameters = [p for side in sides for p in side.parameters]
        if self.state.skips.skip(terms, terms, parameters, self.num_steps):
            for side in sides:
                side.forget()
            return {}
        for side in sides:
            side.step()
        if self.bound is not None and self._generator in sides:
            self.bound.advance()
        return terms

    def average(self) -> None:
        """The generator's average takes in each of its steps, and none of the critic's."""
        if self.ema is not None and self._generator_moved:
            self.ema.update(self.num_generator_steps)

    def end_epoch(self) -> None:  # noqa: D102
        self._generator.end_epoch()
        self._critic.end_epoch()

    def log_ratio(self, x: Tensor, *context: Any, num: int = 10_000, seed: int = 0) -> Tensor:
        r"""$\log \pi(x) / p(x)$, `(B,)` in nats, as the critic knows it; exact for the best critic of the game alone.

        p is the distribution of the fakes that the critic was trained against: those of the last weights, not of their
        average (of the average only where `fit(monitor=…)` went back to an earlier epoch of it). It is a function of x
        that has a gradient where x has one, as `Refined` asks for, and leaves every handler and the random state alone.

        Args:
            x: where, `(B, *event)`.
            context: of x; a ratio of conditional distributions, known up to a constant for each context by
                `PairedRelativistic`.
            num: fakes that fix the constant where the critic leaves one open; with a context, one for each row.
            seed: of the fakes.

        Raises:
            ValueError: if the game's critic is no log density ratio.
        """
        batch = self._to_device(x, *context)
        differentiable = torch.is_grad_enabled() and batch[0].requires_grad
        with eval_mode(self.critic), torch.set_grad_enabled(differentiable):
            found = logits(self.critic, *batch)
        fake = self._fake_logits(batch, num, seed) if self.game.ratio_reads_fake else None
        return self.game.log_ratio(found, fake)

    def _to_device(self, *batch: Any) -> Batch:
        """The arguments where the weights are, unchecked: a chain may ask for the ratio at no number."""
        device, arrays = device_of(self.module), (Tensor, np.ndarray)
        return tuple(
            torch.as_tensor(value, device=device) if isinstance(value, arrays) else value
            for value in batch
        )

    def _fake_logits(self, batch: Batch, num: int, seed: int) -> Tensor:
        """Logits of fresh fakes of the last weights, one for each row of a context, or `num` without one."""
        x, *context = batch
        like = x if context else x[:1].expand(num, *x.shape[1:])
        is_average = self.ema is not None and not self.best
        last = self.state.last_applied() if is_average else nullcontext()
        evaluating = evaluation_mode(self.module, seed=derive_seed(seed, 0))
        with without_handlers(), evaluating, last:
            return logits(self.critic, self.fakes(like, *context), *context)

    def __repr__(self) -> str:
        ema = None if self.ema is None else self.ema.decay
        bound = None if self.bound is None else type(self.bound).__name__
        autocast = "" if self.autocast is None else f", autocast={self.autocast}"
        return (
            f"GANTrainer({type(self.generator).__name__}, {type(self.critic).__name__}, "
            f"game={self.game!r}, penalties={self.penalties}, play={self.play}, ema={ema}, "
            f"noise={self.fakes.noise}, bound={bound}, weight={self.weight}, "
            f"compile={self.compile!r}{autocast})"
        )
