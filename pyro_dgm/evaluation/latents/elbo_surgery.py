"""ELBO surgery: what the KL term of a fitted pair is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, log
from typing import Any

import torch
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ...contract import DATA
from ...inference.run.data import split_rows, take_rows
from ...inference.run.estimates import checked_run, estimating, placed
from ...inference.run.particles import Particles, draw
from ...inference.run.session import check_pair, require_positive
from ...inference.run.simulation import draws_of, names_of_latents
from ...inference.run.supports import independent_dims
from ...inference.run.traces import Site, latent_sites, plate_depth, plate_names
from ..estimate import Estimate, estimated
from .aggregate import Aggregate, sum_over_others
from .pairwise import Points

DRAWS = 20_000  # (draw, datum) pairs that the model sees at once


@dataclass(frozen=True)
class Surgery:
    r"""$\frac1N \sum_i KL(q(z \mid x_i) \| p) = I_q[x, z] + KL(q_{agg} \| p)$, in nats per datum.

    $q_{agg}(z) = \frac1N \sum_j q(z \mid x_j)$ over the N data. Every number is the mean of one term over the same
    draws, unbiased for these data; the identities hold term by term, to float precision. About the data's own law the
    mutual information is biased downward and the marginal KL upward, less so the larger N. With `others` below N − 1,
    $q_{agg}$ is itself estimated: mutual information and total correlation are then biased upward, marginal and
    dimension-wise KL downward, and the standard errors don't hold the choice of the others.

    Attributes:
        reconstruction: $E \log p(x \mid z)$; with a dequantizer, of the bound on it.
        mutual_information: $I_q[x, z] = E[\log q(z \mid x) - \log q_{agg}(z)]$, at most `ceiling`, draw by draw.
        marginal_kl: $KL(q_{agg} \| p)$, what a perfect prior could still win. For a conditional prior it is
            $E[\log q_{agg}(z) - \log p(z \mid c)]$, which may fall below 0.
        kl: $\frac1N \sum_i KL(q(z \mid x_i) \| p)$, the sum of the two.
        elbo: reconstruction − kl.
        total_correlation: $KL(q_{agg} \| \prod_d q_{agg}(z_d))$; `None` if q does not factorize over dims.
        dimension_kl: $\sum_d KL(q_{agg}(z_d) \| p(z_d))$, which with the total correlation makes up the marginal KL;
            `None` if q or p does not factorize.
        kl_of_dims: its summands `(D,)`, float64.
        reason: why some of the last three are `None`; else empty.
        num_data: number N of data.
        num: number of draws z.
        others: number of data that stand for the aggregate beside a draw's own.
    """

    reconstruction: Estimate
    mutual_information: Estimate
    marginal_kl: Estimate
    kl: Estimate
    elbo: Estimate
    total_correlation: Estimate | None
    dimension_kl: Estimate | None
    kl_of_dims: Tensor | None
    reason: str
    num_data: int
    num: int
    others: int

    @property
    def ceiling(self) -> float:
        r"""$\log N$: no encoder tells N data further apart."""
        return log(self.num_data)

    def __str__(self) -> str:
        bias = (
            ["", " (biased upward)", " (biased downward)"]
            if self.others < self.num_data - 1
            else [""] * 3
        )
        rows = [
            ("ELBO", self.elbo, ""),
            ("reconstruction", self.reconstruction, ""),
            ("KL", self.kl, " = mutual information + marginal KL"),
            (
                "mutual information",
                self.mutual_information,
                f", at most log N = {self.ceiling:.3f}{bias[1]}",
            ),
            ("marginal KL", self.marginal_kl, f", what a perfect prior could still win{bias[2]}"),
            (
                "total correlation",
                self.total_correlation or self.reason,
                bias[1] if self.total_correlation else "",
            ),
            (
                "dimension-wise KL",
                self.dimension_kl or self.reason,
                bias[2] if self.dimension_kl else "",
            ),
        ]
        title = f"ELBO surgery, nats per datum ({self.num_data} data, {self.num} draws × {self.others} others)"
        return "\n".join([title, *(f"  {name:<20}{number}{note}" for name, number, note in rows)])


def surgery(
    model: Callable,
    guide: Callable,
    *batch: Any,
    num: int = 10_000,
    others: int | None = None,
    chunk: int = 200_000,
    seed: int = 0,
) -> Surgery:
    r"""$KL(q(z \mid x) \| p(z))$ in two: what z tells of x, and how far the aggregate is from the prior.

    The joint of all latent sites is z, except the noise of discrete sites, which counts as part of the data. Context
    travels with its datum. The cost is `num` × `others` densities of the guide, linear in both: a few nanoseconds a
    pair and dim for diagonal normals, a run of the guide on every pair for guides of several sites, D network calls a
    pair for flows that only sample fast; a warning says so where it takes more than ten minutes. Neither weights nor
    random state outside change.

    Args:
        model: any Pyro program that keeps the contract.
        guide: its guide, which must be able to score given points.
        batch: the data that the aggregate is made of, observation first.
        num: number of draws of z at least: one at each of `num` data chosen at random, or as many at every datum as it
            takes.
        others: number of data, chosen at random, whose posteriors stand for the aggregate; all unless given.
        chunk: how many pairs $(z_i, x_j)$ are in memory at once, each with D numbers unless the guide is a diagonal
            normal.
        seed: of the draws and choices.

    Raises:
        ValueError: for counts below 1 (`others` below 2), bad data, a guide without latent sites, or a site outside
            the data plate.
        NotImplementedError: if the guide can't score given points, as a planar flow.

    References:
        Hoffman, Johnson 2016, *ELBO surgery: yet another way to carve up the variational evidence lower bound*;
        Chen et al. 2018, *Isolating sources of disentanglement in VAEs*, arXiv:1802.04942.
    """
    check_pair(model, guide)
    require_positive(num=num, chunk=chunk)
    if others is not None and others < 2:
        raise ValueError(
            f"others: expected at least 2, since a draw's own datum is left out, got {others}."
        )
    batch = placed(model, batch)
    num_data = len(batch[0])
    with estimating(model, guide, seed=seed):
        traces = checked_run(model, guide, batch)
        sites, depth = _sites(*traces), plate_depth(*traces)
        reason = {
            role: _reason(role, sites, trace) for role, trace in zip("qp", traces, strict=True)
        }
        rows, rest = (
            _chosen(num_data, count, batch[0].device) for count in (num, others or num_data)
        )
        draws = ceil(num / num_data)
        drawn, values = _drawn(model, guide, take_rows(batch, rows), sites, draws, depth, reason)
        points = Points({name: z.flatten(0, 1) for name, z in values.items()}, rows.repeat(draws))
        sums = sum_over_others(guide, batch, points, rest, depth, chunk, dims=not reason["q"])
    return Surgery(
        **_of_joint(drawn, sums, num_data),
        **_of_dims(drawn, sums, num_data, reason),
        reason=reason["q"] or reason["p"],
        num_data=num_data,
        num=len(points),
        others=min(len(rest), num_data - 1),
    )


def _chosen(num_data: int, num: int, device: torch.device) -> Tensor:
    """Indices of `num` of the data, or of all."""
    if num >= num_data:
        return torch.arange(num_data, device=device)
    return torch.randperm(num_data, device=device)[:num]


def _sites(guide_trace: Trace, model_trace: Trace) -> list[str]:
    """The latent sites that make up z, of which there must be one."""
    sites = names_of_latents(guide_trace, model_trace)
    if not sites:
        raise ValueError(
            f"surgery: expected a guide with latent sites, got {sorted(latent_sites(guide_trace))}: without z there is "
            "no KL to take apart. Fix: nll(model, guide, x) scores such a model."
        )
    return sites


def _reason(role: str, sites: list[str], trace: Trace) -> str:
    """Why the dims of z have no laws of their own in closed form; empty if they have."""
    if len(sites) > 1:
        return f"none: dims are of one latent site, got {sites}"
    site = latent_sites(trace)[sites[0]]
    if plate_names(site) != [DATA]:
        return f"none: site '{sites[0]}' is inside further plates, {plate_names(site)}"
    if independent_dims(site["fn"]) is None:
        return f"none: {role} of site '{sites[0]}' does not factorize over dims, {type(site['fn']).__name__}"
    return ""


def _drawn(
    model: Callable,
    guide: Callable,
    batch: tuple,
    sites: list[str],
    num: int,
    depth: int,
    reason: dict[str, str],
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The log densities that the terms are made of `(K, N)`, and the draws of each site `(K, N, …)`."""
    scores, values = [], []
    for block in split_rows(batch, max(1, DRAWS // num)):
        particles = draw(model, guide, *block, num=num, depth=depth)
        drawn = latent_sites(particles.guide_trace)
        scores.append(_scored(particles, sites, reason))
        values.append({name: draws_of(drawn[name]) for name in sites})
    return _joined(scores), _joined(values)


def _joined(blocks: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([block[name] for block in blocks], 1) for name in blocks[0]}


def _scored(particles: Particles, sites: list[str], reason: dict[str, str]) -> dict[str, Tensor]:
    r"""$\log q(z \mid x)$ and $\log p(z)$, whole and by dim, and the reconstruction: all else of the log weight."""
    log_q, log_p = (
        torch.stack([of[n].double() for n in sites]).sum(0)
        for of in (particles.log_q, particles.log_p)
    )
    traces = {"q": particles.guide_trace, "p": particles.model_trace}
    dims = {
        f"{role}_dims": _dims(latent_sites(traces[role])[sites[0]])
        for role in traces
        if not reason[role]
    }
    return {
        "log_q": log_q,
        "log_p": log_p,
        "reconstruction": particles.log_weight + log_q - log_p,
        **dims,
    }


def _dims(site: Site) -> Tensor:
    """Log density of each dim `(K, N, D)`."""
    distribution = independent_dims(site["fn"])
    return distribution.log_prob(site["value"]).flatten(-len(site["fn"].event_shape)).double()


def _of_joint(drawn: dict[str, Tensor], sums: Aggregate, num_data: int) -> dict[str, Any]:
    """The numbers of z as a whole, each the mean of one term of every draw."""
    log_q, log_p, reconstruction = (drawn[name] for name in ("log_q", "log_p", "reconstruction"))
    log_aggregate = sums.log_density(log_q.flatten(), num_data).view_as(log_q)
    terms = {
        "reconstruction": reconstruction,
        "mutual_information": log_q - log_aggregate,
        "marginal_kl": log_aggregate - log_p,
        "kl": log_q - log_p,
        "elbo": reconstruction - (log_q - log_p),
    }
    return {name: estimated(term) for name, term in terms.items()}


def _of_dims(
    drawn: dict[str, Tensor], sums: Aggregate, num_data: int, reason: dict[str, str]
) -> dict[str, Any]:
    """Total correlation and the KL of the dims, as far as laws factorize."""
    found: dict[str, Any] = dict.fromkeys(["total_correlation", "dimension_kl", "kl_of_dims"])
    if reason["q"]:
        return found
    log_q, q_dims = drawn["log_q"], drawn["q_dims"]
    joint = sums.log_density(log_q.flatten(), num_data).view_as(log_q)
    each = sums.log_density(q_dims.flatten(0, 1), num_data).view_as(q_dims)
    found["total_correlation"] = estimated(joint - each.sum(-1))
    if not reason["p"]:
        p_dims = drawn["p_dims"]
        found["dimension_kl"] = estimated((each - p_dims).sum(-1))
        found["kl_of_dims"] = (each - p_dims).mean((0, 1)).cpu()
    return found
