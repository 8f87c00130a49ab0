"""Where a pair's bound loses: in the family of its guide, or in the one guide that answers for all data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...contract import PyroProgram
from ...display.tabular import Tabular
from ...inference.process.numbers import check_number
from ...inference.process.states import derive_seed, fork_rng, require_gradients
from ...inference.run.sessions import Session, require_positive, session
from ...inference.run.traces import latent_sites
from ...inference.sites.measure_checks import require_density, require_one_measure
from ...inference.sites.measures import Measure
from ..estimate import Estimate, estimated
from ..likelihood.importance import nll_of, weight_statistics
from ..likelihood.results import PerDatum
from ..likelihood.scoring import Scoring
from .refinement import RefinedGuide, guide_draws, is_mean_field_normal, refine

WHOLE_FAMILY = "q* the best diagonal normal of each datum"
AFFINE_IMAGES = "q* the best affine image of the guide at each datum: amortization is at least that"


@dataclass(frozen=True)
class Gaps(Tabular):
    r"""$\log p(x) - \mathrm{ELBO}$ in two: $[\mathcal L(q^*) - \mathcal L(q)] + [\log p(x) - \mathcal L(q^*)]$, nats.

    $q^*$ is the best affine image of the guide for each datum by itself, each of its dims shifted and scaled. If the
    dims of the guide are independent normals, $q^*$ ranges over all such distributions, and the split is that of the
    family. For any other guide, such as a flow, a full covariance or a site that depends on another, the shape stays
    amortized: amortization is then a lower bound for that reason too, and approximation is what the *affine images*
    lose, an upper bound of what the family does.

    The ascent that finds it may stop early, which changes both in the same direction; with an importance estimate for
    $\log p(x)$, a lower bound in expectation, approximation is too small by what that lacks.

    Attributes:
        amortization: what one guide for all data loses, mean over the data and its standard error.
        approximation: what the family, or the affine images, lose.
        inference: the sum of both.
        amortization_per_datum: `(N,)`, float64.
        approximation_per_datum: `(N,)`, float64.
        kind: what $q^*$ ranges over.
    """

    amortization: Estimate
    approximation: Estimate
    inference: Estimate
    amortization_per_datum: Tensor
    approximation_per_datum: Tensor
    kind: str

    def columns(self) -> dict[str, Any]:
        """One row per datum: both parts and their sum, nats."""
        return {
            "amortization": self.amortization_per_datum,
            "approximation": self.approximation_per_datum,
            "inference": self.amortization_per_datum + self.approximation_per_datum,
        }

    def __str__(self) -> str:
        return (
            f"inference gap {self.inference} nats = "
            f"amortization {self.amortization} + approximation {self.approximation} "
            f"({self.kind}; {len(self.amortization_per_datum)} data)"
        )


def gaps(
    model: PyroProgram,
    guide: PyroProgram,
    *batch: Any,
    num: int = 500,
    num_steps: int = 300,
    lr: float = 0.05,
    truth: PerDatum | None = None,
    seed: int = 0,
    chunk: int = 20_000,
) -> Gaps:
    r"""$\log p(x) - \mathrm{ELBO}$ in two, by the best guide $q^*$ of each datum: amortization and approximation.

    $q_i^* = \arg\max \mathcal L_i$ over $\zeta' = c + e^s \odot (\zeta - c + \sigma \odot t)$, $\zeta \sim q(x_i)$:
    each latent site of the guide is shifted and scaled for every datum by itself, in free coordinates if its support is
    bounded; later sites see the new draws of earlier ones. The noise of a dequantized pair is a latent site like any
    other, and refined as well. `q` and `q*` are drawn with the same noise. See `Gaps` for what $q^*$ ranges over.

    The cost is `num_steps` runs of the pair and their gradients with 8 draws of each datum.

    Args:
        model: any Pyro program that keeps the contract, with continuous latents.
        guide: its guide, with reparameterized draws.
        batch: the data, observation first, with a row per datum in each; or one loader, which is read whole.
        num: draws per datum for each of the two bounds.
        num_steps: steps of the ascent (Adam) for each datum.
        lr: its step size, in units of the guide's width at the datum; it falls to 0 as a cosine. A guide that is off by
            more than `lr * num_steps / 2` of its own widths takes more of either.
        truth: an estimate of $-\log p(x)$ of the same data, such as `ais(model, x)`; by importance sampling from
            $q^*$ unless given.
        seed: of the draws.
        chunk: how many (draw, datum) pairs are in memory at once.

    Raises:
        TypeError: for a VAE in place of its two programs, or a truth that is no cost per datum.
        ValueError: for counts below 1, a truth of other data, a model without latents, or a latent that is discrete,
            global, a point mass, or drawn without gradient.

    References:
        Cremer, Li, Duvenaud 2018, *Inference suboptimality in variational autoencoders*, arXiv:1801.03558.

    Example:
        >>> import pyro.distributions as dist
        >>> from pyro_dgm import Conditional, Normal, StandardNormal, VAE
        >>> encoder = Conditional(dist.Normal, torch.nn.Linear(3, 4))
        >>> vae = VAE(StandardNormal(2), Normal(torch.nn.Linear(2, 3)), encoder)
        >>> gaps(vae.model, vae.guide, torch.zeros(5, 3), num=10, num_steps=2).amortization_per_datum.shape
        torch.Size([5])
    """
    require_positive(num_steps=num_steps)
    check_number("gaps", "lr", lr, least=0, fix="lr=0.05")
    with session(model, guide, *batch, num=num, chunk=chunk, seed=seed) as pair:
        _check_truth(truth, len(pair))
        return gaps_of(pair, num_steps, lr, truth)


def gaps_of(pair: Session, num_steps: int, lr: float, truth: PerDatum | None = None) -> Gaps:
    """`gaps` of an open session."""
    with fork_rng(*pair.batch):
        kind = _kind_of(pair)
    _check_measure(truth, pair.structure.measure)
    with fork_rng(*pair.batch, seed=derive_seed(pair.seed, 1)):  # the ascent's own noise
        best = _refine(pair, num_steps, lr)
    require_density("gaps", pair.structure.points)
    pair.reseed()
    amortized = nll_of(pair).nelbo
    pair.reseed()  # q and q* are drawn with the same noise
    nelbo, cost = _bounds(pair, best)
    exact = cost if truth is None else truth.per_datum
    return _split(amortized - nelbo, nelbo - exact, kind)


def _refine(pair: Session, num_steps: int, lr: float) -> RefinedGuide:
    """The guide with its best image for each datum."""
    require_gradients(pair.model, pair.guide)
    return refine(
        pair.model,
        pair.guide,
        pair.batch,
        pair.structure.depth,
        num_steps=num_steps,
        lr=lr,
        chunk=pair.chunk,
    )


def _check_truth(truth: Any, num_data: int) -> None:
    """Refuse what is no cost of the same data; `None` stands for an importance estimate."""
    if truth is None:
        return
    if not isinstance(truth, PerDatum):
        raise TypeError(
            "gaps: expected truth= as an estimate of -log p(x) of every datum, got "
            f"{type(truth).__name__}. Fix: truth=ais(model, x), or "
            "truth=dgm.results.GivenNLL(per_datum) for known numbers."
        )
    if len(truth.per_datum) != num_data:
        raise ValueError(
            f"gaps: expected a truth of {num_data} data, got one of {len(truth.per_datum)}. "
            "Fix: the same x for both, gaps(model, guide, x, truth=ais(model, x))."
        )


def _check_measure(truth: PerDatum | None, measure: Measure) -> None:
    """Refuse a truth that says to be of another measure than the pair's."""
    if truth is not None and truth.measure is not Measure.UNSTATED:
        require_one_measure("gaps", {"the pair": measure, "truth": truth.measure})


