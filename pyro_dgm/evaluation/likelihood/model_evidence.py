r"""The evidence of a whole data set: one log weight for each draw of everything that is not observed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch
from torch import Tensor

from ...contract import PyroProgram
from ...display.tabular import Tabular
from ...inference.run.levels import LevelSearch
from ...inference.run.limits import check_figures, check_total
from ...inference.run.particles import Particles
from ...inference.run.sessions import Session, session
from ...inference.sites.described import names_of_numbers
from ...inference.sites.measures import Bound, Measure, bound_of, describe_kind
from ...inference.vectorization.modes import ParticleMode
from .importance import nll_of, summary_of
from .psis import khat_threshold
from .quantities import Quantities, free_coordinates
from .weights import rounding_of_set

MAX_NUMBERS = 20_000_000  # draws times quantities that are kept
NUM_PRINTED = 5  # quantities, those of the largest k-hat


@dataclass(frozen=True)
class Evidence(Tabular):
    r"""Importance-sampling estimate of $\log p(X)$ of all data, in nats; in expectation a lower bound.

    As a table it has one row per quantity, the numbers of all latent sites.

    Attributes:
        value: $\log \frac1K \sum_k w^{(k)}$.
        stderr: its standard error from the K draws (delta method); NaN where k̂ is above its threshold.
        elbo: $\frac1K \sum_k \log w^{(k)}$, from the same draws.
        ess: effective sample size $(\sum w)^2 / \sum w^2$, at most K; the least of all data where each has weights of
            its own.
        khat: Pareto k̂ of the weights; the worst of all data where each has weights of its own.
        quantities: the numbers that are drawn, each with a k̂ of its own, and how far the guide is off there; none for
            a pair without globals.
        num: number K of draws.
        num_data: number N of data.
        kind: a lower bound in expectation, exact, or no bound.
        measure: what p(X) is: a mass, a density, …
    """

    value: float
    stderr: float
    elbo: float
    ess: float
    khat: float
    quantities: Quantities
    num: int
    num_data: int
    kind: str = Bound.LOWER
    measure: Measure = Measure.UNSTATED

    @property
    def worst_khat(self) -> float:
        """The largest k̂, of the weights and of every quantity."""
        return max([self.khat, *self.quantities.khat.tolist()])

    def columns(self) -> Mapping[str, Any]:
        """One row per quantity; without any, one row of the figure."""
        found = self.quantities
        if not found.names:
            return super().columns()
        return {
            "quantity": list(found.names),
            "khat": found.khat,
            "mean": found.mean,
            "std": found.std,
            "shift": found.shift,
            "shift_stderr": found.stderr,
            "ratio": found.ratio,
            "log_ratio_stderr": found.ratio_stderr,
        }

    def __str__(self) -> str:
        what = "log p(X, z*)" if self.measure is Measure.JOINT else "log p(X)"
        kind = describe_kind(self.kind, self.measure)
        head = f"{what} {self.value:.3f} ± {self.stderr:.3f} nats ({kind}; {self.num_data} data"
        if self.kind == Bound.EXACT:
            return f"{head})"
        limit = khat_threshold(self.num)
        text = f"{head}, {self.num} draws, ESS {self.ess:.1f}, k-hat {self.khat:.2f}, good below {limit:.2f})"
        found = self.quantities
        lines = [text]
        worst = found.khat.argsort(descending=True)[:NUM_PRINTED].tolist()
        width = max((len(found.names[i]) for i in worst), default=0)
        for i in worst:
            lines.append(
                f"  {found.names[i]:<{width}}  k-hat {found.khat[i]:5.2f}, guide off by {found.shift[i]:6.3f} sd, "
                f"sd ratio {found.ratio[i]:.3f}"
            )
        return "\n".join(lines)


def evidence(
    model: PyroProgram,
    guide: PyroProgram,
    *batch: Any,
    num: int = 1000,
    chunk: int = 20_000,
    seed: int = 0,
) -> Evidence:
    r"""$\log p(X) \ge E\left[\log \frac1K \sum_k \frac{p(X, z_k, \theta_k)}{q(z_k, \theta_k \mid X)}\right]$, in nats.

    One weight for each draw of all that is not observed: the globals θ, which all data share, and the latents z of all
    data. It holds for every guide, one over all latents at once, as `AutoMultivariateNormal`, among them. Without
    globals the weights of the data are independent, and it is minus the sum of `nll`, a far tighter bound.

    Besides the k̂ of the weights there is one for every number that is drawn: a k̂ of 0.5 of the weights is no word on
    the mean of a marginal that the guide has wrong.

    Args:
        model: any Pyro program that keeps the contract.
        guide: its guide.
        batch: all the data, observation first, a row per datum in each argument.
        num: number K of joint draws.
        chunk: how many (draw, datum) pairs are in memory at once. The draws of all globals are kept, and those of the
            latents of the data where both are at most 20 million numbers.
        seed: of the draws.

    Raises:
        ValueError: for what `nll` refuses; for a pair with globals, for a part of the data of a plate of known size,
            and for a loader: θ has one weight, which all data make.

    References:
        Vehtari, Simpson, Gelman, Yao, Gabry 2024, *Pareto smoothed importance sampling*, arXiv:1507.02646;
        Yao, Vehtari, Simpson, Gelman 2018, *Yes, but did it work?*, arXiv:1802.02538.
    """
    with session(model, guide, *batch, num=num, chunk=chunk, seed=seed) as pair:
        return evidence_of(pair)


def evidence_of(pair: Session) -> Evidence:
    """`evidence` of an open session."""
    if not pair.structure.has_globals:
        return _sum_over_data(pair)
    _require_all_data(pair)
    levels, draws = LevelSearch(), _JointDraws(pair)
    for particles in joint_draws(pair):
        draws.add(particles)
    levels.add(particles.pair.observed)
    log_w = torch.cat(draws.log_w)
    structure = pair.structure
    no_kl = torch.zeros_like(log_w[:, None])
    found = summary_of(log_w[:, None], no_kl, draws.rounding)
    check_figures("evidence", found["per_datum"])
    check_total(structure.measure, found["per_datum"], draws.rounding.cpu())
    return Evidence(
        value=-found["per_datum"].item(),
        stderr=found["monte_carlo"].item(),
        elbo=-found["nelbo"].item(),
        ess=found["ess"].item(),
        khat=found["khat"].item(),
        quantities=Quantities.none() if structure.points else draws.quantities(log_w),
        num=pair.num,
        num_data=len(pair),
        kind=_lower(bound_of(structure.measure, is_exact=structure.is_exact)),
        measure=levels.refine(structure.measure),
    )


def joint_draws(pair: Session) -> Iterator[Particles]:
    """The joint draws of all data, as many at once as fit; one by one where the programs take no more."""
    step = max(1, pair.chunk // len(pair))
    if pair.structure.particles is ParticleMode.SINGLE:
        step = 1
    for start in range(0, pair.num, step):
        yield pair.draw(num=min(step, pair.num - start))


class _JointDraws:
    """Joint draws with their weights, part after part.

    Args:
        pair: the open session.
    """

    def __init__(self, pair: Session):
        self.num = pair.num
        self.shared = set(pair.structure.shared)
        self.log_w: list[Tensor] = []
        self.values: dict[str, list[Tensor]] = {}
        self.rounding = torch.zeros(1, dtype=torch.float64)
        self.shapes: dict[str, torch.Size] = {}

    def add(self, particles: Particles) -> None:
        """Take in some draws."""
        self.log_w.append(particles.log_weight_of_set)
        self.rounding = rounding_of_set(particles).maximum(self.rounding.to(self.log_w[0].device))
        draws = dict(particles.values)
        for name, value in particles.values.items():
            free = free_coordinates(particles.pair.modelled[name], value)
            if free is not None:
                draws[f"{name}_unconstrained"] = free
                if name in self.shared:
                    self.shared.add(f"{name}_unconstrained")
        if not self.shapes:
            self.shapes = {name: value.shape[1:] for name, value in draws.items()}
        for name in self._kept:
            value = draws[name].detach()
            flat = value.reshape(len(value), -1).double()
            self.values.setdefault(name, []).append(flat)

    @property
    def _kept(self) -> list[str]:
        """Names of the sites whose draws are kept: globals first; of the others as long as they are few."""
        names = [name for name in self.shapes if name in self.shared]
        others = [name for name in self.shapes if name not in self.shared]
        total = sum([self.shapes[name].numel() for name in self.shapes])
        return names + others if total * self.num <= MAX_NUMBERS else names

    def quantities(self, log_w: Tensor) -> Quantities:
        """What the weights say of every number whose draws are kept."""
        if not self.values:
            return Quantities.none()
        names: list[str] = []
        for name in self.values:
            names += names_of_numbers(name, self.shapes[name])
        draws = torch.cat([torch.cat(parts) for parts in self.values.values()], -1)
        return Quantities.of(tuple(names), draws.cpu(), log_w.cpu())


def _require_all_data(pair: Session) -> None:
    """Refuse a part of the data, and a loader, where all data share a draw."""
    globals_ = list(pair.structure.globals)
    if pair.is_stream and not pair.is_stored:
        raise ValueError(
            f"evidence: expected all data at once, for all of them share {globals_}, got batches of a loader. "
            "Fix: evidence(model, guide, x), of the data as tensors."
        )
    full = pair.structure.full_size
    if full is not None and full != len(pair):
        raise ValueError(
            f"evidence: expected all {full} data of the plate, for all of them share {globals_}, got "
            f"{len(pair)}. Fix: evidence(model, guide, x) of the full set x, in place of a minibatch."
        )


def _sum_over_data(pair: Session) -> Evidence:
    """The evidence of data that share no draw."""
    found = nll_of(pair)
    return Evidence(
        value=-found.per_datum.sum().item(),
        stderr=sqrt(found.monte_carlo.square().sum().item()),
        elbo=-found.nelbo.sum().item(),
        ess=found.ess.min().item(),
        khat=found.khat.max().item(),
        quantities=Quantities.none(),
        num=found.num,
        num_data=len(found.per_datum),
        kind=_lower(found.kind),
        measure=found.measure,
    )


def _lower(kind: str) -> str:
    """The kind of a figure's negative."""
    return Bound.LOWER if kind == Bound.UPPER else kind
