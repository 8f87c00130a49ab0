r"""Dequantization: a density p of reals as a mass of integers, $P(x) = \int_{[0,1)^D} p(x + u)\, du$."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions import constraints
from pyro.infer.reparam.reparam import Reparam
from torch import Tensor

from ...contract import PyroProgram, noise_name
from ..program import Program
from ..requirements import DISTRIBUTIONS, require_program
from .noise import UnitCube, within_cell


def quantize(v: Tensor, levels: int | None = None) -> Tensor:
    r"""$\lfloor v \rfloor$; with a number L of levels, 0 below them and L − 1 above."""
    return v.floor() if levels is None else v.floor().clamp(0, levels - 1)


class Quantized(dist.TorchDistribution):
    r"""$p(x \mid u) = p_v(x + u)$ at the integers x: the density of v, once the noise u is known.

    Averaged over $u \sim U[0, 1)^D$ it is the mass $P(x) = P(\lfloor v \rfloor = x)$. The unit of v is one
    level, so there is no $\log K$ to forget. Draws are $\lfloor v \rfloor$ with $v \sim p_v$.

    Args:
        density: $p_v$, with v in units of levels.
        u: the noise `(*batch, *event)`.
        levels: number L of levels if x is known to lie in 0, …, L − 1; draws beyond them become the edge
            levels.
        generated: the levels that belong to this noise, where the model has generated both.

    Raises:
        ValueError: if the noise does not have the density's event shape; when it scores levels other than
            `generated`.
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
        event_shape = density.event_shape
        num_batch_dims = u.dim() - len(event_shape)
        if num_batch_dims < 0 or u.shape[num_batch_dims:] != event_shape:
            raise ValueError(
                f"expected noise of the density's event shape {tuple(event_shape)}, got noise of "
                f"shape {tuple(u.shape)}. "
                "Fix: a density over the shape of the data, or x.reshape(len(x), *event)."
            )
        self.density = density
        self.u = u
        self.levels = levels
        self.generated = generated
        batch_shape = torch.broadcast_shapes(density.batch_shape, u.shape[:num_batch_dims])
        super().__init__(batch_shape, event_shape, validate_args=False)

    @constraints.dependent_property
    def support(self) -> constraints.Constraint:
        return constraints.independent(self._support_of_levels(), len(self.event_shape))

    def _support_of_levels(self) -> constraints.Constraint:
        """The known levels, or those whose whole cell lies between the bounds of the density."""
        if self.levels is not None:
            return constraints.integer_interval(0, self.levels - 1)
        support = getattr(self.density.support, "base_constraint", self.density.support)
        lower = getattr(support, "lower_bound", None)
        upper = getattr(support, "upper_bound", None)
        if isinstance(lower, float | int) and isinstance(upper, float | int):
            return constraints.integer_interval(ceil(lower), floor(upper) - 1)
        return constraints.integer

    def expand(self, batch_shape: Any, _instance: Any = None) -> Quantized:
        batch = torch.Size(batch_shape)
        u = self.u.expand(batch + self.event_shape)
        return Quantized(self.density.expand(batch), u, self.levels, self.generated)

    def log_prob(self, value: Tensor) -> Tensor:
        if self.generated is not None and value is not self.generated:
            raise ValueError(
                "expected the levels that were generated with this noise, got others, set from "
                "outside: the noise is not theirs. "
                "Fix: pass x to the program, or condition inside, "
                "dequantized(poutine.condition(model, …))."
            )
        return self.density.log_prob(within_cell(value, self.u))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        density = self.density.expand(self.batch_shape)
        with torch.no_grad():
            v = density.sample(torch.Size(sample_shape))
            return quantize(v, self.levels)


