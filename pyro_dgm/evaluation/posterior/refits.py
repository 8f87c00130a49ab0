"""Simulation-based calibration of guides that are fitted to one data set: a refit for each simulated one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor

from ...contract import PyroProgram, Site
from ...inference.adoption.programs import as_module
from ...inference.data.forms import as_tensors
from ...inference.drawing.data_sets import DataSet, DataSetSource
from ...inference.process.states import derive_seed, fork_rng
from ...inference.run.pair_checks import check_program, require_positive
from ...inference.run.traces import latent_sites, plate_value
from ...inference.sites.described import names_of_numbers
from .ranks import TIE, Ranks, rank_among, spread_ranks
from .uniformity import symmetric, unit_variance


@dataclass(frozen=True)
class VSBC(Ranks):
    r"""$P_q(\theta_j < \theta^*_j)$ under the guide fitted to $X \sim p(X \mid \theta^*)$, one data set a row.

    It is uniform on (0, 1) if the guide is the exact posterior. Asymmetry about one half is a mean that is off:
    more large values say that the guide is too low. Each quantity has tests of uniformity, symmetry and scale.

    Attributes:
        names: of the S quantities, `mu` or `w[0]`.
        ranks: how many of the L draws lie below $\theta^*$ `(N, S)`.
        uniform: $(\mathrm{rank} + v) / (L + 1)$ with $v \sim U(0, 1)$ `(N, S)`, uniform on (0, 1) for an exact guide.
        num_draws: number L of draws.
    """

    title = "VSBC"

    @property
    def symmetry(self) -> Tensor:
        """Wilcoxon's test of each quantity's symmetry about one half, by itself `(S,)`."""
        p = [symmetric(u) for u in self.uniform.T]
        return torch.tensor(p, dtype=torch.float64, device="cpu")

    @property
    def scale(self) -> Tensor:
        """Exact test of the variance of each quantity's normal scores, by itself `(S,)`: a scale that is off."""
        p = [unit_variance(u) for u in self.uniform.T]
        return torch.tensor(p, dtype=torch.float64, device="cpu")

    @property
    def _alone(self) -> Tensor:
        return torch.stack([self.p_values, self.symmetry, self.scale])

    def failures(self, level: float = 0.05) -> tuple[str, ...]:
        """The quantities that are refused at a level, whichever test refuses them, worst first."""
        adjusted = self.adjusted
        refused = [i for i in adjusted.argsort().tolist() if adjusted[i] < level]
        return tuple([self.names[i] for i in refused])

    def columns(self) -> dict[str, Any]:
        """One row per quantity: its tests, the smallest of them after Holm's correction, and the coverage."""
        columns = super().columns()
        return {**columns, "symmetry": self.symmetry, "scale": self.scale}


def vsbc(
    model: PyroProgram,
    fit: Callable[..., PyroProgram],
    *context: Any,
    num_data: int = 100,
    num_draws: int = 199,
    like: Any = None,
    seed: int = 0,
) -> VSBC:
    r"""Does a way to fit a guide find the posterior? $\theta^* \sim p$, $X \sim p(X \mid \theta^*)$, refit, ranks.

    For guides of one data set, as AutoGuides over global sites are; `sbc` needs no refits where a guide is amortized.
    The cost is that of `num_data` fits. The answer is about data sets that the model makes, not about yours, and about
    each quantity by itself: an importance-weighted estimate of the joint may pass where one of them is off.

    Args:
        model: any Pyro program; it generates when its first argument is `None`, or by `like`.
        fit: takes the arguments of the model, the simulated data among them, and returns a fitted guide. It starts
            each time from Pyro's parameters as they are now, which stay as they are.
        context: the model's further arguments.
        num_data: number N of simulated data sets.
        num_draws: number L of draws of each guide.
        like: data for a model that does not run on `None`, as many as a simulated set shall have: what it observes is
            drawn in their place. A tuple of all arguments, `(X, y)`, if the data are not the first of them.
        seed: of data sets, fits and draws; the random state outside stays as it is.

    Raises:
        TypeError: for what is no program.
        ValueError: for counts below 1; for a model that does not generate, or does not observe one argument; for a
            guide without latent sites of the model.

    References:
        Yao, Vehtari, Simpson and Gelman 2018, *Yes, but did it work?: evaluating variational inference*,
        arXiv:1802.02538, section 3.

    Example:
        >>> import pyro.distributions as dist
        >>> def model(x):
        ...     mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        ...     with pyro.plate("rows", len(x)):
        ...         pyro.sample("x", dist.Normal(mu, 1.0), obs=x)
        >>> def fit(x):
        ...     return lambda x: pyro.sample("mu", dist.Normal(x.sum() / 5, 5**-0.5))
        >>> vsbc(model, fit, num_data=40, num_draws=99, like=torch.zeros(4)).failures()
        ()
    """
    check_program(model)
    require_positive(num_data=num_data, num_draws=num_draws)
    program = as_module(model)
    with fork_rng(seed=seed):
        source = DataSetSource.of(program, as_tensors(context) if context else (), like)
    ranks: list[Tensor] = []
    names: tuple[str, ...] = ()
    for number in range(num_data):
        with fork_rng(seed=derive_seed(seed, number)):
            data = source.draw()
            draws = _fitted_draws(fit, data, num_draws)
            names = tuple(_names(draws))
            ranks.append(_ranks(draws, data.truth))
    joint = torch.stack(ranks)
    with fork_rng(seed=derive_seed(seed, num_data)):
        return VSBC(names, joint, spread_ranks(joint, num_draws), num_draws)


def _fitted_draws(fit: Callable[..., PyroProgram], data: DataSet, num: int) -> dict[str, Tensor]:
    """Draws `(L, …)` of a guide that is fitted to one data set; Pyro's parameters are afterwards what they were.

    The guide is run once for each draw: it may read the whole data set, and asks for no plate of particles.
    """
    store = pyro.get_param_store()
    draws: dict[str, list[Tensor]] = {}
    with store.scope(copy.deepcopy(store.get_state())):
        guide = fit(*data.arguments)
        for _ in range(num):
            with torch.no_grad():
                sites = latent_sites(poutine.trace(guide).get_trace(*data.arguments))
            for name, site in sites.items():
                if name in data.truth:
                    draws.setdefault(name, []).append(plate_value(site))
    if not draws:
        raise ValueError(
            f"vsbc: expected a guide with latent sites of the model, {sorted(data.truth)}, got "
            f"{sorted(draws)}. Fix: fit=lambda *data: guide, fitted to these data."
        )
    return {name: torch.stack(values) for name, values in draws.items()}


def _names(draws: dict[str, Tensor]) -> list[str]:
    names = []
    for name, values in draws.items():
        names += names_of_numbers(name, values.shape[1:])
    return names


def _ranks(draws: dict[str, Tensor], truth: dict[str, Site]) -> Tensor:
    """How many draws of each number lie below the truth `(S,)`."""
    ranks = []
    for name, values in draws.items():
        value = plate_value(truth[name]).flatten()
        margin = TIE * torch.finfo(values.dtype).eps * value.abs().double()
        of_draws = values.reshape(len(values), -1).double()
        ranks.append(rank_among(of_draws, value.double(), margin).cpu())
    return torch.cat(ranks)
