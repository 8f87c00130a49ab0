"""ELBO surgery: what the KL term of a fitted pair is made of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, log, nan
from typing import Any

import torch
from torch import Tensor

from ...contract import PyroProgram
from ...display.tabular import Tabular
from ...inference.run.limits import check_divergence, check_figures, unit_of_rounding
from ...inference.run.sessions import Session, require_positive, session
from ...inference.run.shared_blocks import SharedBlocks
from ...inference.sites.measure_checks import require_density
from ...inference.sites.measures import Measure
from ..estimate import Estimate, estimated
from .aggregate import Aggregate, joined, sum_over_others
from .pairwise import Points
from .scored_draws import ScoredDraws, draw_scored


@dataclass(frozen=True)
class Surgery(Tabular):
    r"""$\frac1N \sum_i KL(q(z \mid x_i) \| p) = I_q[x, z] + KL(q_{agg} \| p)$, in nats per datum.

    $q_{agg}(z) = \frac1N \sum_j q(z \mid x_j)$ over the N data. Every number is the mean of one term over the same
    draws, unbiased for these data; the identities hold term by term, to float precision. About the distribution
    that the data come from, the mutual information is biased downward and the marginal KL upward, less so the larger
    N. With `others` below N − 1, $q_{agg}$ is itself estimated: mutual information and total correlation are then
    biased upward, marginal and dimension-wise KL downward, and the standard errors don't hold the choice of the others.

    Attributes:
        reconstruction: $E \log p(x \mid z)$; with a dequantizer, of the bound on it.
        mutual_information: $I_q[x, z] = E[\log q(z \mid x) - \log q_{agg}(z)]$, at most `ceiling`, draw by draw.
        marginal_kl: $KL(q_{agg} \| p)$, what a perfect prior could still win. For a conditional prior it is
            $E[\log q_{agg}(z) - \log p(z \mid c)]$, which may fall below 0.
        kl: $\frac1N \sum_i KL(q(z \mid x_i) \| p)$, the sum of the two.
        elbo: reconstruction − kl, and the factor where there is one.
        total_correlation: $KL(q_{agg} \| \prod_d q_{agg}(z_d))$; `None` if q does not factorize over dims.
        dimension_kl: $\sum_d KL(q_{agg}(z_d) \| p(z_d))$, which with the total correlation makes up the marginal KL;
            `None` if q or p does not factorize.
        kl_of_dims: its summands `(D,)`, float64.
        reason: why some of the last three are `None`; else empty.
        num_data: number N of data.
        num: number of draws z.
        others: number of data that stand for the aggregate beside a draw's own.
        measure: what p(x | z) of the reconstruction is: a mass, a density, …
        factor: $E \log f$ of the model's `pyro.factor`s, which score no data; `None` without one.
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
    measure: Measure = Measure.UNSTATED
    factor: Estimate | None = None

    @property
    def ceiling(self) -> float:
        r"""$\log N$: no encoder tells N data further apart."""
        return log(self.num_data)

    def columns(self) -> dict[str, list[Any]]:
        """One row per term, in nats per datum; NaN for a term that has no closed form here."""
        terms = {
            "elbo": self.elbo,
            "reconstruction": self.reconstruction,
            "kl": self.kl,
            "mutual_information": self.mutual_information,
            "marginal_kl": self.marginal_kl,
            "total_correlation": self.total_correlation,
            "dimension_kl": self.dimension_kl,
        }
        if self.factor:
            terms["factor"] = self.factor
        values = []
        stderrs = []
        for term in terms.values():
            values.append(term.value if term else nan)
            stderrs.append(term.stderr if term else nan)
        return {"term": list(terms), "value": values, "stderr": stderrs}

    def __str__(self) -> str:
        sizes = f"{self.num_data} data, {self.num} draws × {self.others} others"
        lines = [f"ELBO surgery, p(x | z) a {self.measure}, nats per datum ({sizes})"]
        for name, text in self._rows().items():
            lines.append(f"  {name:<20}{text}")
        return "\n".join(lines)

    def _rows(self) -> dict[str, str]:
        upward = downward = ""
        if self.others < self.num_data - 1:
            upward, downward = " (biased upward)", " (biased downward)"
        ceiling = f"at most log N = {self.ceiling:.3f}"
        of_data = {"ELBO": str(self.elbo), "reconstruction": str(self.reconstruction)}
        if self.factor:
            of_data["factor"] = f"{self.factor}, of pyro.factor in the model"
        return {
            **of_data,
            "KL": f"{self.kl} = mutual information + marginal KL",
            "mutual information": f"{self.mutual_information}, {ceiling}{upward}",
            "marginal KL": f"{self.marginal_kl}, what a perfect prior could still win{downward}",
            "total correlation": self._text_or_reason(self.total_correlation, upward),
            "dimension-wise KL": self._text_or_reason(self.dimension_kl, downward),
        }

    def _text_or_reason(self, estimate: Estimate | None, bias: str) -> str:
        return f"{estimate}{bias}" if estimate else self.reason


