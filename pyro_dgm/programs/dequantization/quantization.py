r"""Dequantization, $P(x) = \int_{[0,1)^D} p(x + u)\, du$: a density of real numbers as a mass function of levels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil, floor
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions import constraints
from pyro.infer.reparam.reparam import Reparam
from torch import Tensor

from ...contract import noise_name
from ..program import Program
from .noise import UnitCube, within_cell


def levels_of(v: Tensor, levels: int | None = None) -> Tensor:
    r"""$\lfloor v \rfloor$, the edge levels for what lies beyond them."""
    return v.floor() if levels is None else v.floor().clamp(0, levels - 1)


class Quantized(dist.TorchDistribution):
    r"""$p(x \mid u) = p_v(x + u)$ at the integers x: the density of v, once the noise u is known.

    Averaged over $u \sim U[0, 1)^D$ it is the mass $P(x) = P(\lfloor v \rfloor = x)$. The unit of v is one level, so
    there is no $\log K$ to forget. Draws are $\lfloor v \rfloor$ with $v \sim p_v$.

    Args:
        density: $p_v$, with v in units of levels.
        u: the noise `(*batch, *event)`.
        levels: number L of levels if x is known to lie in 0, …, L − 1; draws beyond them become the edge levels.
        generated: the levels that belong to this noise, where the model has generated both.

    Raises:
        ValueError: if the noise does not have the density's event shape; when it scores levels other than `generated`.
    """

    arg_constraints = {}
    has_rsample = False

    def __init__(
        self,
        density: dist.TorchDistribution,
        u: Tensor,
        levels: int | None = None,
        generated: Tensor | None = None,
    ):
        event = density.event_shape
        split = u.dim() - len(event)
        if split < 0 or u.shape[split:] != event:
            raise ValueError(
                f"expected noise of the density's event shape {tuple(event)}, got noise of shape {tuple(u.shape)}. "
                "Fix: a density over the shape of the data, or x.reshape(len(x), *event)."
            )
        self.density, self.u, self.levels, self.generated = density, u, levels, generated
        batch = torch.broadcast_shapes(density.batch_shape, u.shape[:split])
        super().__init__(batch, event, validate_args=False)

    @constraints.dependent_property
    def support(self) -> constraints.Constraint:
        return constraints.independent(self._levels(), len(self.event_shape))

    def _levels(self) -> constraints.Constraint:
        """The known levels, or those whose whole cell is in the density's range."""
        if self.levels is not None:
            return constraints.integer_interval(0, self.levels - 1)
        support = getattr(self.density.support, "base_constraint", self.density.support)
        low, high = (getattr(support, name, None) for name in ("lower_bound", "upper_bound"))
        if isinstance(low, float | int) and isinstance(high, float | int):
            return constraints.integer_interval(ceil(low), floor(high) - 1)
        return constraints.integer

    def expand(self, batch_shape: Any, _instance: Any = None) -> Quantized:
        batch = torch.Size(batch_shape)
        u = self.u.expand(batch + self.event_shape)
        return Quantized(self.density.expand(batch), u, self.levels, self.generated)

    def log_prob(self, value: Tensor) -> Tensor:
        if self.generated is not None and value is not self.generated:
            raise ValueError(
                "expected the levels that were generated with this noise, got others, set from outside: the noise is "
                "not theirs. Fix: pass x to the program, or condition inside, dequantized(poutine.condition(model, …))."
            )
        return self.density.log_prob(within_cell(value, self.u))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with torch.no_grad():
            return levels_of(
                self.density.expand(self.batch_shape).sample(torch.Size(sample_shape)), self.levels
            )


class Dequantize(Reparam):
    r"""$x \sim P$ becomes $u \sim U[0, 1)^D$, then $x \sim p_v(x + u)$; for `pyro.poutine.reparam`.

    The noise of site `x` is the site `x_noise`. A model that generates draws v first and records
    $x = \lfloor v \rfloor$ with the noise that belongs to it, $u = v - \lfloor v \rfloor$: the joint is right.

    Args:
        levels: as in `Quantized`.

    Raises:
        ValueError: if the site has a mass function already; if its noise is fixed where the model generates.
    """

    def __init__(self, levels: int | None = None):
        self.levels, self.met = levels, False

    def apply(self, msg: Any) -> Any:
        name, density, x = msg["name"], msg["fn"], msg["value"]
        self.met = True
        _check_density(name, density)
        if x is None:
            return self._generated(name, density)
        u = pyro.sample(noise_name(name), UnitCube(density.event_shape, x))
        return {
            "fn": Quantized(density, u, self.levels),
            "value": x,
            "is_observed": msg["is_observed"],
        }

    def _generated(self, name: str, density: dist.TorchDistribution) -> dict[str, Any]:
        # v takes every plate around the program, and no place in the trace.
        v = pyro.sample(
            f"{name}_continuous", density, infer={"_do_not_trace": True, "is_auxiliary": True}
        )
        x = levels_of(v, self.levels)
        known = (v - x).clamp(0, 1)
        batch = known.shape[: known.dim() - len(density.event_shape)]
        u = pyro.sample(noise_name(name), UnitCube(density.event_shape, v, batch, known))
        if u is not known:
            raise ValueError(
                f"site '{name}': expected its noise unknown where the model generates, got '{noise_name(name)}' fixed: "
                "levels can't be drawn given their noise. Fix: pass x to the program, or condition on latents alone."
            )
        return {
            "fn": Quantized(density, u, self.levels, generated=x),
            "value": x,
            "is_observed": False,
        }


