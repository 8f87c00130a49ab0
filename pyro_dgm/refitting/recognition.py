"""The guide of a generator that was trained without one, as by a critic, and then its likelihood."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from torch import nn

from ..display.tabular import Tabular
from ..evaluation.likelihood.annealing import AIS
from ..evaluation.likelihood.importance import nll
from ..evaluation.likelihood.results import NLL
from ..inference.objectives.elbo import ELBO, Objective
from ..inference.training.svi import SVITrainer
from ..programs.guides import AmortizedGuide
from ..programs.likelihoods.continuous import Normal
from ..programs.vae import VAE
from .generative import frozen, require_vae

Score = Callable[..., NLL | AIS]


def refit_guide(
    vae: VAE,
    data: Any,
    encoder: nn.Module,
    val: Any = None,
    epochs: int = 50,
    batch_size: int = 128,
    lr: float = 1e-3,
    patience: int | None = None,
    seed: int = 0,
    *,
    objective: Callable[[nn.Module, nn.Module], Objective] = ELBO,
    compile: bool | str = False,
    progress: bool = False,
) -> VAE:
    r"""$\max_\phi E_{x \sim \mathrm{data}}\, \mathrm{ELBO}(p, q_\phi; x)$: a new guide for a generator.

    A generator that was trained against a critic has no guide. With an observation model around its
    output, `VAE(prior, Normal(MeanOf(generator.likelihood), 0.1), encoder)`, it gets one here, and its
    likelihood can be estimated. The VAE that is given, and the encoder that is given, are left as they are.

    Args:
        vae: a VAE whose generator is trained.
        data: data `(N, *event)`, or a tuple: observation first, then context.
        encoder: a conditional for q(z|x), fresh, or that of another VAE to go on from.
        val: held-out data; the encoder of the best epoch on them is kept.
        epochs: passes over the data.
        batch_size: data per step.
        lr: learning rate (Adam).
        patience: stop after so many epochs without a better validation.
        seed: of draws and order.
        objective: makes the loss of model and guide: `ELBO`, `partial(IWELBO, num_particles=8)`, or
            `Sleep`, which learns from the model's own draws.
        compile: as in `SVITrainer`.
        progress: whether to show a bar.

    Returns:
        A new VAE with a copy of the generator, and the fitted encoder. A dequantizer with parameters is
        fitted as well.

    Raises:
        TypeError: for anything but a VAE.

    References:
        Wu, Burda, Salakhutdinov, Grosse 2017, *On the quantitative analysis of decoder-based generative
        models*, arXiv:1611.04273.
    """
    require_vae(vae, "refit_guide")
    refitted = copy.deepcopy(vae.replace(encoder=encoder)).to(next(vae.parameters()).device)
    with frozen(refitted.generator):
        trainer = SVITrainer(objective(refitted.model, refitted.guide), lr=lr, compile=compile)
        trainer.trains_statements = False  # a copy of the VAE would share them with it
        trainer.fit(data, val, epochs, batch_size, patience=patience, seed=seed, progress=progress)
    return refitted


@dataclass(frozen=True)
class ScaleCurve(Tabular):
    r"""$-\log p_\sigma(x)$ under the observation model $\mathcal N(G(z), \sigma^2)$, for some σ.

    Attributes:
        scales: σ, in the unit of the data, falling.
        scores: the likelihood of the test data at each, nats per datum.
        vaes: the VAE at each, with the guide that was fitted there.
    """

    scales: tuple[float, ...]
    scores: tuple[NLL | AIS, ...]
    vaes: tuple[VAE, ...]

    @property
    def best(self) -> int:
        """The position of the least mean NLL. It is a little too good for these data: choose σ on others."""
        costs = self.columns()["nll"]
        return costs.index(min(costs))

    @property
    def kind(self) -> str:
        """Exact, or what sort of bound."""
        return self.scores[0].kind

    def columns(self) -> dict[str, list[float]]:
        """σ, and the NLL at it with its standard error, nats per datum."""
        table: dict[str, list[float]] = {"scale": list(self.scales), "nll": [], "stderr": []}
        for score in self.scores:
            table["nll"].append(score.mean)
            table["stderr"].append(score.stderr)
        return table

    def __str__(self) -> str:
        lines = [f"   scale  NLL, nats per datum ({self.kind})"]
        for scale, score in zip(self.scales, self.scores, strict=True):
            lines.append(f"{scale:8.4g}  {score.mean:10.3f} ± {score.stderr:.3f}")
        lines[1 + self.best] += "  *"
        return "\n".join(lines)


def nll_over_scale(
    vae: VAE,
    data: Any,
    test: Any,
    scales: Sequence[float],
    epochs: int = 50,
    batch_size: int = 128,
    lr: float = 1e-3,
    seed: int = 0,
    *,
    score: Score = nll,
    objective: Callable[[nn.Module, nn.Module], Objective] = ELBO,
    compile: bool | str = False,
    progress: bool = False,
) -> ScaleCurve:
    r"""$\sigma \mapsto -\log \int p(z)\, \mathcal N(x; G(z), \sigma^2)\, dz$: the NLL of a GAN's generator.

    The σ is no part of the generator, so the curve as a whole is the result. It falls while σ shrinks
    towards the distance of the data to the nearest G(z), and rises like $d^2 / 2 \sigma^2$ where it is
    too small for them. The guide is fitted at each σ, from the largest to the smallest, and goes on from
    the last: wide posteriors are easy.

    Args:
        vae: prior, `Normal(MeanOf(generator.likelihood))` or another `Normal`, and the encoder to begin with.
        data: what the guides are fitted on.
        test: what is scored.
        scales: σ, in the unit of the data.
        epochs: passes over the data at each σ.
        batch_size: data per step.
        lr: learning rate (Adam).
        seed: of draws and order.
        score: scores model and guide on the test data: `nll`, `partial(nll, num=5000)`, or
            `lambda model, guide, x: ais(model, x, start=guide)`, which depends less on how good the guide is.
        objective: as in `refit_guide`.
        compile: as in `SVITrainer`; there is one graph to compile at each σ.
        progress: whether to show bars.

    Raises:
        TypeError: for anything but a VAE, and if its likelihood is no `Normal`.
        ValueError: if there is no σ, or one that is not positive.

    References:
        Wu, Burda, Salakhutdinov, Grosse 2017, arXiv:1611.04273 (AIS, GANs with a Gaussian observation model).
    """
    require_vae(vae, "nll_over_scale")
    _check_scales(vae, scales)
    test_batch = test if isinstance(test, tuple) else (test,)
    falling = sorted(scales, reverse=True)
    fitted = vae
    vaes, scores = [], []
    for scale in falling:
        start = _at_scale(vae, scale, fitted.guide)
        fitted = refit_guide(
            start,
            data,
            start.guide.encoder,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            seed=seed,
            objective=objective,
            compile=compile,
            progress=progress,
        )
        vaes.append(fitted)
        scores.append(score(fitted.model, fitted.guide, *test_batch))
    return ScaleCurve(tuple(falling), tuple(scores), tuple(vaes))


def _at_scale(vae: VAE, scale: float, guide: AmortizedGuide) -> VAE:
    """Copies of the generator, with another σ, and of a guide to go on from."""
    start = vae.replace(encoder=guide.encoder, dequantizer=guide.dequantizer)
    start = copy.deepcopy(start)
    cast(Normal, start.generator.likelihood).set_scale(scale)
    return start


def _check_scales(vae: VAE, scales: Sequence[float]) -> None:
    likelihood = vae.generator.likelihood
    if not isinstance(likelihood, Normal):
        raise TypeError(
            "nll_over_scale: expected a Normal likelihood, whose σ is varied, got "
            f"{type(likelihood).__name__}. Fix: vae.replace(likelihood=Normal(MeanOf(likelihood)))."
        )
    if not scales or min(scales) <= 0:
        raise ValueError(
            "scales: expected at least one σ, and all of them positive, got "
            f"{tuple(scales)}. Fix: scales=(1.0, 0.3, 0.1)."
        )
