"""The prior of a trained VAE, fitted to its aggregated posterior, and its scale, fitted to the residuals."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn

from ..contract import noise_name
from ..inference.data.batches import Batch, Batches
from ..inference.drawing.generation import encode
from ..inference.objectives.elbo import ELBO
from ..inference.process.states import derive_seed, eval_mode
from ..inference.run.sessions import session
from ..inference.training.svi import SVITrainer
from ..programs.dequantization.noise import within_cell
from ..programs.guides import EmptyGuide
from ..programs.likelihoods.continuous import Normal
from ..programs.models import DensityModel
from ..programs.vae import VAE


def refit_prior(
    vae: VAE,
    data: Any,
    prior: nn.Module,
    val: Any = None,
    epochs: int = 50,
    batch_size: int = 128,
    lr: float = 1e-3,
    patience: int | None = None,
    seed: int = 0,
    *,
    compile: bool | str = False,
    progress: bool = False,
) -> VAE:
    r"""$\max_\lambda E_{x \sim \mathrm{data}}\, E_{q(z \mid x)} \log p_\lambda(z)$: a new prior for a VAE.

    Encoder and likelihood stay as they are, so that every nat that the prior gains in
    $-KL(q_{agg} \| p)$ is gained in the bound on these data. Each time a datum is seen its z is drawn
    anew. The VAE that is given, and the prior that is given, are left as they are.

    Args:
        vae: the trained VAE.
        data: its data `(N, *event)`, or a tuple: observation first, then context.
        prior: a conditional with parameters to learn, such as `Flow(MixturePrior(8, 10), maf(8, 2))`;
            or one without, such as `AggregatePrior(vae.guide.encoder, data[:1000])`, which stays as it
            is. A `VampPrior` learns its pseudo-inputs; the encoder that it shares stays as it is.
        val: held-out data; the prior of the best epoch on them is kept.
        epochs: passes over the data.
        batch_size: data per step.
        lr: learning rate (Adam).
        patience: stop after so many epochs without a better validation.
        seed: of draws and order.
        compile: as in `SVITrainer`.
        progress: whether to show a bar.

    Returns:
        A new VAE with copies of encoder and likelihood, and the fitted prior.

    Raises:
        TypeError: for anything but a VAE.

    References:
        Hoffman, Johnson 2016, *ELBO surgery*; Ghosh et al. 2020, arXiv:1903.12436 (density estimation
        ex post).
    """
    require_vae(vae, "refit_prior")
    # One copy of all: a prior that refers to the encoder refers to the new one.
    refitted = copy.deepcopy(vae.replace(prior=prior)).to(next(vae.parameters()).device)
    new_prior = refitted.generator.prior
    guide = refitted.guide
    with frozen(guide):
        # Asked only here: a prior that shares the encoder may have no parameter but the encoder's.
        if not any(p.requires_grad for p in new_prior.parameters()):
            return refitted
        latents = _LatentBatches(guide, data, batch_size)
        held_out = None if val is None else _LatentBatches(guide, val, batch_size, shuffle=False)
        density = DensityModel(new_prior, observed=vae.generator.latent)
        trainer = SVITrainer(ELBO(density, EmptyGuide()), lr=lr, compile=compile)
        trainer.trains_statements = False  # a copy of the VAE would share them with it
        trainer.fit(
            latents,
            held_out,
            epochs,
            batch_size,
            patience=patience,
            seed=seed,
            progress=progress,
        )
    return refitted


def refit_scale(vae: VAE, *batch: Any, num: int = 10, seed: int = 0) -> VAE:
    r"""$\sigma_*^2 = \frac{1}{N D} \sum_i E_{q(z \mid x_i)} \|x_i - \mu(z)\|^2$: a VAE's optimal σ.

    No other scale of its `Normal` likelihood gives these data a larger ELBO. The expectation is over
    `num` draws of the guide, the noise of a dequantizer among them. The VAE that is given is left as it is.

    Args:
        vae: the trained VAE, its likelihood a `Normal`.
        batch: its data, observation first.
        num: draws per datum.
        seed: of the draws.

    Returns:
        A copy of the VAE with $\sigma = \sigma_*$.

    Raises:
        TypeError: for anything but a VAE, and if its likelihood is no `Normal`.

    References:
        Rybkin, Daniilidis, Levine 2021, *Simple and effective VAE training with calibrated decoders*,
        arXiv:2006.13202.
    """
    require_vae(vae, "refit_scale")
    refitted = copy.deepcopy(vae)
    likelihood = refitted.generator.likelihood
    if not isinstance(likelihood, Normal):
        raise TypeError(
            "refit_scale: expected a Normal likelihood, whose one σ has an optimum in closed form, "
            f"got {type(likelihood).__name__}. Fix: VAE(…, likelihood=Normal(net))."
        )
    squares = []
    with session(refitted.model, refitted.guide, *batch, num=num, seed=seed) as pair:
        for i, block in enumerate(pair.blocks()):
            squares.append(_mean_squares(refitted, likelihood, block, num, derive_seed(seed, i)))
    likelihood.set_scale(sqrt(torch.cat(squares).mean().item()))
    return refitted


def require_vae(vae: object, caller: str) -> None:
    """Refuse what is no VAE, such as the class itself or one of its programs."""
    if not isinstance(vae, VAE):
        found = f"the class {vae.__name__}" if isinstance(vae, type) else type(vae).__name__
        raise TypeError(
            f"{caller}: expected a trained VAE, got {found}. "
            f"Fix: {caller}(VAE(prior, likelihood, encoder), …)."
        )


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """No parameter of the module asks for a gradient, and it runs in evaluation mode inside a trainer too."""
    trainable = [p for p in module.parameters() if p.requires_grad]
    was_training = [(part, part.training) for part in module.modules()]
    # A trainer sets all modules to training mode, all but these: a graph is made anew for other modes. Whoever sets
    # them otherwise finds them in evaluation mode all the same, by the hook before each call.
    hook = module.register_forward_pre_hook(_set_to_evaluation)
    module.eval()
    try:
        for part, _ in was_training:
            vars(part)["train"] = partial(_stay, part)
        for p in trainable:
            p.requires_grad_(False)
        yield
    finally:
        hook.remove()
        for p in trainable:
            p.requires_grad_(True)
        for part, mode in was_training:
            vars(part).pop("train", None)
            part.training = mode


def _set_to_evaluation(module: nn.Module, _: Any) -> None:
    for part in module.modules():
        part.training = False


def _stay(part: nn.Module, mode: bool = True) -> nn.Module:  # noqa: FBT001, FBT002 - as nn.Module.train
    return part


def _mean_squares(vae: VAE, likelihood: Normal, block: Batch, num: int, seed: int) -> Tensor:
    r"""$\frac1D E_{q(z \mid x_i)} \|x_i - \mu(z)\|^2$ `(N,)`, float64; of x + u where there is noise."""
    x, *context = block
    draws = encode(vae.guide, x, *context, num=num, seed=seed)
    with eval_mode(vae):
        loc = likelihood.net(draws[vae.generator.latent], *context)
    noise = draws.get(noise_name(vae.generator.observed))
    v = x if noise is None else within_cell(x, noise)
    squares = (v.double() - loc.double()).square()
    return squares.mean(0).flatten(1).mean(1)


class _LatentBatches(Batches):
    r"""Batches of fresh draws $z \sim q(z \mid x, c)$, each followed by its context."""

    def __init__(self, guide: nn.Module, data: Any, batch_size: int, *, shuffle: bool = True):
        super().__init__(data, batch_size, shuffle=shuffle)
        self.guide = guide

    @torch.no_grad()
    def _rows(self, rows: Tensor) -> Batch:
        x, *context = super()._rows(rows)
        return (self.guide(x, *context), *context)
