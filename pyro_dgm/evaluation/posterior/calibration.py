"""Simulation-based calibration of an amortized guide: no refits, for it answers any data at once."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor

from ...contract import PyroProgram, Site
from ...inference.data.tensors import Batch, has_rows, take_rows
from ...inference.drawing.simulation import log_joint, run_without_data, simulate, site_draws
from ...inference.process.states import fork_rng
from ...inference.run.explain import run_or_explain
from ...inference.run.particles import draw
from ...inference.run.rules import check_sites
from ...inference.run.sessions import Session, require_positive, session_of_prior
from ...inference.run.structure import Structure
from ...inference.run.traces import PairTrace, plate_depth
from ...tabular import Tabular
from .joint_calibration import DataSets, Fit, shares_draws
from .uniformity import kolmogorov, ranks_among, rounding_of_draws

LEVELS = (0.5, 0.8, 0.95)  # of the intervals whose coverage is printed
NUM_PRINTED = 10  # statistics, those of the smallest p-values


@dataclass(frozen=True)
class SBC(Tabular):
    r"""Ranks of $z^*$ among L draws of $q(z \mid x)$, with $z^* \sim p(z)$ and $x \sim p(x \mid z^*)$.

    Each statistic's rank is uniform on 0, …, L if the guide is the exact posterior; ties are broken at random.

    Attributes:
        names: of the S statistics: every latent dim as `z[0]`, then `log p(x, z)` and `|z|`.
        ranks: how many of the L draws lie below $z^*$ `(N, S)`.
        uniform: $(\mathrm{rank} + v) / (L + 1)$ with $v \sim U(0, 1)$ `(N, S)`, uniform on (0, 1) for an exact guide.
        num_draws: number L of draws.
    """

    names: tuple[str, ...]
    ranks: Tensor
    uniform: Tensor
    num_draws: int

    @property
    def p_values(self) -> Tensor:
        """Kolmogorov's test of each statistic's uniformity, by itself `(S,)`."""
        p = [kolmogorov(u) for u in self.uniform.T]
        return torch.tensor(p, dtype=torch.float64, device="cpu")

    @property
    def adjusted(self) -> Tensor:
        """p-values after Holm's correction `(S,)`.

        To reject what lies below α errs once or more with a probability of at most α, however the statistics depend
        on each other.
        """
        p, order = self.p_values.sort()
        num_left = torch.arange(len(p), 0, -1, device=p.device)
        adjusted = (p * num_left).cummax(0).values
        adjusted = adjusted.clamp(max=1)
        return torch.empty_like(p).scatter(0, order, adjusted)

    def passed(self, level: float = 0.01) -> bool:
        """Whether no statistic is refused at a level; an exact guide fails with at most that probability."""
        return bool((self.adjusted >= level).all())

    def coverage(self, level: float) -> Tensor:
        r"""How often the central interval of that probability holds $z^*$ `(S,)`; below it: too narrow or shifted.

        The standard error is $\sqrt{\mathrm{level}\,(1 - \mathrm{level}) / N}$.
        """
        inside = (2 * self.uniform - 1).abs() <= level
        return inside.double().mean(0)

    def columns(self) -> dict[str, Any]:
        """One row per statistic: its p-value, the same after Holm's correction, and the coverage of intervals."""
        columns: dict[str, Any] = {
            "statistic": list(self.names),
            "p_value": self.p_values,
            "adjusted": self.adjusted,
        }
        for level in LEVELS:
            columns[f"coverage_{100 * level:.0f}"] = self.coverage(level)
        return columns

    def __str__(self) -> str:
        adjusted = self.adjusted
        lines = [
            f"SBC, {len(self.ranks)} data × {self.num_draws} draws, "
            f"{len(self.names)} statistics, "
            f"smallest p after Holm's correction {adjusted.min():.2g}",
            _header(),
        ]
        p = self.p_values
        coverages = [self.coverage(level) for level in LEVELS]
        for i in p.argsort()[:NUM_PRINTED].tolist():
            line = f"  {self.names[i]:<14}{p[i]:>10.2g}{adjusted[i]:>10.2g}"
            lines.append(line + _percent([coverage[i] for coverage in coverages]))
        return "\n".join(lines)


