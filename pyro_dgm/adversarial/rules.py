"""What is played, as a part of a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .games import Game
from .penalties import Penalty
from .players import Play


class GameRules:
    """What is played, as text that a checkpoint holds: it is compared, and not taken.

    The moments and weights of a checkpoint were made by the losses of one game, and mean nothing in another.

    Args:
        game: the losses.
        penalties: what the critic minimizes in addition.
        play: who moves when; whoever the players are, the order counts.
        noise: whether the critic sees draws of the observation.
        weight: of the game where a bound is minimized as well.
    """

    def __init__(
        self,
        game: Game,
        penalties: Sequence[Penalty],
        play: Play,
        noise: bool,  # noqa: FBT001
        weight: float | None,
    ):
        self.rules = {
            "game": str(game),
            "penalties": ", ".join(f"{type(p).__name__}({vars(p)})" for p in penalties),
            "play": str(play),
            "noise": str(noise),
        }
        if weight is not None:
            self.rules["weight"] = str(weight)

    def state_dict(self) -> dict[str, Any]:
        """The rules by name."""
        return self.rules

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Compare them.

        Raises:
            ValueError: for other rules.
        """
        if state != self.rules:
            raise ValueError(
                f"resume: expected a checkpoint of the game {self.rules}, got one of {state}. "
                "Fix: the same game=, penalties=, play=, noise=, bound= and weight=."
            )