class Dequantize(Reparam):
    r"""$x \sim P$ becomes $u \sim U[0, 1)^D$, then $x \sim p_v(x + u)$; for `pyro.poutine.reparam`.

    The noise of site `x` is the site `x_noise`. A model that generates draws v first and records
    $x = \lfloor v \rfloor$ with the noise that belongs to it, $u = v - \lfloor v \rfloor$: the joint is
    right.

    Args:
        levels: as in `Quantized`.

    Raises:
        ValueError: if the site has a mass function already; if its noise is fixed where the model generates.
    """

    def __init__(self, levels: int | None = None):
        self.levels = levels
        self.applied = False  # whether a run has met the site

    def apply(self, msg: Any) -> Any:
        self.applied = True
        name, density, x = msg["name"], msg["fn"], msg["value"]
        _refuse_masses(name, density)
        if x is None:
            return self._generate(name, density)
        u = pyro.sample(noise_name(name), UnitCube(density.event_shape, x))
        quantized = Quantized(density, u, self.levels)
        return {"fn": quantized, "value": x, "is_observed": msg["is_observed"]}

    def _generate(self, name: str, density: dist.TorchDistribution) -> dict[str, Any]:
        # v takes every plate around the program, and no place in the trace.
        untraced: Any = {"_do_not_trace": True, "is_auxiliary": True}
        v = pyro.sample(f"{name}_continuous", density, infer=untraced)
        x = quantize(v, self.levels)
        noise = (v - x).clamp(0, 1)
        batch_shape = noise.shape[: noise.dim() - len(density.event_shape)]
        cube = UnitCube(density.event_shape, v, batch_shape, known=noise)
        u = pyro.sample(noise_name(name), cube)
        if u is not noise:
            raise ValueError(
                f"site '{name}': expected its noise unknown where the model generates, got "
                f"'{noise_name(name)}' fixed: levels can't be drawn given their noise. "
                "Fix: pass x to the program, or condition on latents alone."
            )
        quantized = Quantized(density, u, self.levels, generated=x)
        return {"fn": quantized, "value": x, "is_observed": False}


def _refuse_masses(name: str, density: dist.TorchDistribution) -> None:
    """Refuse a mass function: noise would be added to integers that it scores already."""
    if isinstance(density, Quantized):
        raise ValueError(
            f"site '{name}': it is dequantized already. Fix: the model as it is, or "
            "dequantized(vae.generator, levels=…) in place of dequantized(vae.model)."
        )
    try:
        discrete = density.support is not None and density.support.is_discrete
    except NotImplementedError:  # a distribution that does not know its support
        return
    if discrete:
        raise ValueError(
            f"site '{name}': expected the density of a continuous value to dequantize, got "
            f"{density}, a mass function, which needs no noise. "
            "Fix: leave out dequantized(…) and the dequantizer."
        )


class Dequantized(Program):
    """A program of densities as one of masses; built by `dequantized`."""

    def __init__(self, model: PyroProgram, sites: Sequence[str], levels: int | None = None):
        super().__init__()
        self.model, self.sites, self.levels = model, tuple(sites), levels

    def extra_repr(self) -> str:
        return f"sites={self.sites}, levels={self.levels}"

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        steps = {site: Dequantize(self.levels) for site in self.sites}
        config: dict[str, Reparam] = {**steps}
        value = poutine.reparam(self.model, config=config)(*args, **kwargs)
        missed = [site for site, step in steps.items() if not step.applied]
        if missed:
            self._refuse_missed(missed, value)
        return value

    def _refuse_missed(self, missed: list[str], value: Any) -> None:
        fix = "the name that pyro.sample gives the discrete site"
        if isinstance(value, DISTRIBUTIONS):
            fix = "dequantized(DensityModel(flow)): a conditional has no sites, a program has"
        raise ValueError(
            f"dequantized: expected a model with the sites {list(self.sites)}, "
            f"got one without {missed}. Fix: {fix}."
        )


def dequantized(
    model: PyroProgram, site: str | Sequence[str] = "x", levels: int | None = None
) -> Dequantized:
    r"""$P(x) = \int_{[0,1)^D} p(x + u)\, du$: any density program as a mass program of integer data.

    The model gets one more latent site, the noise `x_noise` of `x`, uniform in the unit cell. The guide draws
    it: `UnitUniform()` is uniform dequantization, a conditional flow onto the unit cube is variational
    dequantization, and `IWELBO` or `Renyi` in place of `ELBO` makes them importance weighted. Nothing else
    changes: every bound on $\log P(x)$ is a lower one, in nats per datum, and needs no correction for the
    number of levels.

    Args:
        model: a Pyro program whose observation is continuous, in units of levels.
        site: the discrete site, or several.
        levels: number L of levels if the data are known to lie in 0, …, L − 1: others are then refused, and
            generated ones beyond them become the edge levels.

    Raises:
        TypeError: for a VAE, a conditional or a number in place of a program, or a number in place of a name.
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
            f"dequantized: expected the name of a site, got {site}. "
            f"Fix: dequantized(model, levels={site})."
        )
    require_program(
        "dequantized",
        model,
        fix="dequantized(vae.generator), the program of its density",
        fix_of_conditional="dequantized(DensityModel(flow))",
    )
    sites = (site,) if isinstance(site, str) else tuple(site)
    return Dequantized(model, sites, levels)