def _percent(shares: list[Tensor]) -> str:
    """Shares in the columns of the printed table."""
    cells = [f"{share:>14.1%}" for share in shares]
    return "".join(cells)


def _header() -> str:
    """What stands above the columns of the printed table."""
    columns = ["  statistic     ", "         p", "      Holm"]
    for level in LEVELS:
        interval = f"{level:.0%} interval"
        columns.append(f"{interval:>14}")
    return "".join(columns)


def sbc(
    model: PyroProgram,
    guide: PyroProgram,
    *context: Any,
    num_data: int = 10_000,
    num_draws: int = 99,
    chunk: int = 20_000,
    seed: int = 0,
    size: int | None = None,
    fit: Fit | None = None,
) -> SBC:
    r"""Is $q(z \mid x)$ the posterior of the model's own data? $z^* \sim p(z)$, $x \sim p(x \mid z^*)$, ranks of $z^*$.

    Over the joint distribution, $z^*$ and exact posterior draws are exchangeable, so that ranks are uniform. The test
    sees the guide on data that the model makes, not on the user's: a wrong model with an exact guide passes. 10,000
    data find a mean that is off by a tenth of a posterior standard deviation. Ranks of $\log p(x, z)$ and $\|z\|$ see
    dependences between dims that the dims alone do not.

    Where all data share a draw θ, every simulation is a whole data set, and the statistics are the numbers of θ and
    $\log p(X, z, \theta)$: `num_data` sets, each with draws of the guide for it.

    Args:
        model: a Pyro program that generates when its first argument is `None`.
        guide: its guide.
        context: the programs' further arguments, without x, for data are simulated; their rows are taken over again for
            `num_data` data.
        num_data: number N of simulated data.
        num_draws: number L of draws of the guide for each.
        chunk: how many (draw, datum) pairs are in memory at once.
        seed: of data, draws and ties; the random state outside stays as it is.
        size: number of data in each simulated set, where all data share a draw and no further argument tells it.
        fit: where all data share a draw, a function `fit(x, *context)` that returns the guide of a simulated set, for
            guides that are fitted to one set; default: `guide` answers all.

    Raises:
        TypeError: for a VAE in place of its two programs.
        ValueError: for counts below 1, a model that does not generate from these arguments alone, a guide that fails
            on what it generates, a guide without latent sites, or a site outside the data plate.

    References:
        Talts et al. 2018, *Validating Bayesian inference algorithms with simulation-based calibration*,
        arXiv:1804.06788; Modrák et al. 2023, arXiv:2211.02383 (ranks of the joint density);
        Holm 1979, *A simple sequentially rejective multiple test procedure*.

    Example:
        >>> import pyro.distributions as dist
        >>> from pyro_dgm import Conditional, Normal, StandardNormal, VAE
        >>> encoder = Conditional(dist.Normal, torch.nn.Linear(3, 4))
        >>> vae = VAE(StandardNormal(2), Normal(torch.nn.Linear(2, 3)), encoder)
        >>> sbc(vae.model, vae.guide, num_data=50, num_draws=9).names
        ('z[0]', 'z[1]', 'log p(x, z)', '|z|')
    """
    require_positive(num_data=num_data, num_draws=num_draws)
    with session_of_prior(model, guide, *context, num=num_draws, chunk=chunk, seed=seed) as pair:
        if shares_draws(pair):
            return _sbc_of_sets(DataSets(pair, size, fit), num_data)
        return sbc_of(pair, num_data)


def _sbc_of_sets(sets: DataSets, num_data: int) -> SBC:
    ranks = torch.cat([ranks_among(*sets.compare()).cpu() for _ in range(num_data)])
    return _with_ties(sets.names, ranks, sets.pair.num)


