"""What each move of a game differentiates: the terms of a batch, and who minimizes which of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from ..inference.data.batches import Batch
from ..inference.objectives.elbo import Objective
from ..inference.objectives.losses import Costs, Loss
from ..inference.training.compiled.graphs import Terms
from .critics import Scores, logits
from .drawing import Fakes
from .games import Game
from .penalties import Penalty


class Contest(nn.Module):
    r"""$L_C + \text{penalties}$ and $\ell + \lambda L_p$ on a batch: what critic and generator minimize.

    Args:
        fakes: of the generator.
        critic: maps x `(B, *event)`, or `(x, *context)`, to logits `(B,)` or `(B, 1)`.
        game: both losses.
        penalties: what the critic minimizes in addition.
        bound: ℓ, which the generator's side minimizes as well; or `None`.
        weight: λ.

    Attributes:
        generator: all that the generator's side trains: the generator, with a bound model and guide of it as well.
    """

    def __init__(
        self,
        fakes: Fakes,
        critic: nn.Module,
        game: Game,
        penalties: Sequence[Penalty],
        bound: Objective | None,
        weight: float,
    ):
        super().__init__()
        program: Any = fakes.program
        self.generator = program if bound is None else nn.ModuleList([program, bound])
        self.critic = critic
        self.fakes = fakes
        self.game = game
        self.penalties = tuple(penalties)
        self.bound = bound
        self.weight = weight

    def of_game(self, batch: Batch, fake: Tensor) -> Terms:
        """Both losses of the game at the same logits, and the penalties."""
        real, *context = batch
        score = Scores(self.critic, *context)
        if self.penalties and torch.is_grad_enabled():  # so that they share the pass of the losses
            real = _with_gradient(real)
            fake = _with_gradient(fake)
        of_real, of_fake = score(real), score(fake)
        terms = {
            "critic": self.game.critic_loss(of_real, of_fake),
            "generator": self.game.generator_loss(of_fake, of_real),
        }
        for penalty in self.penalties:
            terms[penalty.name] = penalty(score, real, fake)
        return terms

    def of_generator(self, batch: Batch, fake: Tensor) -> Terms:
        """The generator's loss alone, without a pass over the data where it needs none."""
        _, *context = batch
        of_fake = logits(self.critic, fake, *context)
        of_real = logits(self.critic, *batch) if self.game.generator_reads_real else None
        return {"generator": self.game.generator_loss(of_fake, of_real)}

    def of_bound(self, *batch: Any) -> Terms:
        """Terms of the bound, none without one."""
        return {} if self.bound is None else self.bound.terms(*batch)

    def sum_up(self, of_game: Terms, of_bound: Terms) -> Terms:
        r"""All terms; with a bound, `loss` is $\ell + \lambda L_p$."""
        if not of_bound:
            return of_game
        loss = of_bound["loss"] + self.weight * of_game["generator"]
        return {**of_game, **of_bound, "loss": loss}

    @torch.no_grad()
    def report(self, of_game: Terms, *batch: Any) -> Terms:
        """The terms of a critic that has moved alone, with those of the bound beside them."""
        return self.sum_up(of_game, self.of_bound(*batch))

    def critic_loss(self, terms: Terms) -> Tensor:
        """What the critic minimizes, 0-dim."""
        return terms["critic"] + sum(terms[penalty.name] for penalty in self.penalties)

    def generator_loss(self, terms: Terms) -> Tensor:
        """What the generator's side minimizes, 0-dim."""
        return terms["generator"] if self.bound is None else terms["loss"]


class MoveCosts(Costs):
    """Terms of a move, and who minimizes which; abstract.

    Args:
        contest: what is minimized.
    """

    def __init__(self, contest: Contest):
        super().__init__()
        self.contest = contest

    def reading_parameters(self) -> AbstractContextManager[Any]:  # noqa: D102
        bound = self.contest.bound
        return nullcontext() if bound is None else bound.reading_parameters()

    def refuse_graph(self, *batch: Any) -> None:  # noqa: D102
        if self.contest.bound is not None:
            self.contest.bound.refuse_graph(*batch)


class CriticCosts(MoveCosts):
    """Both losses of the game and the penalties, at fakes without a gradient; the critic minimizes them.

    Args:
        contest: what is minimized.
        with_bound: whether the terms of a bound stand beside them, without a gradient.
    """

    def __init__(self, contest: Contest, *, with_bound: bool = False):
        super().__init__(contest)
        self.with_bound = with_bound

    @property
    def losses(self) -> tuple[Loss, ...]:  # noqa: D102
        return (Loss(self.contest.critic, self.contest.critic_loss),)

    def terms(self, *batch: Any) -> Terms:  # noqa: D102
        with torch.no_grad():
            fake = self.contest.fakes(*batch)
        terms = self.contest.of_game(batch, fake)
        return self.contest.report(terms, *batch) if self.with_bound else terms


class GeneratorCosts(MoveCosts):
    """The generator's loss against the critic as it is, and the terms of the bound; its side minimizes them."""

    @property
    def losses(self) -> tuple[Loss, ...]:  # noqa: D102
        return (Loss(self.contest.generator, self.contest.generator_loss),)

    def terms(self, *batch: Any) -> Terms:  # noqa: D102
        of_bound = self.contest.of_bound(*batch)  # first, and so by the noise that it takes alone
        of_game = self.contest.of_generator(batch, self.contest.fakes(*batch))
        return self.contest.sum_up(of_game, of_bound)


class JointCosts(MoveCosts):
    """All terms at the same fakes, which each side minimizes by parameters of its own."""

    @property
    def losses(self) -> tuple[Loss, ...]:  # noqa: D102
        contest = self.contest
        return (
            Loss(contest.critic, contest.critic_loss),
            Loss(contest.generator, contest.generator_loss),
        )

    def terms(self, *batch: Any) -> Terms:  # noqa: D102
        of_bound = self.contest.of_bound(*batch)
        of_game = self.contest.of_game(batch, self.contest.fakes(*batch))
        return self.contest.sum_up(of_game, of_bound)


def _with_gradient(x: Tensor) -> Tensor:
    """The tensor as it is where it has a gradient, else a leaf of its own."""
    return x if x.requires_grad else x.detach().requires_grad_()
