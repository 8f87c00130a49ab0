"""A guide held against Markov chains of the true posterior, datum by datum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...inference.run.estimates import placed
from ...inference.run.generation import encode
from ..chains.hamiltonian import HMC
from ..chains.mixing import rhat

Values = dict[str, Tensor]


@dataclass(frozen=True)
class GuideError:
    r"""How q(z | x) differs from p(z | x), for each datum and each dim of every latent site, `(*plates, N, *event)`.

    Attributes:
        shift: $(E_q[z] - E_p[z]) / \mathrm{sd}_p(z)$.
        ratio: $\mathrm{sd}_q(z) / \mathrm{sd}_p(z)$.
        wasserstein: $W_1(q, p) / \mathrm{sd}_p(z)$ of the marginal, $\int |F_q^{-1}(u) - F_p^{-1}(u)|\, du$; the draws'
            own noise adds to it, about $1 / \sqrt{\mathrm{ESS}}$.
        rhat: R-hat of the chains mixed with as many of the guide's draws, 1 where the two laws agree, see `rhat`.
        chains: R-hat of the chains alone: where it is large there is no truth to compare with.
    """

    shift: Values
    ratio: Values
    wasserstein: Values
    rhat: Values
    chains: Values

    def __str__(self) -> str:
        rows = [
            f"{'guide against chains':<26}|shift| in sd  width ratio  W1 in sd  R-hat, mixed  R-hat, chains"
        ]
        for name, shift in self.shift.items():
            means = [v[name].mean().item() for v in (self.ratio, self.wasserstein)]
            worst = [v[name].max().item() for v in (self.rhat, self.chains)]
            numbers = f"{shift.abs().mean():13.3f}{means[0]:13.3f}{means[1]:10.3f}{worst[0]:14.3f}{worst[1]:15.3f}"
            rows.append(f"  {name:<24}{numbers}")
        return "\n".join(
            [*rows, "  (shift, ratio and W1: means over data and dims; R-hat: the worst)"]
        )


def guide_error(guide: Callable, truth: HMC, *batch: Any, seed: int = 0) -> GuideError:
    r"""$q(z \mid x_i)$ against draws of $p(z \mid x_i)$: shift, width, distance, and whether mixed chains agree.

    Args:
        guide: a Pyro guide with the latent sites of the chains.
        truth: chains of the same data, `hmc(model, *batch)`.
        batch: the data, observation first.
        seed: of the guide's draws, as many as the chains have.

    Raises:
        TypeError: for chains that are none.
        ValueError: for a model in place of the guide, a guide of other sites, or data of another number than the chains
            have.

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
            f"guide_error: expected the chains of hmc after the guide, got {type(truth).__name__}. "
            "Fix: guide_error(guide, hmc(model, x), x)."
        )
    batch = placed(guide, batch)
    num_chains, num, num_data = truth.log_joint.shape
    if len(batch[0]) != num_data:
        raise ValueError(
            f"guide_error: expected the {num_data} data of the chains, got {len(batch[0])}. Fix: the same x for both."
        )
    claimed = encode(guide, *batch, num=num_chains * num, seed=seed)
    if missing := sorted(set(truth.draws) - set(claimed)):
        raise ValueError(
            f"guide_error: expected the latent sites {sorted(truth.draws)}, got a guide without {missing}. "
            "Fix: the guide of the model that the chains are of."
        )
    pairs = {name: (claimed[name].to(z).reshape(z.shape), z) for name, z in truth.draws.items()}
    found = {name: _differences(*pair) for name, pair in pairs.items()}
    fields = {
        key: {name: values[key] for name, values in found.items()}
        for key in next(iter(found.values()))
    }
    return GuideError(**fields, chains=truth.rhat)


def _differences(guide: Tensor, chains: Tensor) -> dict[str, Tensor]:
    """Statistics of draws `(chains, draws, *rest)` of either law."""
    q, p = guide.flatten(0, 1).double(), chains.flatten(0, 1).double()
    deviation = p.std(0)
    return {
        "shift": (q.mean(0) - p.mean(0)) / deviation,
        "ratio": q.std(0) / deviation,
        "wasserstein": (q.sort(0).values - p.sort(0).values).abs().mean(0) / deviation,
        "rhat": rhat(torch.cat([guide, chains])),
    }
