"""A guide held against Markov chains of the true posterior, datum by datum."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from ...contract import PyroProgram
from ...display.tabular import Tabular
from ...inference.drawing.generation import encoded
from ...inference.run.sessions import Session, session
from ...inference.run.traces import latent_sites, plate_value
from ...inference.vectorization.rows import OneAtATime
from ..chains.hamiltonian import HMC
from ..chains.mixing import rhat

Values = dict[str, Tensor]

HEADER = (
    "guide against chains      |shift| in sd  width ratio  W1 in sd  R-hat, mixed  R-hat, chains"
)
LEGEND = "  (shift, ratio and W1: means over data and dims; R-hat: the worst)"


@dataclass(frozen=True)
class GuideError(Tabular):
    r"""How $q(z \mid x)$ differs from $p(z \mid x)$, for each datum and each dim of every latent site.

    Every attribute maps a site to a tensor `(*plates, N, *event)`. The first three are 0, 1 and 0 for an exact guide,
    up to the noise of chains and draws.

    Attributes:
        shift: $(E_q[z] - E_p[z]) / \mathrm{sd}_p(z)$.
        ratio: $\mathrm{sd}_q(z) / \mathrm{sd}_p(z)$.
        wasserstein: $W_1(q, p) / \mathrm{sd}_p(z)$ of the marginal, $\int |F_q^{-1}(u) - F_p^{-1}(u)|\, du$; the draws'
            own noise adds to it, about $1 / \sqrt{\mathrm{ESS}}$.
        rhat: R-hat of the chains mixed with as many of the guide's draws, 1 where the two distributions agree, see
            `rhat`.
        chains: R-hat of the chains alone: where it is large there is no truth to compare with.
    """

    shift: Values
    ratio: Values
    wasserstein: Values
    rhat: Values
    chains: Values

    def columns(self) -> dict[str, Any]:
        """One row per number of a latent site: its index in `(*plates, N, *event)`, and every statistic."""
        sites: list[str] = []
        indices: list[tuple[int, ...]] = []
        for name, shift in self.shift.items():
            for index in product(*map(range, shift.shape)):
                sites.append(name)
                indices.append(index)
        return {
            "site": sites,
            "index": indices,
            "shift": _flat(self.shift),
            "ratio": _flat(self.ratio),
            "wasserstein": _flat(self.wasserstein),
            "rhat": _flat(self.rhat),
            "chains": _flat(self.chains),
        }

    def __str__(self) -> str:
        lines = [HEADER]
        for name in self.shift:
            shift = self.shift[name].abs()
            line = [
                f"  {name:<24}",
                f"{shift.mean():13.3f}",
                f"{self.ratio[name].mean():13.3f}",
                f"{self.wasserstein[name].mean():10.3f}",
                f"{self.rhat[name].max():14.3f}",
                f"{self.chains[name].max():15.3f}",
            ]
            lines.append("".join(line))
        lines.append(LEGEND)
        return "\n".join(lines)


def guide_error(guide: PyroProgram, truth: HMC, *batch: Any, seed: int = 0) -> GuideError:
    r"""$q(z \mid x_i)$ against draws of $p(z \mid x_i)$: shift, width, distance, and whether mixed chains agree.

    Args:
        guide: a Pyro guide with the latent sites of the chains.
        truth: chains of the same data, `hmc(model, *batch)`.
        batch: the data, observation first.
        seed: of the guide's draws, as many as the chains have.

    Raises:
        TypeError: for chains that are none.
        ValueError: for a model in place of the guide, a guide of other sites or of sites of another shape, or data of
            another number than the chains have.

    References:
        Vehtari et al. 2021, arXiv:1903.08008 (R-hat); Yao, Vehtari, Simpson, Gelman 2018, *Yes, but did it work?*,
        arXiv:1802.02538.

    Example:
        >>> from pyro_dgm import AmortizedGuide, Conditional, LatentVariableModel, Normal, StandardNormal, hmc
        >>> import pyro.distributions as dist
        >>> model = LatentVariableModel(StandardNormal(2), Normal(torch.nn.Linear(2, 3)))
        >>> guide, x = AmortizedGuide(Conditional(dist.Normal, torch.nn.Linear(3, 4))), torch.zeros(5, 3)
        >>> guide_error(guide, hmc(model, x, num=20, warmup=20), x).shift["z"].shape
        torch.Size([5, 2])
    """
    if not isinstance(truth, HMC):
        raise TypeError(
            "guide_error: expected the chains of hmc after the guide, got "
            f"{type(truth).__name__}. Fix: guide_error(guide, hmc(model, x), x)."
        )
    num_chains, num, _ = truth.log_joint.shape
    with session(None, guide, *batch, num=num_chains * num, seed=seed) as opened:
        draws = _guide_draws(opened, truth)
    return _difference(draws, truth)


def _guide_draws(opened: Session, truth: HMC) -> Values:
    """As many draws of the guide as the chains have, in their shape, `(chains, draws, *plates, N, *event)`."""
    _check_number(len(opened), truth)
    values = _values(opened)
    missing = sorted(set(truth.draws) - set(values))
    if missing:
        raise ValueError(
            f"guide_error: expected the latent sites {sorted(truth.draws)}, got a guide without "
            f"{missing}. Fix: guide_error(vae.guide, hmc(vae.model, x), x), the guide of the model "
            "that the chains are of."
        )
    draws = {}
    for name, chains in truth.draws.items():
        draws[name] = _shaped_as(chains, name, values[name])
    return draws


def _values(opened: Session) -> Values:
    """Draws of every site of the guide `(K, *plates, *event)`."""
    if not isinstance(opened.guide, OneAtATime):
        sites = encoded(opened, opened.batch)
        return {name: plate_value(site) for name, site in sites.items()}
    runs = []
    for _ in range(opened.num):
        trace = poutine.trace(opened.guide).get_trace(*opened.batch)
        runs.append({name: plate_value(site) for name, site in latent_sites(trace).items()})
    return {name: torch.stack([run[name] for run in runs]) for name in runs[0]}


def _check_number(num: int, truth: HMC) -> None:
    """Refuse other data than those of the chains."""
    expected = truth.num_joint or truth.log_joint.shape[-1]
    if num != expected:
        raise ValueError(
            f"guide_error: expected the {expected} data of the chains, got {num}. "
            "Fix: the same x for both, guide_error(guide, hmc(model, x), x)."
        )


def _shaped_as(chains: Tensor, name: str, draws: Tensor) -> Tensor:
    """Draws `(K, *rest)` as `(chains, draws, *rest)`; refuses those of another shape than the chains'."""
    if draws.numel() != chains.numel():
        raise ValueError(
            f"site '{name}': expected draws of shape {tuple(chains.shape[2:])}, as those of the "
            f"chains, got {tuple(draws.shape[1:])} from the guide. "
            "Fix: guide_error(vae.guide, hmc(vae.model, x), x), the guide of the model, with one size "
            "of z in both programs."
        )
    return draws.to(chains).reshape(chains.shape)


