"""Models: programs that draw data x from p(x), or x and latents z from p(x, z)."""

from __future__ import annotations

import pyro
from torch import Tensor, nn

from .flows.bijector import ALTERNATIVE, Bijector
from .program import Program, data_plate
from .requirements import distribution_of, require_conditional


class LatentVariableModel(Program):
    r"""$p(x, z \mid c) = p(z \mid c)\, p(x \mid z, c)$, the model of a VAE or the generator of a GAN.

    Args:
        prior: conditional for $p(z \mid c)$.
        likelihood: conditional for $p(x \mid z, c)$, called as `likelihood(z, *context)`.
        size: number of data in the full set, see `data_plate`.
        latent: name of the site z.
        observed: name of the site x.

    Shape:
        x: `(B, *event)` or `None` to generate; context: `(B, …)`; returns x.

    Raises:
        TypeError: for a prior or a likelihood that is no conditional.
        ValueError: if prior or likelihood hold a bijector that goes one way only, such as `planar`.
    """

    def __init__(
        self,
        prior: nn.Module,
        likelihood: nn.Module,
        size: int | None = None,
        latent: str = "z",
        observed: str = "x",
    ):
        super().__init__()
        require_conditional("prior", prior, "StandardNormal(8)")
        require_conditional("likelihood", likelihood, "Bernoulli(net)")
        _refuse_one_way("prior", prior)
        _refuse_one_way("likelihood", likelihood)
        self.prior = prior
        self.likelihood = likelihood
        self.size = size
        self.latent = latent
        self.observed = observed

    def extra_repr(self) -> str:
        return f"size={self.size}, latent={self.latent!r}, observed={self.observed!r}"

    def forward(self, x: Tensor | None = None, *context: Tensor) -> Tensor:
        with data_plate(x, *context, size=self.size):
            z = pyro.sample(self.latent, distribution_of("prior", self.prior, *context))
            likelihood = distribution_of("likelihood", self.likelihood, z, *context)
            return pyro.sample(self.observed, likelihood, obs=x)


class DensityModel(Program):
    r"""$p(x \mid c)$ with no latent: a flow or any conditional, trained by exact maximum likelihood.

    Args:
        density: conditional for $p(x \mid c)$.
        size: number of data in the full set, see `data_plate`.
        observed: name of the site x.

    Shape:
        x: `(B, *event)` or `None` to generate; context: `(B, …)`; returns x.

    Raises:
        TypeError: for a density that is no conditional.
        ValueError: if the density holds a bijector that goes one way only, such as `planar`.
    """

    def __init__(self, density: nn.Module, size: int | None = None, observed: str = "x"):
        super().__init__()
        require_conditional("density", density, "Flow(StandardNormal(8), maf(8, layers=2))")
        _refuse_one_way("density", density)
        self.density = density
        self.size = size
        self.observed = observed

    def extra_repr(self) -> str:
        return f"size={self.size}, observed={self.observed!r}"

    def forward(self, x: Tensor | None = None, *context: Tensor) -> Tensor:
        with data_plate(x, *context, size=self.size):
            density = distribution_of("density", self.density, *context)
            return pyro.sample(self.observed, density, obs=x)


def _refuse_one_way(role: str, conditional: nn.Module) -> None:
    """A model scores given points and generates: its flows must go both ways."""
    for module in conditional.modules():
        if not isinstance(module, Bijector):
            continue
        if module.num_forward is None or module.num_inverse is None:
            raise ValueError(
                f"{role}: expected bijectors that go both ways, since a {role} scores given points "
                f"and generates; got {type(module).__name__}, which serves guides alone. "
                f"Fix: {ALTERNATIVE}."
            )
