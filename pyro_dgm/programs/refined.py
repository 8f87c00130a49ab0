r"""A generator refined by what a critic knows of it: $p(z)\, r(G(z))$ as a program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
from pyro.poutine.messenger import Messenger
from torch import Size, Tensor

from .program import Program


class Refined(Program):
    r"""$\tilde p(z \mid c) \propto p(z \mid c)\, r(G(z), c)$ with $r = \pi / p$ a density ratio, G(z) the mean of x.

    Where the critic knows the ratio and G(z) makes up p, the refined draws $G(z)$ have the law π of the data. The ratio
    is a `pyro.factor` in the data plate, beside which the latents are all that is drawn: `hmc` samples them, and
    importance weights against the generator itself are the ratios. The value of x that is passed in says how many draws
    are wanted, and is not read.

    A ratio is learned where data and fakes lie; chains leave there if it grows beyond.

    Args:
        program: the generator, a program with one observed site whose law has a mean.
        log_ratio: $\log \pi / p$ of y `(B, *event)`, and context `(B, …)`, as `(B,)` or `(B, 1)`: `trainer.log_ratio`,
            which raises for a game without one, or the critic of a logistic game itself. A bare module is taken at its
            word: the logits of `Hinge` and `Wasserstein` are no log ratios, and refine towards no known law.
        observed: name of the site x.

    Shape:
        x: `(B, *event)` or `None` for one draw; context: `(B, …)`; returns G(z) `(B, *event)`.

    Raises:
        TypeError: if the ratio is no function.
        ValueError: if the program has no such site, or the ratio is not one number per draw.

    References:
        Che et al. 2020, *Your GAN is secretly an energy-based model*, arXiv:2003.06060; Azadi et al. 2019,
        *Discriminator rejection sampling*, arXiv:1810.06758.

    Example:
        >>> import torch
        >>> from pyro_dgm import Deterministic, LatentVariableModel, StandardNormal, hmc, mlp
        >>> generator = LatentVariableModel(StandardNormal(2), Deterministic(mlp(2, 9)))
        >>> refined = Refined(generator, mlp(9, 1))
        >>> z = hmc(refined, torch.zeros(1, 9), num=10, chains=3, warmup=8).draws["z"]
        >>> generator.likelihood(z.flatten(0, 2)).mean.shape
        torch.Size([30, 9])
    """

    def __init__(self, program: Callable, log_ratio: Callable[..., Tensor], observed: str = "x"):
        super().__init__()
        if not callable(log_ratio):
            raise TypeError(
                f"Refined: expected log π / p as a function of y, got {type(log_ratio).__name__}. "
                "Fix: Refined(generator, trainer.log_ratio)."
            )
        self.program, self.log_ratio, self.observed = program, log_ratio, observed

    def forward(self, x: Tensor | None = None, *context: Tensor) -> Any:
        with _Weighing(self.log_ratio, self.observed, context) as weighing:
            value = self.program(x, *context)
        if not weighing.met:
            raise ValueError(
                f"Refined: expected a program with the site '{self.observed}', got one without. "
                "Fix: Refined(…, observed='…')."
            )
        return value


class _Weighing(Messenger):
    """Puts a factor in the place of an observation, whose value is then its mean."""

    def __init__(self, log_ratio: Callable[..., Tensor], observed: str, context: tuple):
        super().__init__()
        self.log_ratio, self.observed, self.context = log_ratio, observed, context
        self.met = False

    def _pyro_sample(self, msg: dict) -> None:
        if msg["name"] != self.observed:
            return
        self.met = True
        y = msg["fn"].mean
        batch = y.shape[: y.dim() - len(msg["fn"].event_shape)]
        pyro.factor(f"log_ratio_{self.observed}", self._log_ratios(y, batch))
        msg.update(value=y, done=True, stop=True)

    def _log_ratios(self, y: Tensor, batch: Size) -> Tensor:
        """Of draws `(*batch, *event)`: critics take one batch dim."""
        rows = [c.expand(*batch, *c.shape[1:]).flatten(0, len(batch) - 1) for c in self.context]
        found = self.log_ratio(y.flatten(0, len(batch) - 1), *rows)
        if found.numel() != batch.numel():
            raise ValueError(
                f"log_ratio: expected one number per draw, ({batch.numel()},) or ({batch.numel()}, 1), got shape "
                f"{tuple(found.shape)}. Fix: end the critic with nn.Linear(hidden, 1)."
            )
        return found.reshape(batch)
