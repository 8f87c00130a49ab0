"""Objectives: modules over a pair whose forward is a loss in nats per datum."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
from pyro.distributions.kl import kl_divergence
from pyro.distributions.util import scale_and_mask
from torch import Tensor, nn

from ..run.structure import Structure, preflight
from ..run.traces import (
    PairTrace,
    Site,
    each_dim,
    latent_sites,
    log_density,
    observed_sites,
    plate_depth,
    run_pair,
    scaled_sum,
)
from .schedules import Constant, Schedule


class Objective(nn.Module):
    """A loss over a model and a guide; abstract. A subclass gives `terms`, whose entry `loss` is minimized.

    Args:
        model: the model, a module.
        guide: its guide, a module.
        size: number of data in the full set if the programs declare one; losses are then divided by it.

    Raises:
        TypeError: if a program is no module: its parameters would not be trained.
    """

    def __init__(self, model: nn.Module, guide: nn.Module, size: int | None = None):
        super().__init__()
        for role, program in (("model", model), ("guide", guide)):
            if not isinstance(program, nn.Module):
                raise TypeError(
                    f"{type(self).__name__}: expected the {role} as an nn.Module, got {type(program).__name__}, whose "
                    "parameters nobody would train. Fix: subclass Program (or nn.Module), or use pyro.infer.SVI."
                )
        self.model, self.guide, self.size = model, guide, size
        self._depth = 1

    def terms(self, *batch: Any) -> dict[str, Tensor]:
        """Named 0-dim costs in nats per datum, lower is better; `loss` is the one to minimize."""
        raise NotImplementedError(f"{type(self).__name__} has no terms.")

    def forward(self, *batch: Any) -> Tensor:
        """The loss, 0-dim, in nats per datum."""
        return self.terms(*batch)["loss"]

    def advance(self) -> None:
        """Move every schedule of the objective on by one optimization step."""
        for module in self.modules():
            if isinstance(module, Schedule):
                module.advance()

    def preflight(self, *batch: Any) -> Structure:
        """Check the pair against the contract on this batch, see `preflight`, and learn how many plates it has."""
        report = preflight(self.model, self.guide, *batch, size=self.size)
        self._depth = report.depth
        return report

    def _num_data(self, batch: tuple) -> int:
        return self.size or len(next(b for b in batch if isinstance(b, Tensor)))


class ELBO(Objective):
    r"""$-\mathrm{ELBO} = E_q[\log q(z \mid x) - \log p(x, z)] \ge -\log p(x)$, nats per datum: an upper bound.

    The guide runs once, the model is replayed against it once, and nothing is read on the host: the loss equals
    `pyro.infer.Trace_ELBO` (divided by the number of data) under one seed, and traces into one graph. With another
    gradient it is `IWELBO(model, guide, 1, estimator=StickingTheLanding())`.

    Args:
        model: the model, a module.
        guide: its guide, with reparameterized sites.
        num_particles: draws per datum, averaged.
        beta: site → weight of its cost in the loss, a number or a `Schedule`; `{"z": LinearWarmup(1000)}` anneals
            the KL. The term `nelbo` is always without it.
        size: number of data in the full set if the programs declare one.
        free_bits: latent site → nats λ below which its cost is free: the loss takes $\max(\lambda, c)$ of its mean c
            over the batch, whose gradient is zero below λ. A number is a floor for the site as a whole, whatever its
            laws; a tensor of the site's event shape is one for each latent dim, $\sum_j \max(\lambda_j, c_j)$, where
            the laws have independent dims. β comes after it; the term `nelbo` is without it. A sampled cost is noisy
            beside λ: `analytic_kl` takes that noise away.
        analytic_kl: take $KL(q \| p)$ of a latent site in closed form where Pyro knows it.

    Terms:
        loss: what is minimized; nelbo: −ELBO without β; `rec[x]`: $-\log p(x \mid z)$ of an observed site;
        `kl[z]`: $\log q(z) - \log p(z)$ of a latent site, or its closed form.

    Raises:
        ValueError: for a guide site without reparameterized draws; for β or free bits of an unknown site; for free bits
            of each dim where the dims are dependent, or not as many; for a closed-form KL when guide and model draw
            their sites in different orders.

    References:
        Kingma, Welling 2014, arXiv:1312.6114; Higgins et al. 2017 for β; Kingma et al. 2016, arXiv:1606.04934
        (section C.8) for free bits.
    """

    def __init__(
        self,
        model: nn.Module,
        guide: nn.Module,
        num_particles: int = 1,
        beta: Mapping[str, float | Schedule] | None = None,
        size: int | None = None,
        *,
        free_bits: Mapping[str, float | Tensor] | None = None,
        analytic_kl: bool = False,
    ):
        super().__init__(model, guide, size)
        if num_particles < 1:
            raise ValueError(f"ELBO: expected num_particles >= 1, got {num_particles}.")
        if not isinstance(beta or {}, Mapping):
            raise TypeError(
                f"ELBO: expected beta by site, got {beta!r}. Fix: beta={{'z': {beta!r}}}."
            )
        if not isinstance(free_bits or {}, Mapping):
            raise TypeError(
                f"ELBO: expected free bits by site, got {free_bits!r}. Fix: free_bits={{'z': {free_bits!r}}}."
            )
        self.num_particles, self.analytic_kl = num_particles, analytic_kl
        weights = {
            name: b if isinstance(b, Schedule) else Constant(b) for name, b in (beta or {}).items()
        }
        self.beta = nn.ModuleDict(weights)
        self.free_bits = nn.ModuleDict(
            {name: FreeBits(nats) for name, nats in (free_bits or {}).items()}
        )

    def preflight(self, *batch: Any) -> Structure:  # noqa: D102
        report = super().preflight(*batch)
        unknown = set(self.beta) - {*report.latent, *report.observed}
        if unknown:
            raise ValueError(
                f"ELBO: expected beta for sites among {[*report.latent, *report.observed]}, got {sorted(unknown)}."
            )
        if unknown := set(self.free_bits) - set(report.latent):
            raise ValueError(
                f"ELBO: expected free_bits for latent sites among {[*report.latent]}, got {sorted(unknown)}."
            )
        return report

    def terms(self, *batch: Any) -> dict[str, Tensor]:  # noqa: D102
        num = self.num_particles if self.num_particles > 1 else None
        guide_trace, model_trace = self._traces(batch, num)
        drawn, modelled = latent_sites(guide_trace), latent_sites(model_trace)
        if self.analytic_kl and list(drawn) != list(modelled):
            raise ValueError(
                "ELBO(analytic_kl=True): expected the guide to draw its sites in the model's order "
                f"{list(modelled)}, got {list(drawn)}: a closed-form KL may then depend on later draws. "
                "Fix: analytic_kl=False."
            )
        rec = {
            name: -scaled_sum(site, log_density(site))
            for name, site in observed_sites(model_trace).items()
        }
        kl = {name: self._kl(name, site, modelled[name]) for name, site in drawn.items()}
        return self._named(rec, kl, 1 / (self.num_particles * self._num_data(batch)))

    def _traces(self, batch: tuple, num: int | None) -> PairTrace:
        hint = (
            "ELBO: the programs have more plates than one. Fix: objective.preflight(*batch) first."
        )
        try:
            traces = run_pair(self.model, self.guide, batch, num, self._depth)
        except ValueError as error:
            if "collide" not in str(error):  # Pyro found two plates at one dim
                raise
            raise ValueError(hint) from error
        if num is not None and plate_depth(*traces) > self._depth + 1:
            raise ValueError(hint)
        return traces

    def _kl(self, name: str, drawn: Site, modelled: Site) -> Tensor:
        """The cost of a latent site, summed over the batch; `event_shape` where each dim has free bits of its own."""
        check_reparameterized(name, drawn)
        keep = (
            cast(FreeBits, self.free_bits[name]).check(name, drawn) if name in self.free_bits else 0
        )
        if keep:
            drawn, modelled = each_dim(name, drawn), each_dim(name, modelled)
        if self.analytic_kl:
            try:
                kl = scale_and_mask(kl_divergence(drawn["fn"], modelled["fn"]), mask=drawn["mask"])
                return scaled_sum(drawn, kl, keep)
            except NotImplementedError:  # Pyro knows no closed form for this pair of families
                pass
        return scaled_sum(drawn, log_density(drawn), keep) - scaled_sum(
            modelled, log_density(modelled), keep
        )

    def _named(
        self, rec: dict[str, Tensor], kl: dict[str, Tensor], weight: float
    ) -> dict[str, Tensor]:
        costs = rec | {name: cost.sum() for name, cost in kl.items()}
        nelbo = _sum(costs.values()) * weight
        return {
            "loss": self._weighted({**rec, **kl}, weight) if self.beta or self.free_bits else nelbo,
            "nelbo": nelbo,
            **{f"rec[{name}]": costs[name] * weight for name in rec},
            **{f"kl[{name}]": costs[name] * weight for name in kl},
        }

    def _weighted(self, costs: dict[str, Tensor], weight: float) -> Tensor:
        free = {
            name: self.free_bits[name](cost * weight)
            for name, cost in costs.items()
            if name in self.free_bits
        }
        costs = {name: cost * weight for name, cost in costs.items()} | free
        beta = {name: schedule() for name, schedule in self.beta.items()}
        return _sum(cost * beta[name] if name in beta else cost for name, cost in costs.items())


class FreeBits(nn.Module):
    r"""$\sum_j \max(\lambda_j, c_j)$: a cost that presses no further below its free nats λ.

    Args:
        nats: λ, 0-dim for the cost of a whole site, or of the site's event shape.

    Raises:
        ValueError: for a negative λ.

    References:
        Kingma, Salimans, Jozefowicz, Chen, Sutskever, Welling 2016, arXiv:1606.04934, section C.8.

    Example:
        >>> FreeBits(0.5)(torch.tensor(0.2))
        tensor(0.5000)
    """

    nats: Tensor

    def __init__(self, nats: float | Tensor):
        super().__init__()
        self.register_buffer("nats", torch.as_tensor(nats, dtype=torch.get_default_dtype()).clone())
        if bool((self.nats < 0).any()):
            raise ValueError(f"free_bits: expected nats >= 0, got {nats}.")

    def check(self, name: str, site: Site) -> int:
        """The number of dims of λ: none, or as many as an event of the site."""
        expected = tuple(site["fn"].event_shape)
        if tuple(self.nats.shape) not in ((), expected):
            raise ValueError(
                f"site '{name}': expected free bits as one number or of the event shape {expected}, got shape "
                f"{tuple(self.nats.shape)}. Fix: free_bits={{'{name}': torch.full({expected}, 0.1)}}."
            )
        return self.nats.dim()

    def forward(self, cost: Tensor) -> Tensor:
        """The cost with its floor, 0-dim."""
        return cost.maximum(self.nats.to(cost.dtype)).sum()


def check_reparameterized(name: str, site: Site) -> None:
    """Refuse a guide site through whose draws no gradient flows."""
    if not site["fn"].has_rsample:
        raise ValueError(
            f"site '{name}': expected reparameterized draws for the gradient of the bound, got {site['fn']}. "
            "Fix: PyroObjective(model, guide, TraceEnum_ELBO(max_plate_nesting=1)) for a discrete latent, or a family "
            "with rsample."
        )


def _sum(costs: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(costs)).sum()
