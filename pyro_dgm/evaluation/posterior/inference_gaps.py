"""Where a pair's bound loses: in the family of its guide, or in the one guide that answers for all data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...inference.run.data import extreme_batch, take_rows
from ...inference.run.estimates import checked_run, estimating, placed
from ...inference.run.session import check_pair, require_positive
from ...inference.run.states import derive_seed, fork_rng
from ...inference.run.traces import latent_sites, plate_depth
from ..estimate import Estimate, estimated
from ..likelihood.importance import nll, weight_statistics, weighted
from ..likelihood.results import PerDatum
from .refinement import RefinedGuide, guide_draws, is_mean_field_normal, refine

WHOLE_FAMILY = "q* the best diagonal normal of each datum"
AFFINE_IMAGES = "q* the best affine image of the guide at each datum: amortization is at least that"


@dataclass(frozen=True)
class Gaps:
    r"""$\log p(x) - \mathrm{ELBO}$ in two: $[\mathcal L(q^*) - \mathcal L(q)] + [\log p(x) - \mathcal L(q^*)]$, nats.

    $q^*$ is the best image of the guide for each datum by itself, its dims moved and scaled. Of a guide whose dims are
    independent normals it ranges over all such laws, and the split is that of the family. Of any other, such as a flow,
    a full covariance or a site that hangs on another, the shape stays amortized: amortization is then a lower bound for
    that reason too, and approximation is what the *affine images* lose, an upper bound of what the family does.

    The ascent that finds it may stop early, which moves both the same way; with an importance estimate for
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

    def __str__(self) -> str:
        return (
            f"inference gap {self.inference} nats = amortization {self.amortization} + approximation "
            f"{self.approximation} ({self.kind}; {len(self.amortization_per_datum)} data)"
        )


def gaps(
    model: Callable,
    guide: Callable,
    *batch: Any,
    num: int = 500,
    num_steps: int = 300,
    lr: float = 0.05,
    truth: PerDatum | None = None,
    seed: int = 0,
    chunk: int = 20_000,
) -> Gaps:
    r"""$q_i^* = \arg\max \mathcal L_i$ over $\zeta' = c + e^s \odot (\zeta - c + \sigma \odot t)$, $\zeta \sim q(x_i)$.

    Each latent site of the guide is moved and scaled for every datum by itself, in free coordinates if its support is
    bounded; later sites see the moved draws of earlier ones. The noise of a dequantized pair is a latent site as any,
    and refined as well. `q` and `q*` are drawn with the same noise. See `Gaps` for what $q^*$ ranges over.

    The cost is `num_steps` runs of the pair and their gradients with 8 draws of each datum.

    Args:
        model: any Pyro program that keeps the contract, with continuous latents.
        guide: its guide, with reparameterized draws.
        batch: the data, observation first; every tensor has the data along its first dim.
        num: draws per datum for each of the two bounds.
        num_steps: steps of the ascent (Adam) for each datum.
        lr: its step size, in units of the guide's width at the datum; it falls to 0 as a cosine. A guide that is off by
            more than `lr * num_steps / 2` of its own widths takes more of either.
        truth: an estimate of $-\log p(x)$ of the same data, such as `ais(model, x)`; by importance sampling from
            $q^*$ unless given.
        seed: of the draws.
        chunk: how many (draw, datum) pairs are in memory at once.

    Raises:
        TypeError: for a VAE in place of its two programs.
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
    check_pair(model, guide, "gaps(vae.model, vae.guide, x)")
    require_positive(num=num, num_steps=num_steps, chunk=chunk)
    amortized = nll(model, guide, *batch, num=num, chunk=chunk, seed=seed).nelbo
    batch = placed(model, batch)
    with estimating(model, guide, seed=seed):
        depth = plate_depth(*checked_run(model, guide, batch))
        with fork_rng(
            *batch, seed=derive_seed(seed, 1)
        ):  # the noise of the bound is not that of the ascent
            kind = _kind_of(guide, batch, depth)
            best = refine(model, guide, batch, depth, num_steps=num_steps, lr=lr, chunk=chunk)
        nelbo, cost = _bounds(model, guide, best, batch, num, chunk, depth)
    exact = cost if truth is None else truth.per_datum
    if len(exact) != len(nelbo):
        raise ValueError(f"gaps: expected a truth of {len(nelbo)} data, got one of {len(exact)}.")
    return _split(amortized - nelbo, nelbo - exact, kind)


def _kind_of(guide: Callable, batch: tuple, depth: int) -> str:
    """What the images of the guide range over; refuses a guide without latents."""
    sites = latent_sites(guide_draws(guide, extreme_batch(batch), depth))
    if not sites:
        raise ValueError(
            "gaps: expected a guide with a latent site, got none. "
            "Fix: dgm.nll(model, guide, x), which is exact for a model without latents."
        )
    return WHOLE_FAMILY if is_mean_field_normal(sites) else AFFINE_IMAGES


def _bounds(
    model: Callable,
    guide: Callable,
    best: RefinedGuide,
    batch: tuple,
    num: int,
    chunk: int,
    depth: int,
) -> tuple[Tensor, Tensor]:
    """The −ELBO of the refined guide and its importance estimate of −log p(x), `(N,)` each, in the blocks of `nll`."""
    rows, nelbo, cost = max(1, chunk // num), [], []
    for start in range(0, len(batch[0]), rows):
        here = slice(start, start + rows)
        log_w, _ = weighted(model, best.at(here)(guide), take_rows(batch, here), num, chunk, depth)
        nelbo.append(-log_w.mean(0).cpu())
        cost.append(weight_statistics(log_w)["per_datum"])
    return torch.cat(nelbo), torch.cat(cost)


def _split(amortization: Tensor, approximation: Tensor, kind: str) -> Gaps:
    return Gaps(
        amortization=estimated(amortization[None]),
        approximation=estimated(approximation[None]),
        inference=estimated((amortization + approximation)[None]),
        amortization_per_datum=amortization,
        approximation_per_datum=approximation,
        kind=kind,
    )
