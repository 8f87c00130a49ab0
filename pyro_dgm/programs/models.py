"""Models: programs for p(x) and p(x, z)."""

from __future__ import annotations

import pyro
from torch import Tensor, nn

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
    """

    def __init__(self, density: nn.Module, size: int | None = None, observed: str = "x"):
        super().__init__()
        self.density, self.size, self.observed = density, size, observed

    def forward(self, x: Tensor | None = None, *context: Tensor) -> Tensor:
        with data_plate(x, *context, size=self.size):
            return pyro.sample(self.observed, self.density(*context), obs=x)