def _check_density(name: str, density: dist.TorchDistribution) -> None:
    """Refuse a mass function: noise would be added to integers that it scores already."""
    if isinstance(density, Quantized):
        raise ValueError(
            f"site '{name}': it is dequantized already. Fix: the model as it is, or "
            "dequantized(vae.generator, levels=…) in place of dequantized(vae.model)."
        )
    try:
        discrete = density.support is not None and density.support.is_discrete
    except NotImplementedError:  # a law that does not know its support
        return
    if discrete:
        raise ValueError(
            f"site '{name}': expected the density of a continuous value to dequantize, got {density}, a mass function, "
            "which needs no noise. Fix: leave out dequantized(…) and the dequantizer."
        )


class Dequantized(Program):
    """A program of densities as one of masses; made by `dequantized`."""

    def __init__(self, model: Callable, sites: Sequence[str], levels: int | None = None):
        super().__init__()
        self.model, self.sites, self.levels = model, tuple(sites), levels

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        steps = {site: Dequantize(self.levels) for site in self.sites}
        config: dict[str, Reparam] = {**steps}
        value = poutine.reparam(self.model, config=config)(*args, **kwargs)
        if missed := [site for site, step in steps.items() if not step.met]:
            fix = "the name that pyro.sample gives the discrete site"
            if isinstance(value, torch.distributions.Distribution):
                fix = "dequantized(DensityModel(flow)): a conditional has no sites, a program has"
            raise ValueError(
                f"dequantized: expected a model with the sites {list(self.sites)}, got one without {missed}. "
                f"Fix: {fix}."
            )
        return value


def dequantized(
    model: Callable, site: str | Sequence[str] = "x", levels: int | None = None
) -> Dequantized:
    r"""$P(x) = \int_{[0,1)^D} p(x + u)\, du$: any density program as a mass program of integer data.

    The model gets one more latent site, the noise `x_noise` of `x`, uniform in the unit cell. The guide draws it:
    `UnitUniform()` is uniform dequantization, a conditional flow onto the unit cube is variational dequantization, and
    `IWELBO` or `Renyi` in place of `ELBO` makes them importance weighted. Nothing else changes: every bound on
    $\log P(x)$ is a lower one, in nats per datum, and needs no correction for the number of levels.

    Args:
        model: a Pyro program whose observation is continuous, in units of levels.
        site: the discrete site, or several.
        levels: number L of levels if the data are known to lie in 0, …, L − 1: others are then refused, and generated
            ones beyond them become the edge levels.

    Raises:
        TypeError: for a VAE in place of its generator, or a number in place of a name.
        ValueError: when the model runs, if it has no such site or one with a mass function.

    References:
        Ho, Chen, Srinivas, Duan, Abbeel 2019, *Flow++*, arXiv:1902.00275; Hoogeboom, Cohen, Tomczak 2020,
        arXiv:2001.11235 (importance weighted and Rényi).

    Example:
        >>> from pyro_dgm import DensityModel, Flow, NoiseGuide, StandardNormal, UnitUniform, maf, nll
        >>> model = dequantized(DensityModel(Flow(StandardNormal(2), maf(2, layers=2))))
        >>> nll(model, NoiseGuide(UnitUniform()), torch.tensor([[0, 1], [3, 2]]), num=10).per_datum.shape
        torch.Size([2])
    """
    if isinstance(site, int):
        raise TypeError(
            f"dequantized: expected the name of a site, got {site}. Fix: dequantized(model, levels={site})."
        )
    if not callable(model) or isinstance(getattr(model, "generator", None), Program):
        raise TypeError(
            f"dequantized: expected a program, got {type(model).__name__}. "
            "Fix: dequantized(vae.generator), the program of its density."
        )
    sites = (site,) if isinstance(site, str) else tuple(site)
    return Dequantized(model, sites, levels)