def _kind_of(pair: Session) -> str:
    """What the images of the guide range over; refuses a guide without latents."""
    sites = latent_sites(guide_draws(pair.guide, pair.few, pair.structure.depth))
    if not sites:
        raise ValueError(
            "gaps: expected a guide with a latent site, got none. "
            "Fix: dgm.nll(model, guide, x), which is exact for a model without latents."
        )
    return WHOLE_FAMILY if is_mean_field_normal(sites) else AFFINE_IMAGES


def _bounds(pair: Session, best: RefinedGuide) -> tuple[Tensor, Tensor]:
    """The −ELBO of the refined guide and its importance estimate of −log p(x), `(N,)` each."""
    nelbo, cost = [], []
    for log_w in _refined_weights(pair, best):
        nelbo.append(-log_w.mean(0).cpu())
        cost.append(weight_statistics(log_w)["per_datum"])
    return torch.cat(nelbo), torch.cat(cost)


def _refined_weights(pair: Session, best: RefinedGuide) -> Iterator[Tensor]:
    """Log weights `(K, rows)` of the refined guide in the blocks of `nll`."""
    start = 0
    for block in pair.seeded_blocks():
        end = start + len(block[0])
        refined = best.at(slice(start, end))(pair.guide)
        score = Scoring(pair.model, refined, pair.structure, pair.num, pair.chunk)
        yield score(block).log_w
        start = end


def _split(amortization: Tensor, approximation: Tensor, kind: str) -> Gaps:
    inference = amortization + approximation
    return Gaps(
        amortization=estimated(amortization[None]),
        approximation=estimated(approximation[None]),
        inference=estimated(inference[None]),
        amortization_per_datum=amortization,
        approximation_per_datum=approximation,
        kind=kind,
    )
