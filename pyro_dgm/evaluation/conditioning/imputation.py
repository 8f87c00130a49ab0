r"""Conditioning for free: missing dims, and the likelihood of some dims given others, of any fitted pair."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil
from typing import Any

import torch
from torch import Tensor

from ...inference.run.data import take_rows
from ...inference.run.estimates import check_batch, estimating, placed
from ...inference.run.session import check_pair, require_positive
from ...inference.run.states import derive_seed
from ...inference.run.traces import plate_depth, run_pair
from ..likelihood.importance import nll, summary_of
from ..likelihood.results import NLL, PerDatum
from .filling import FillingMixture, site_of
from .marginal import Marginal, Unmasked


@dataclass(frozen=True)
class Imputation:
    r"""Draws $x_a \sim p(x_a \mid x_b)$ of the missing dims a, given the observed dims b of each datum.

    Attributes:
        draws: `(num, N, *event)`, the observed dims as they are.
        mean: $E[x_a \mid x_b]$ `(N, *event)`, averaged over all weighted draws of z; the observed dims as they are.
        nll: $-\log p(x_b)$ with the weights' ESS and k̂, which say how far draws and means can be trusted.
    """

    draws: Tensor
    mean: Tensor
    nll: NLL

    def __str__(self) -> str:
        return f"{len(self.draws)} imputations of {len(self.mean)} data; observed dims: {self.nll}"


@dataclass(frozen=True)
class ConditionalNLL(PerDatum):
    r"""$-\log p(x_a \mid x_b) = -\log p(x_a, x_b) + \log p(x_b)$ in nats per datum.

    Attributes:
        per_datum: the difference `(N,)`, float64.
        monte_carlo: its standard error from the draws `(N,)`.
        joint: $-\log p(x_a, x_b)$.
        given: $-\log p(x_b)$.
        kind: exact, or what sort of number.
    """

    per_datum: Tensor
    monte_carlo: Tensor
    joint: NLL
    given: NLL
    kind: str = "a difference of two upper bounds in expectation, itself no bound"

    def __str__(self) -> str:
        return f"conditional NLL {self.mean:.3f} ± {self.stderr:.3f} nats per datum ({self.kind})"


def impute(
    model: Callable,
    guide: Callable,
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

    z is resampled from the weighted draws of `marginal_nll`, so that the law is right as `num_weights` grows, whatever
    the guide; ESS and k̂ of the result say whether it has grown enough.

    Args:
        model: a Pyro program that keeps the contract, with a likelihood as `Marginal` takes.
        guide: its guide.
        batch: the data, observation first; what it holds at missing dims, such as NaN, is never read.
        observed: which dims are there, bool `(N, *event)`, or `(*event)` for all data alike.
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
    require_positive(num=num, num_weights=num_weights, fills=fills, sweeps=sweeps, chunk=chunk)
    task = _task(model, guide, batch, observed, (num_weights, fills, sweeps))
    x = task.batch[0]
    mean = x.to(torch.promote_types(x.dtype, torch.get_default_dtype()))
    draws, parts = x.expand(num, *x.shape).clone(), []
    with estimating(model, guide, seed=seed):
        for rows, block in task.blocks(chunk):
            weighed = task.mixture.weighed(block)
            drawn, average = task.mixture.imputed(weighed, block, num)
            draws[:, rows], mean[rows] = drawn, average.to(mean.dtype)
            parts.append(summary_of(weighed.log_weight, weighed.kl))
    return Imputation(draws, mean, task.result(parts, num_weights, chunk, seed))


def marginal_nll(
    model: Callable,
    guide: Callable,
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
        observed: which dims are there, bool `(N, *event)`, or `(*event)` for all data alike.
        num: number K of importance draws, rounded up to a multiple of fills + 1.
        fills: in how many ways J each datum is filled up; the more, the closer the mixture comes to $p(z \mid x_b)$.
        sweeps: turns of the walk that fills it up.
        chunk: how many (draw, datum) pairs are in memory at once.
        seed: of the draws.

    Raises:
        ValueError: for counts below 1, a mask of another shape or dtype, values that are not finite where observed, a
            law of x whose dims depend on each other, a site outside the data plate, or an x that no site observes.
        NotImplementedError: for a guide with a flow that goes one way only.

    Example:
        >>> from pyro_dgm import Conditional, DensityModel, EmptyGuide
        >>> import pyro.distributions as dist
        >>> model = DensityModel(Conditional(dist.Normal, torch.nn.Linear(2, 6)))
        >>> x, c = torch.tensor([[0.0, torch.nan, 1.0]]), torch.zeros(1, 2)
        >>> marginal_nll(model, EmptyGuide(), x, c, observed=x.isfinite()).kind
        'exact'
    """
    require_positive(num=num, fills=fills, sweeps=sweeps, chunk=chunk)
    task, parts = _task(model, guide, batch, observed, (num, fills, sweeps)), []
    with estimating(model, guide, seed=seed):
        for _, block in task.blocks(chunk):
            weighed = task.mixture.weighed(block)
            parts.append(summary_of(weighed.log_weight, weighed.kl))
    return task.result(parts, num, chunk, seed)