def sbc_of(pair: Session, num_data: int) -> SBC:
    """`sbc` of an open session of the prior."""
    simulation = _Simulation.of(pair)
    size = max(1, pair.chunk // pair.num)
    blocks = []
    for rows in torch.arange(num_data).split(size):
        ranks = simulation.ranks(rows)
        blocks.append(ranks.cpu())
    return _with_ties(simulation.names, torch.cat(blocks), pair.num)


def _with_ties(names: tuple[str, ...], ranks: Tensor, num: int) -> SBC:
    """The result of ranks `(N, S)` among `num` draws."""
    within = torch.rand(ranks.shape, dtype=torch.float64, device="cpu")
    return SBC(names, ranks, (ranks + within) / (num + 1), num)


@dataclass(frozen=True)
class _Simulation:
    """A pair on data that its model makes.

    Attributes:
        pair: the open session.
        example: a run on one such datum.
        codes: names of the latent sites that are ranked.
    """

    pair: Session
    example: PairTrace
    codes: tuple[str, ...]

    @classmethod
    def of(cls, pair: Session) -> _Simulation:
        """Run the pair on one datum of its own and check it; refuses a pair without latents."""
        example = _run_on_own_datum(pair)
        check_sites(example)
        codes = Structure.of(example).codes
        if not codes:
            raise ValueError(
                f"sbc: expected a guide with latent sites, got {list(example.latent)}. "
                "Fix: nll(model, guide, x) scores such a model."
            )
        return cls(pair, example, codes)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the statistics."""
        names = []
        for code in self.codes:
            names += _dims(code, self.example.latent[code])
        return (*names, "log p(x, z)", "|z|")

    def ranks(self, rows: Tensor) -> Tensor:
        """Ranks of the true latents of some data among draws of the guide `(N, S)`."""
        pair, depth = self.pair, self.example.depth
        context = _repeated_rows(pair.context, rows)
        x, truth, log_p = self._joint_draws(len(rows), context)
        particles = draw(pair.model, pair.guide, x, *context, num=pair.num, depth=depth)
        draws = {}
        for name, site in particles.pair.latent.items():
            draws[name] = site_draws(site)
        return ranks_among(
            self._statistics(draws, particles.log_joint),
            self._statistics(truth, log_p),
            rounding_of_draws(particles),
        )

    def _joint_draws(self, num: int, context: Batch) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        r"""$(z^*, x) \sim p(z, x)$: x `(N, *event)`, every site of $z^*$, and $\log p(x, z^*)$ `(N,)`."""
        depth = self.example.depth
        latent = list(self.example.latent)
        x, truth = simulate(self.pair.model, num, context, latent, depth)
        log_p = log_joint(self.pair.model, (x, *context), truth, depth)
        return x, truth, log_p

    def _statistics(self, latents: dict[str, Tensor], log_p: Tensor) -> Tensor:
        r"""Every number of z, $\log p(x, z)$ and $\|z\|$, `(*batch, S)`, of log joint densities `(*batch)`."""
        numbers = []
        for code in self.codes:
            flat = latents[code].reshape(*log_p.shape, -1)
            numbers.append(flat.double())
        z = torch.cat(numbers, -1)
        norm = z.norm(dim=-1, keepdim=True)
        return torch.cat([z, log_p[..., None], norm], -1)


def _run_on_own_datum(pair: Session) -> PairTrace:
    """A run of the pair on one datum that the model makes; its noise is not the session's."""
    context = _repeated_rows(pair.context, torch.arange(1))
    with fork_rng(torch.empty(0, device=pair.device)):
        trace = run_without_data(pair.model, context, pair.guide)
        x, _ = simulate(pair.model, 1, context, [], plate_depth(trace))
        batch = (x, *context)
        return run_or_explain(pair.model, pair.guide, batch)


def _dims(name: str, site: Site) -> list[str]:
    """Names of the dims of one site, plates first; a site of one number has the site's own."""
    distribution = site["fn"]
    further_plates = distribution.batch_shape[:-1]
    shape = [size for size in further_plates if size > 1]
    shape += distribution.event_shape
    if not shape:
        return [name]
    dims = []
    for index in product(*map(range, shape)):
        numbers = ", ".join(map(str, index))
        dims.append(f"{name}[{numbers}]")
    return dims


def _repeated_rows(context: Batch, rows: Tensor) -> Batch:
    """The contexts of some data; where data are more than contexts, the contexts start over."""
    lengths = [len(value) for value in context if has_rows(value)]
    num = max(lengths, default=1)
    return take_rows(context, rows % num)