def surgery(
    model: PyroProgram,
    guide: PyroProgram,
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
    pair for flows that only sample fast; a warning says so where it takes more than ten minutes. Several ranks that ask
    the same share the pairs out by their draws. Neither weights nor random state outside change.

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
        ValueError: for counts below 1 (`others` below 2), bad data, a guide without latent sites or with a point mass
            at one, a site outside the data plate, or a KL term that is negative beyond its error.
        NotImplementedError: if the guide can't score given points, as a planar flow.

    References:
        Hoffman, Johnson 2016, *ELBO surgery: yet another way to carve up the variational evidence lower bound*;
        Chen et al. 2018, *Isolating sources of disentanglement in VAEs*, arXiv:1802.04942.
    """
    require_positive(num=num, chunk=chunk)
    if others is not None and others < 2:
        raise ValueError(
            "others: expected at least 2, since a draw's own datum is left out, got "
            f"{others}. Fix: others=1000."
        )
    with session(model, guide, *batch, seed=seed) as pair:
        return surgery_of(pair, num, others, chunk)


def surgery_of(pair: Session, num: int, others: int | None, chunk: int) -> Surgery:
    """`surgery` of an open session."""
    _require_codes(pair)
    num_data = len(pair)
    rows = _random_rows(num_data, num, pair.device)
    other_rows = _random_rows(num_data, others or num_data, pair.device)
    num_draws = ceil(num / num_data)
    draws = draw_scored(pair, pair.rows(rows), num_draws)
    check_figures("surgery", -(draws.reconstruction + draws.log_p - draws.log_q).mean(0))
    points = Points(draws.flat_values(), rows.repeat(num_draws))
    shares = SharedBlocks(pair, "surgery", num, others, chunk)
    own = points[shares.part(len(points))]
    with shares.together():
        aggregate = sum_over_others(
            pair.guide,
            pair.batch,
            own,
            other_rows,
            pair.structure.depth,
            chunk,
            dims=draws.q_dims is not None,
        )
    if shares.world > 1:
        aggregate = joined(shares.gather([aggregate.to("cpu")])).to(pair.device)
    num_others = min(len(other_rows), num_data - 1)
    log_aggregate = _log_aggregate(aggregate, draws.log_q, num_data)
    _check_divergences(pair, draws, log_aggregate, is_whole=num_others == num_data - 1)
    found = _surgery(draws, aggregate, log_aggregate, num_data, num_others)
    return replace(found, measure=pair.structure.measure)


def _require_codes(pair: Session) -> None:
    """Refuse a pair without latent sites, or with no other than the noise of discrete sites."""
    structure = pair.structure
    if not structure.codes:
        raise ValueError(
            "surgery: expected a guide with latent sites, got "
            f"{sorted(structure.latent)}: without z there is no KL to take apart. "
            "Fix: nll(model, guide, x) scores such a model."
        )
    require_density("surgery", structure.points)
    if structure.measure is Measure.IMPROPER:
        raise ValueError(
            "surgery: expected a prior that integrates to one, got an ImproperUniform: a KL to it is known up "
            "to a constant alone. Fix: a wide Normal in its place."
        )


def _check_divergences(
    pair: Session, draws: ScoredDraws, log_aggregate: Tensor, *, is_whole: bool
) -> None:
    """Refuse terms that are negative beyond their error; a conditional prior's marginal KL, or a biased one, may be."""
    terms = {"KL": draws.log_q - draws.log_p, "mutual information": draws.log_q - log_aggregate}
    if is_whole and len(pair.batch) == 1:
        terms["marginal KL"] = log_aggregate - draws.log_p
    rounding = unit_of_rounding(draws.values.values()) * (1 + draws.log_q.abs().amax(0))
    for name, term in terms.items():
        check_divergence(f"surgery, {name}", term.mean(0), len(term), rounding)


def _random_rows(num_data: int, num: int, device: torch.device) -> Tensor:
    """Indices of `num` of the data, or of all."""
    if num >= num_data:
        return torch.arange(num_data, device=device)
    return torch.randperm(num_data, device=device)[:num]


def _surgery(
    draws: ScoredDraws,
    aggregate: Aggregate,
    log_aggregate: Tensor,
    num_data: int,
    num_others: int,
) -> Surgery:
    """Every number as the mean of one term of all draws."""
    kl = draws.log_q - draws.log_p
    elbo = draws.reconstruction - kl
    return Surgery(
        reconstruction=estimated(draws.reconstruction),
        mutual_information=estimated(draws.log_q - log_aggregate),
        marginal_kl=estimated(log_aggregate - draws.log_p),
        kl=estimated(kl),
        elbo=estimated(elbo if draws.factor is None else elbo + draws.factor),
        **_of_dims(draws, aggregate, log_aggregate, num_data),
        reason=draws.reason,
        num_data=num_data,
        num=draws.log_q.numel(),
        others=num_others,
        factor=None if draws.factor is None else estimated(draws.factor),
    )


def _of_dims(
    draws: ScoredDraws, aggregate: Aggregate, log_aggregate: Tensor, num_data: int
) -> dict[str, Any]:
    """Total correlation and the KL of the dims, as far as distributions factorize."""
    numbers: dict[str, Any] = dict.fromkeys(["total_correlation", "dimension_kl", "kl_of_dims"])
    if draws.q_dims is None:
        return numbers
    log_aggregate_dims = _log_aggregate(aggregate, draws.q_dims, num_data)
    numbers["total_correlation"] = estimated(log_aggregate - log_aggregate_dims.sum(-1))
    if draws.p_dims is not None:
        kl_of_dims = log_aggregate_dims - draws.p_dims
        numbers["dimension_kl"] = estimated(kl_of_dims.sum(-1))
        numbers["kl_of_dims"] = kl_of_dims.mean((0, 1)).cpu()
    return numbers


def _log_aggregate(aggregate: Aggregate, log_q: Tensor, num_data: int) -> Tensor:
    r"""$\log q_{agg}$ at the draws, from their own log densities `(K, N)` or, of each dim, `(K, N, D)`."""
    return aggregate.log_density(log_q.flatten(0, 1), num_data).view_as(log_q)