def conditional_nll(
    model: Callable,
    guide: Callable,
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
    joint = marginal_nll(model, guide, *batch, observed=of | given, seed=seed, **options)
    of_given = marginal_nll(
        model, guide, *batch, observed=given, seed=derive_seed(seed, 1), **options
    )
    return ConditionalNLL(
        per_datum=joint.per_datum - of_given.per_datum,
        monte_carlo=(joint.monte_carlo.square() + of_given.monte_carlo.square()).sqrt(),
        joint=joint,
        given=of_given,
        kind="exact" if joint.kind == of_given.kind == "exact" else ConditionalNLL.kind,
    )


@dataclass(frozen=True)
class _Task:
    """What is to be estimated: the data, which dims are observed, and which data miss some."""

    mixture: FillingMixture
    batch: tuple
    observed: Tensor
    missing: Tensor  # indices
    kind: str

    def blocks(self, chunk: int) -> Iterator[tuple[Tensor, tuple]]:
        """Indices of data that miss something, and their arguments."""
        rows = self.missing.split(max(1, chunk // self.mixture.size)) if len(self.missing) else ()
        return ((here, take_rows((*self.batch, self.observed), here)) for here in rows)

    def result(self, parts: list[dict[str, Tensor]], num: int, chunk: int, seed: int) -> NLL:
        """The statistics of the data that miss something beside those of the data that miss nothing."""
        whole = torch.ones(len(self.batch[0]), dtype=torch.bool)
        whole[self.missing.cpu()] = False
        found: dict[str, Any] = (
            {name: torch.cat([p[name] for p in parts]) for name in parts[0]} if parts else {}
        )
        if bool(whole.any()):
            rows = take_rows(self.batch, whole.to(self.observed.device))
            model, guide = self.mixture.model.model, self.mixture.guide.guide
            complete = nll(model, guide, *rows, num=num, chunk=chunk, seed=seed)
            if not parts:
                return complete
            found = {
                name: _placed_in(whole, getattr(complete, name), value)
                for name, value in found.items()
            }
        return NLL(num=self.mixture.size, kind=self.kind, **found)


def _placed_in(whole: Tensor, complete: Tensor, rest: Tensor) -> Tensor:
    """Numbers `(N,)` of the data that a mask chooses and of the others."""
    values = rest.new_empty(len(whole))
    values[whole], values[~whole] = complete, rest
    return values


def _task(
    model: Callable, guide: Callable, batch: tuple, observed: Tensor, counts: tuple[int, int, int]
) -> _Task:
    check_pair(model, guide)
    num, fills, sweeps = counts
    check_batch(batch)
    x, observed = _without_missing(batch[0], observed)
    *batch_, observed = placed(model, (x, *batch[1:], observed))
    marginal, unmasked = Marginal(model), Unmasked(guide)
    first = take_rows((*batch_, observed), slice(0, 1))
    with estimating(model, guide, seed=0):
        traces = run_pair(marginal, unmasked, first)
        site_of(traces.model, first[0])
    if not traces.latent:
        num, fills, sweeps = 2, 1, 1  # every draw is the same exact log density
    mixture = FillingMixture(
        marginal, unmasked, ceil(num / (fills + 1)), fills, sweeps, plate_depth(*traces)
    )
    missing = (~observed.reshape(len(observed), -1).all(1)).nonzero()[:, 0]
    kind = NLL.kind if traces.latent else "exact"
    return _Task(mixture, tuple(batch_), observed, missing, kind)


def _without_missing(x: Any, observed: Any) -> tuple[Tensor, Tensor]:
    """The data with a number in place of what is missing, and the mask in their shape."""
    x, observed = torch.as_tensor(x), torch.as_tensor(observed)
    if observed.dtype != torch.bool or not _broadcasts(observed, x):
        raise ValueError(
            f"observed: expected a bool mask of shape {tuple(x.shape)} or {tuple(x.shape[1:])}, got {observed.dtype} "
            f"of shape {tuple(observed.shape)}. Fix: observed=x.isfinite()."
        )
    observed = observed.to(x.device).expand_as(x)
    seen = x[observed]
    if seen.is_floating_point() and not bool(seen.isfinite().all()):
        raise ValueError(
            f"data[0]: expected finite values where observed, got {int((~seen.isfinite()).sum())} NaN or infinite. "
            "Fix: observed=observed & x.isfinite()."
        )
    # A number of the data themselves is in their support.
    return torch.where(
        observed, x, seen.min() if len(seen) else torch.zeros_like(x)
    ), observed.clone()


def _broadcasts(observed: Tensor, x: Tensor) -> bool:
    return tuple(observed.shape) in (tuple(x.shape), tuple(x.shape[1:]))
