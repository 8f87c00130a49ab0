"""Models: programs for p(x) and p(x, z)."""

from __future__ import annotations

import pyro
from torch import Tensor, nn

from .flows.bijector import ALTERNATIVE, Bijector
from .program import Program, data_plate


class LatentVariableModel(Program):
    r"""$p(x, z \mid c) = p(z \mid c)\, p(x \mid z, c)$ for every datum; the same program a VAE or a critic trains.

    Args:
        prior: conditional for $p(z \mid c)$.
        likelihood: conditional for $p(x \mid z, c)$, called as `likelihood(z, *context)`.
        size: number of data in the full set, see `data_plate`.
        latent: name of the site z.
        observed: name of the site x.

    Shape:
        x: `(B, *event)` or `None` to generate; context: `(B, …)`; returns x.

    Raises:
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
        _refuse_one_way(prior=prior, likelihood=likelihood)
        self.prior, self.likelihood = prior, likelihood
        self.size, self.latent, self.observed = size, latent, observed

    def forward(self, x: Tensor | None = None, *context: Tensor) -> Tensor:
        with data_plate(x, *context, size=self.size):
            z = pyro.sample(self.latent, self.prior(*context))
            return pyro.sample(self.observed, self.likelihood(z, *context), obs=x)


class DensityModel(Program):
    r"""$p(x \mid c)$ with no latent: a flow or any conditional, trained by exact maximum likelihood.

    Args:
        density: conditional for $p(x \mid c)$.
        size: number of data in the full set, see `data_plate`.
        observed: name of the site x.

    Shape:
        x: `(B, *event)` or `None` to generate; context: `(B, …)`; returns x.

    Raises:
        ValueError: if the density holds a bijector that goes one way only, such as `planar`.
    """

    def __init__(self, density: nn.Module, size: int | None = None, observed: str = "x"):
        super().__init__()
        _refuse_one_way(density=density)
        self.density, self.size, self.observed = density, size, observed

    def forward(self, x: Tensor | None = None, *context: Tensor) -> Tensor:
        with data_plate(x, *context, size=self.size):
            return pyro.sample(self.observed, self.density(*context), obs=x)


def _refuse_one_way(**conditionals: nn.Module) -> None:
    """A model scores given points and generates: its flows must go both ways."""
    for role, conditional in conditionals.items():
        for module in conditional.modules():
            if isinstance(module, Bijector) and None in (module.num_forward, module.num_inverse):
                raise ValueError(
                    f"{role}: expected bijectors that go both ways, since a {role} scores given points and generates; "
                    f"got {type(module).__name__}, which serves guides alone. Fix: {ALTERNATIVE}."
                )
