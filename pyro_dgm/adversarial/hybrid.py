"""One decoder, two teachers: a bound on the likelihood and a critic, with one optimizer on what they share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..inference.objectives.elbo import Objective
from ..inference.training.trainer import Terms
from .games import Game, NonSaturating
from .penalties import R1, Penalty
from .players import Alternating, Play
from .trainer import GANTrainer


class HybridTrainer(GANTrainer):
    r"""$\min_{p, q} \ell(p, q) + \lambda L_p(C, p)$ against $\min_C L_C(C, p) + \text{penalties}$, ℓ a bound.

    With `ELBO(vae.model, vae.guide)` the decoder minimizes −ELBO + λ times its loss in the game. One optimizer moves
    all parameters of ℓ, model and guide, by the gradient of the sum: two would each keep moments of a gradient that the
    other one's steps have made stale. λ is in nats per datum for one unit of the game's loss; at λ = 0 the step of
    model and guide is that of `SVITrainer`.

    The history has the terms of both: `loss` is the sum, `nelbo` the bound alone, `generator` and `critic` the losses
    of the game. The weights of the best `val_nelbo` are kept, unless `fit(monitor=…)` names another term.

    Args:
        objective: ℓ. Its model is the generator: a program whose observation has a mean, or see `noise`.
        critic: as in `GANTrainer`.
        weight: λ.
        game: what is played.
        penalties: what the critic minimizes beside its loss.
        play: who moves when; its generator moves model and guide.
        noise: whether the critic sees reparameterized draws of the observation, in place of its mean.

    Raises:
        TypeError: if the objective is no bound or the critic no module; as in `GANTrainer`.
        ValueError: for a negative weight; as in `GANTrainer`, and at `fit`, as in `SVITrainer`.

    References:
        Larsen, Sønderby, Larochelle, Winther 2016, *Autoencoding beyond pixels*, arXiv:1512.09300; Grover, Dhar,
        Ermon 2018, *Flow-GAN*, arXiv:1705.08868.

    Example:
        >>> import torch
        >>> import pyro.distributions as dist
        >>> from pyro_dgm import Conditional, ELBO, Normal, StandardNormal, VAE, mlp
        >>> vae = VAE(StandardNormal(2), Normal(mlp(2, 9)), Conditional(dist.Normal, mlp(9, 4)))
        >>> trainer = HybridTrainer(ELBO(vae.model, vae.guide), mlp(9, 1), weight=0.1)
        >>> len(trainer.fit(torch.ones(32, 9), epochs=3, progress=False))
        3
    """

    def __init__(
        self,
        objective: Objective,
        critic: nn.Module,
        weight: float = 1.0,
        game: Game = NonSaturating(),  # noqa: B008 - games, penalties and plays are frozen
        penalties: Sequence[Penalty] = (R1(1.0),),
        play: Play = Alternating(),  # noqa: B008
        *,
        noise: bool = False,
    ):
        if not isinstance(objective, Objective):
            raise TypeError(
                f"HybridTrainer: expected a bound to train model and guide by, got {type(objective).__name__}. "
                "Fix: HybridTrainer(ELBO(model, guide), critic)."
            )
        super().__init__(objective, critic, game, penalties, play, noise=noise)
        if not weight >= 0:
            raise ValueError(f"HybridTrainer: expected weight >= 0, got {weight}.")
        self.objective, self.weight = objective, weight

    @staticmethod
    def _program_of(trained: Objective) -> nn.Module:
        return trained.model

    def preflight(self, *batch: Any) -> None:  # noqa: D102
        self.objective.preflight(*batch)
        super().preflight(*batch)

    def step(self, *batch: Any) -> Terms:  # noqa: D102
        terms = super().step(*batch)
        if self._generator_moved:
            self.objective.advance()
        elif terms:  # the critic alone has moved, and every row of the history has the same terms
            with torch.no_grad():
                of_bound = self.objective.terms(*batch)
            terms = {
                **terms,
                **of_bound,
                "loss": of_bound["loss"] + self.weight * terms["generator"],
            }
        return terms

    def terms(self, *batch: Any) -> Terms:
        """The terms of the bound and of the game, without a step."""
        return self._joined(self.objective.terms(*batch), super().terms(*batch))

    def _generator_terms(self, *batch: Any) -> Terms:
        # The bound comes first, so that it takes the noise that it takes alone.
        return self._joined(self.objective.terms(*batch), super()._generator_terms(*batch))

    def _generator_cost(self, terms: Terms) -> Tensor:
        return terms["loss"]

    def _rules(self) -> dict[str, str]:
        return {**super()._rules(), "weight": str(self.weight)}

    def _joined(self, of_bound: Terms, of_game: Terms) -> Terms:
        return {
            **of_bound,
            **of_game,
            "loss": of_bound["loss"] + self.weight * of_game["generator"],
        }
