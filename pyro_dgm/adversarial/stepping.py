"""How moves are taken: by autograd, or by graphs that are made once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch

from ..inference.data.batches import Batch
from ..inference.training.compiled.compilation import Compiled, Eager
from ..inference.training.compiled.graphs import Terms
from ..inference.training.compiled.options import FallBack, mode_of
from ..inference.training.compiled.steps import CompiledSteps, Descent
from ..inference.training.compiled.updates import Update
from ..inference.training.running import Values
from .moves import Contest, CriticCosts, GeneratorCosts, JointCosts, MoveCosts
from .players import Move, Play, Side


class Moves:
    r"""Terms and gradients of each move, by autograd and, where that is asked for, by one graph each.

    Args:
        contest: what is minimized.
        compile: as in `SVITrainer`.
        announce: told what a compilation is doing.
        fall_back: told why a move has no graph; `None` where it must have one.
        autocast: as in `SVITrainer`.
    """

    def __init__(
        self,
        contest: Contest,
        compile: bool | str,  # noqa: FBT001
        announce: Callable[[str], None],
        fall_back: FallBack | None = None,
        autocast: torch.dtype | None = None,
    ):
        self.costs: dict[Move, MoveCosts] = {
            Move.CRITIC: CriticCosts(contest),
            Move.GENERATOR: GeneratorCosts(contest),
            Move.BOTH: JointCosts(contest),
        }
        self.eager = {move: Eager(costs, autocast) for move, costs in self.costs.items()}
        self.compiled: dict[Move, Compiled] = {}
        if not compile:
            return
        mode = mode_of(compile)
        for move, costs in self.costs.items():
            self.compiled[move] = Compiled(costs, mode, announce, fall_back, autocast)
        # A critic that moves alone has the terms of a bound beside its own, out of the same graph.
        reported = CriticCosts(contest, with_bound=True)
        compiled = Compiled(reported, mode, announce, fall_back, autocast)
        self._reported = Eager(reported, autocast), compiled

    def backend(self, move: Move, *, eager: bool) -> Eager | Compiled:
        """What gives terms and gradients of a move."""
        return self.eager[move] if eager or not self.compiled else self.compiled[move]

    @contextmanager
    def bound(
        self, play: Play, critic: Side, generator: Side, is_ragged: Callable[[Batch], bool]
    ) -> Iterator[CompiledPlay]:
        """The steps of an epoch, in which nobody else moves a side."""
        contest = self.costs[Move.CRITIC].contest
        schedules = [] if contest.bound is None else contest.bound.schedules()
        advance = [schedule.advance for schedule in schedules]
        try:
            with _descent(critic) as of_critic, _descent(generator) as of_generator:
                descents = {
                    Move.CRITIC: ([of_critic], []),
                    Move.GENERATOR: ([of_generator], advance),
                    Move.BOTH: ([of_critic, of_generator], advance),
                }
                steps = {}
                for move, (own, after) in descents.items():
                    backends = self.compiled[move], self.eager[move]
                    steps[move] = CompiledSteps(*backends, own, after, is_ragged)
                eager, compiled = self._reported
                reported = CompiledSteps(compiled, eager, [of_critic], [], is_ragged)
                alone = steps[Move.CRITIC] if contest.bound is None else reported
                yield CompiledPlay(play, steps, alone, critic, generator)
        finally:
            critic.forget()
            generator.forget()


class CompiledPlay:
    """A step of a play by graphs: the plan that `GANTrainer.step` carries out.

    Args:
        play: who moves when.
        steps: what takes a move.
        alone: what takes the last one of a critic that moves alone.
        critic, generator: the sides, whose steps are counted.
    """

    def __init__(
        self,
        play: Play,
        steps: Mapping[Move, CompiledSteps],
        alone: CompiledSteps,
        critic: Side,
        generator: Side,
    ):
        self.play = play
        self.steps = steps
        self.alone = alone
        self.critic = critic
        self.generator = generator

    def __call__(self, batch: Batch) -> Terms | Values:
        """One step; returns the terms before each move, the latest where two moves have one of a name."""
        moves = self.play.plan(self.critic.num_steps)
        is_alone = all(move is Move.CRITIC for move in moves)
        terms: Terms = {}
        for position, move in enumerate(moves, start=1):
            is_last = position == len(moves)
            step = self.alone if is_alone and is_last else self.steps[move]
            found = step(batch)
            self.critic.num_steps += move is not Move.GENERATOR
            self.generator.num_steps += move is not Move.CRITIC
            if len(moves) == 1:
                return found
            terms.update(_by_name(found))
        return terms


@contextmanager
def _descent(side: Side) -> Iterator[Descent]:
    with Update(side.optimizer, side.parameters).bound() as update:
        yield Descent(update, side.clip)


def _by_name(terms: Terms | Values) -> Terms:
    if isinstance(terms, Values):
        return dict(zip(terms.names, terms.values.unbind(), strict=True))
    return terms
