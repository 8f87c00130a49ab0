r"""Conditioning for free: missing dims, and the likelihood of some dims given others, of any fitted pair."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...contract import PyroProgram
from ...display.tabular import Tabular
from ...inference.process.states import derive_seed
from ...inference.run.sessions import read_data, require_positive
from ...inference.sites.measures import Bound, Measure
from ..likelihood.importance import summary_of
from ..likelihood.results import NLL, PerDatum
from .incomplete import IncompleteData, incomplete_session


@dataclass(frozen=True)
class Imputation(Tabular):
    r"""Draws $x_a \sim p(x_a \mid x_b)$ of the missing dims a, given the observed dims b of each datum.

    Attributes:
        draws: `(num, N, *event)`, the observed dims as they are.
        mean: $E[x_a \mid x_b]$ `(N, *event)`, averaged over all weighted draws of z; the observed dims as they are.
        nll: $-\log p(x_b)$ with the weights' ESS and k̂, which say how far draws and means can be trusted.
    """

    draws: Tensor
    mean: Tensor
    nll: NLL

    def columns(self) -> dict[str, Tensor]:
        """One row per datum: what says how far its draws can be trusted."""
        names = ("per_datum", "monte_carlo", "ess", "khat")
        return {name: getattr(self.nll, name) for name in names}

    def __str__(self) -> str:
        return f"{len(self.draws)} imputations of {len(self.mean)} data; observed dims: {self.nll}"


@dataclass(frozen=True)
class ConditionalNLL(PerDatum, Tabular):
    r"""$-\log p(x_a \mid x_b) = -\log p(x_a, x_b) + \log p(x_b)$ in nats per datum.

    Attributes:
        per_datum: the difference `(N,)`, float64.
        monte_carlo: its standard error from the draws `(N,)`.
        joint: $-\log p(x_a, x_b)$.
        given: $-\log p(x_b)$.
        kind: exact, or what sort of number.
        measure: what the conditional p is: a mass, a density, …
    """

    per_datum: Tensor
    monte_carlo: Tensor
    joint: NLL
    given: NLL
    kind: str = "a difference of two upper bounds in expectation, itself no bound"
    measure: Measure = Measure.UNSTATED

    def columns(self) -> dict[str, Tensor]:
        """One row per datum, in nats."""
        return {
            "per_datum": self.per_datum,
            "monte_carlo": self.monte_carlo,
            "joint": self.joint.per_datum,
            "given": self.given.per_datum,
        }

    def __str__(self) -> str:
        return f"conditional NLL {self._told})"


def impute(
    model: PyroProgram,
    guide: PyroProgram,
    *batch: Any,
    observed: Tensor,
    num: int = 100,
    num_weights: int = 1000,
    fills: int = 64,
    sweeps: int = 10,
    chunk: int = 20_000,
    seed: int = 0,
) -> Imputation:
    r"""$x_a \sim p(x_a \mid x_b) = \int p(x_a \mid z)\, p(z \mid x_b)\, dz$: draws of the dims that are missing.

    z is resampled from the weighted draws of `marginal_nll`, so that it is right as `num_weights` grows, whatever
    the guide; ESS and k̂ of the result say whether it has grown enough.

    Args:
        model: a Pyro program that keeps the contract, with a likelihood as `Marginal` takes.
        guide: its guide.
        batch: the data, observation first; what it holds at missing dims, such as NaN, is never read.
        observed: which dims are there, bool `(N, *event)` in the order of the data, or `(*event)` for all alike.
        num: draws per datum.
        num_weights: number K of importance draws of z that they are resampled from.
        fills: see `marginal_nll`.
        sweeps: see `marginal_nll`.
        chunk: how many (draw, datum) pairs are in memory at once.
        seed: of the draws.

    Raises:
        ValueError: as `marginal_nll`.
        NotImplementedError: if the observation has no mean.

    References:
        Rezende, Mohamed, Wierstra 2014, arXiv:1401.4082 (appendix F); Mattei, Frellsen 2019, *MIWAE*, arXiv:1812.02633.

    Example:
        >>> from pyro_dgm import Bernoulli, Conditional, StandardNormal, VAE, mlp
        >>> import pyro.distributions as dist
        >>> vae = VAE(StandardNormal(2), Bernoulli(mlp(2, 9)), Conditional(dist.Normal, mlp(9, 4)))
        >>> x, observed = torch.ones(5, 9), torch.arange(9) < 6
        >>> impute(vae.model, vae.guide, x, observed=observed, num=3, num_weights=50).draws.shape
        torch.Size([3, 5, 9])
    """
    require_positive(num=num, num_weights=num_weights)
    with incomplete_session(
        model,
        guide,
        *batch,
        observed=observed,
        num=num_weights,
        fills=fills,
        sweeps=sweeps,
        chunk=chunk,
        seed=seed,
    ) as data:
        return impute_of(data, num)


def impute_of(data: IncompleteData, num: int) -> Imputation:
    """`impute` of an open session of incomplete data."""
    x = data.pair.batch[0]
    draws = x.expand(num, *x.shape).clone()
    mean = x.to(torch.promote_types(x.dtype, torch.get_default_dtype()))
    statistics = []
    for index, block in data.blocks():
        latents = data.mixture.draw(block)
        draws[:, index] = data.mixture.impute(latents, block, num)
        mean[index] = data.mixture.impute_mean(latents, block).to(mean.dtype)
        statistics.append(summary_of(latents.log_weight, latents.kl))
    return Imputation(draws, mean, data.nll(statistics))


def marginal_nll(
    model: PyroProgram,
    guide: PyroProgram,
    *batch: Any,
    observed: Tensor,
    num: int = 1000,
    fills: int = 64,
    sweeps: int = 10,
    chunk: int = 20_000,
    seed: int = 0,
) -> NLL:
    r"""$-\log p(x_b) = -\log \int p(z) \prod_{d \in b} p(x_d \mid z)\, dz$ of the observed dims b, nats per datum.

    Importance sampling from a mixture of the prior and of the guide at data filled up in many ways, see `Mixture`:
    unbiased weights for any guide, an upper bound in expectation. A datum that misses nothing is scored by `nll`. The
    guide scores all K draws at each fill, so that its flows must score given points. Where k̂ says that the draws do
    not reach, as for sharp likelihoods of few dims, `ais(Marginal(model), x, observed)` walks there.

    Args:
        model: a Pyro program that keeps the contract, with a likelihood as `Marginal` takes.
        guide: its guide.
        batch: the data, observation first; what it holds at missing dims, such as NaN, is never read.
        observed: which dims are there, bool `(N, *event)` in the order of the data, or `(*event)` for all alike.
        num: number K of importance draws, rounded up to a multiple of fills + 1.
        fills: in how many ways J each datum is filled up; the more, the closer the mixture comes to $p(z \mid x_b)$.
        sweeps: turns of the walk that fills it up.
        chunk: how many (draw, datum) pairs are in memory at once.
        seed: of the draws.

    Raises:
        ValueError: for counts below 1, a mask of another shape or dtype, values that are not finite where observed, a
            distribution of x whose dims depend on each other, a site outside the data plate, or an unobserved x.
        NotImplementedError: for a guide with a flow that goes one way only.

    Example:
        >>> from pyro_dgm import Conditional, DensityModel, EmptyGuide
        >>> import pyro.distributions as dist
        >>> model = DensityModel(Conditional(dist.Normal, torch.nn.Linear(2, 6)))
        >>> x, c = torch.tensor([[0.0, torch.nan, 1.0]]), torch.zeros(1, 2)
        >>> marginal_nll(model, EmptyGuide(), x, c, observed=x.isfinite()).kind.value
        'exact'
    """
    with incomplete_session(
        model,
        guide,
        *batch,
        observed=observed,
        num=num,
        fills=fills,
        sweeps=sweeps,
        chunk=chunk,
        seed=seed,
    ) as data:
        statistics = []
        for _, block in data.blocks():
            latents = data.mixture.draw(block)
            statistics.append(summary_of(latents.log_weight, latents.kl))
        return data.nll(statistics)


def conditional_nll(
    model: PyroProgram,
    guide: PyroProgram,
    *batch: Any,
    of: Tensor,
    given: Tensor,
    seed: int = 0,
    **options: Any,
) -> ConditionalNLL:
    r"""$-\log p(x_a \mid x_b)$ of some dims a of each datum, given others b; the rest is integrated out.

    The difference of two calls of `marginal_nll` under seeds of their own, and consistent as their draws grow.

    Args:
        model: a Pyro program that keeps the contract, with a likelihood as `Marginal` takes.
        guide: its guide.
        batch: the data, observation first.
        of: the dims a, bool `(N, *event)` or `(*event)`; those among b as well are certain, and cost nothing.
        given: the dims b, alike.
        seed: of the draws.
        options: `num`, `fills`, `sweeps` and `chunk` of `marginal_nll`.

    Raises:
        ValueError: as `marginal_nll`.

    Example:
        >>> from pyro_dgm import Bernoulli, Conditional, StandardNormal, VAE, mlp
        >>> import pyro.distributions as dist
        >>> vae = VAE(StandardNormal(2), Bernoulli(mlp(2, 9)), Conditional(dist.Normal, mlp(9, 4)))
        >>> left = torch.arange(9) < 3
        >>> conditional_nll(vae.model, vae.guide, torch.ones(5, 9), of=~left, given=left, num=50).per_datum.shape
        torch.Size([5])
    """
    data = read_data(model, guide, *batch, seed=seed)
    joint = marginal_nll(model, guide, *data, observed=of | given, seed=seed, **options)
    seed_of_given = derive_seed(seed, 1)
    of_given = marginal_nll(model, guide, *data, observed=given, seed=seed_of_given, **options)
    variance = joint.monte_carlo.square() + of_given.monte_carlo.square()
    is_exact = joint.kind == of_given.kind == Bound.EXACT
    return ConditionalNLL(
        per_datum=joint.per_datum - of_given.per_datum,
        monte_carlo=variance.sqrt(),
        joint=joint,
        given=of_given,
        kind=Bound.EXACT if is_exact else ConditionalNLL.kind,
        measure=joint.measure,
    )
