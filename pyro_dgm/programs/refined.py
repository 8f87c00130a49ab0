r"""A generator reweighted by the density ratio of a critic: $p(z)\, r(G(z))$ as a program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
from pyro.poutine.messenger import Messenger
from torch import Size, Tensor

from ..contract import PyroProgram
from .program import Program
from .requirements import require_program


class Refined(Program):
    r"""$\tilde p(z \mid c) \propto p(z \mid c)\, r(G(z), c)$, with a density ratio r and the mean G(z) of x.

    Where r is the ratio of π, the distribution of the data, to p, that of G(z), the draws $G(z)$ of the
    refined program are distributed as π. The ratio is a `pyro.factor` in the data plate, and the latents are
    the only sites that are sampled: `hmc` samples them, and importance weights against the generator itself
    are the ratios. The x that is passed in says by its length how many draws are wanted; its values are not
    read.

    A ratio is learned where data and fakes lie; chains leave there if it grows beyond.

    Args:
        program: the generator, a program with one observed site whose distribution has a mean.
        log_ratio: $\log \pi / p$ of y `(B, *event)`, and context `(B, …)`, as `(B,)` or `(B, 1)`:
            `trainer.log_ratio`, which raises for a game without one, or the critic of a logistic game itself.
            A bare module is trusted: the logits of `Hinge` and `Wasserstein` are no log ratios, and refine
            towards no known distribution.
        observed: name of the site x.

    Shape:
        x: `(B, *event)` or `None` for one draw; context: `(B, …)`; returns G(z) `(B, *event)`.

    Raises:
        TypeError: if the program is none, such as a VAE, or the ratio is no function.
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

    def __init__(self, program: PyroProgram, log_ratio: Callable[..., Tensor], observed: str = "x"):
        super().__init__()
        require_program(
            "Refined",
            program,
            fix="Refined(vae.generator, trainer.log_ratio)",
            fix_of_conditional="Refined(LatentVariableModel(prior, likelihood), …)",
        )
        if not callable(log_ratio):
            raise TypeError(
                f"Refined: expected log π / p as a function of y, got {type(log_ratio).__name__}. "
                "Fix: Refined(generator, trainer.log_ratio)."
            )
        self.program = program
        self.log_ratio = log_ratio
        self.observed = observed

    def extra_repr(self) -> str:
        return f"observed={self.observed!r}"

    def forward(self, x: Tensor | None = None, *context: Tensor) -> Any:
        with _RatioInPlaceOfData(self.log_ratio, self.observed, context) as handler:
            value = self.program(x, *context)
        if not handler.applied:
            raise ValueError(
                f"Refined: expected a program with the site '{self.observed}', got one without. "
                "Fix: Refined(…, observed='…')."
            )
        return value


class _RatioInPlaceOfData(Messenger):
    """Replaces an observation by the factor r(y) at its mean y, which becomes the value of the site."""

    def __init__(
        self, log_ratio: Callable[..., Tensor], observed: str, context: tuple[Tensor, ...]
    ):
        super().__init__()
        self.log_ratio = log_ratio
        self.observed = observed
        self.context = context
        self.applied = False  # whether the program had the site

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] != self.observed:
            return
        self.applied = True
        distribution = msg["fn"]
        y = distribution.mean
        batch_shape = y.shape[: y.dim() - len(distribution.event_shape)]
        pyro.factor(f"log_ratio_{self.observed}", self._log_ratios(y, batch_shape))
        msg.update(value=y, done=True, stop=True)

    def _log_ratios(self, y: Tensor, batch_shape: Size) -> Tensor:
        r"""$\log r(y, c)$ of draws `(*batch, *event)`, `(*batch)`; a critic sees one batch dim."""
        last_batch_dim = len(batch_shape) - 1
        rows = [y.flatten(0, last_batch_dim)]
        for c in self.context:
            repeated = c.expand(*batch_shape, *c.shape[1:])
            rows.append(repeated.flatten(0, last_batch_dim))
        log_ratios = self.log_ratio(*rows)
        num = batch_shape.numel()
        if log_ratios.numel() != num:
            raise ValueError(
                f"log_ratio: expected one number per draw, ({num},) or ({num}, 1), got shape "
                f"{tuple(log_ratios.shape)}. Fix: end the critic with nn.Linear(hidden, 1)."
            )
        return log_ratios.reshape(batch_shape)