def _difference(draws: Values, truth: HMC) -> GuideError:
    """The statistics of the guide's draws against those of the chains."""
    shift, ratio, wasserstein = Values(), Values(), Values()
    for name, chains in truth.draws.items():
        q = _pooled(draws[name])
        p = _pooled(chains)
        deviation = p.std(0)
        distance = q.mean(0) - p.mean(0)
        shift[name] = distance / deviation
        ratio[name] = q.std(0) / deviation
        wasserstein[name] = _wasserstein(q, p) / deviation
    mixed = _mixed_rhat(draws, truth)
    return GuideError(shift, ratio, wasserstein, mixed, chains=truth.rhat)


def _mixed_rhat(draws: Values, truth: HMC) -> Values:
    """R-hat of the chains together with as many of the guide's draws."""
    mixed = {}
    for name, chains in truth.draws.items():
        both = torch.cat([draws[name], chains])
        mixed[name] = rhat(both)
    return mixed


def _pooled(draws: Tensor) -> Tensor:
    """The draws of all chains, `(K, *rest)`."""
    return draws.flatten(0, 1).double()


def _wasserstein(q: Tensor, p: Tensor) -> Tensor:
    r"""$W_1 = \frac1K \sum_k |q_{(k)} - p_{(k)}|$ of the ordered draws `(K, *rest)`."""
    distances = q.sort(0).values - p.sort(0).values
    return distances.abs().mean(0)


def _flat(values: Values) -> Tensor:
    """The numbers of all sites as one vector."""
    return torch.cat([value.flatten() for value in values.values()])
