"""One decoder, two teachers: a bound on the likelihood and a critic, with one optimizer on what they share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ..inference.objectives.elbo import Objective
from .games import Game, NonSaturating
from .penalties import R1, Penalty
from .players import Alternating, Play
from .trainer import GANTrainer


def HybridTrainer(
    objective: Objective,
    critic: nn.Module,
    weight: float = 1.0,
    game: Game = NonSaturating(),  # noqa: B008 - games, penalties and plays are frozen
    penalties: Sequence[Penalty] = (R1(1.0),),
    play: Play = Alternating(),  # noqa: B008
    *,
    ema: float | None = None,
    noise: bool = False,
    compile: bool | str = False,
    autocast: torch.dtype | None = None,
) -> GANTrainer:
    r"""$\min_{p, q} \ell(p, q) + \lambda L_p(C, p)$ against $\min_C L_C(C, p) + \text{penalties}$, ℓ a bound.

    It is `GANTrainer(objective.model, critic, …, bound=objective, weight=weight)`. With `ELBO(vae.model, vae.guide)`
    the decoder minimizes −ELBO + λ times its loss in the game. One optimizer moves model and guide by the gradient of
    the sum: two would each keep moments of a gradient that the other one's steps have made stale. At λ = 0 the step of
    model and guide is that of `SVITrainer`.

    Args:
        objective: ℓ. Its model is the generator: a program whose observation has a mean, or see `noise`.
        critic: as in `GANTrainer`.
        weight: λ, in nats per datum for one unit of the game's loss.
        game: what is played.
        penalties: what the critic minimizes in addition to its loss.
        play: who moves when; its generator moves model and guide.
        ema: decay of an exponential moving average of the weights of model and guide, as in `GANTrainer`.
        noise: whether the critic sees reparameterized draws of the observation, in place of its mean.
        compile: as in `GANTrainer`.
        autocast: as in `GANTrainer`.

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
    if not isinstance(objective, Objective):
        raise TypeError(
            "HybridTrainer: expected a bound to train model and guide by, got "
            f"{type(objective).__name__}. Fix: HybridTrainer(ELBO(model, guide), critic)."
        )
    return GANTrainer(
        objective.model,
        critic,
        game,
        penalties,
        play,
        ema,
        noise=noise,
        bound=objective,
        weight=weight,
        compile=compile,
        autocast=autocast,
    )
