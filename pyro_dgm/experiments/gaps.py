"""Where a VAE's bound loses: in the family of its posteriors, or in the one encoder that answers for all data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..evaluation.estimate import Estimate, estimated
from ..evaluation.likelihood import PerDatum, nll
from ..programs.guides import SemiAmortizedGuide
from ..programs.vae import VAE


@dataclass(frozen=True)
class Gaps:
    r"""$\log p(x) - \mathrm{ELBO}$ in two: $[\mathcal L(q^*) - \mathcal L(q)] + [\log p(x) - \mathcal L(q^*)]$, nats.

    $q^*$ is the best member of the encoder's family (moved and scaled) for each datum by itself. The ascent that finds
    it may stop early, so that amortization is a lower bound and approximation an upper one; with an importance estimate
    for $\log p(x)$, a lower bound in expectation, approximation is too small by what that lacks.

    Attributes:
        amortization: what one encoder for all data loses, mean over the data and its standard error.
        approximation: what the family loses.
        inference: the sum of both.
        amortization_per_datum: `(N,)`, float64.
        approximation_per_datum: `(N,)`, float64.
    """

    amortization: Estimate
    approximation: Estimate
    inference: Estimate
    amortization_per_datum: Tensor
    approximation_per_datum: Tensor

    def __str__(self) -> str:
        return (
            f"inference gap {self.inference} nats = amortization {self.amortization} + approximation "
            f"{self.approximation} ({len(self.amortization_per_datum)} data)"
        )


def gaps(
    vae: VAE,
    *batch: Any,
    num: int = 500,
    num_steps: int = 300,
    lr: float = 0.03,
    truth: PerDatum | None = None,
    seed: int = 0,
) -> Gaps:
    r"""The inference gap of every datum, split into amortization and approximation by per-datum optimisation.

    Args:
        vae: the trained VAE, its encoder's draws reparameterized, without a dequantizer.
        batch: the data, observation first.
        num: draws per datum for each of the two bounds.
        num_steps: steps of the ascent for each datum, see `SemiAmortizedGuide`.
        lr: its step size.
        truth: an estimate of $-\log p(x)$ of the same data, such as `ais(vae.model, x)`; by importance sampling from
            $q^*$ unless given.
        seed: of the draws.

    Raises:
        ValueError: for a VAE with a dequantizer, or a truth of other data.

    References:
        Cremer, Li, Duvenaud 2018, *Inference suboptimality in variational autoencoders*, arXiv:1801.03558.
    """
    if vae.guide.dequantizer is not None:
        raise ValueError(
            "gaps: expected a VAE without a dequantizer, whose noise the ascent would have to refine as well. "
            "Fix: a discretized likelihood."
        )
    refined = SemiAmortizedGuide(vae.guide.encoder, vae.generator, num_steps, lr, latent=vae.generator.latent)
    amortized = nll(vae.model, vae.guide, *batch, num=num, seed=seed)
    best = nll(vae.model, refined, *batch, num=num, seed=seed)
    exact = (truth or best).per_datum
    if len(exact) != len(best.per_datum):
        raise ValueError(f"gaps: expected a truth of {len(best.per_datum)} data, got one of {len(exact)}.")
    amortization, approximation = amortized.nelbo - best.nelbo, best.nelbo - exact
    return Gaps(
        amortization=estimated(amortization[None]),
        approximation=estimated(approximation[None]),
        inference=estimated((amortization + approximation)[None]),
        amortization_per_datum=amortization,
        approximation_per_datum=approximation,
    )
