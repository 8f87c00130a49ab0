"""Programs of one's own, as a file of yours would hold them: copy it, change it, and name it in `--model.program`."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ...programs.conditionals.conditional import Conditional
from ...programs.likelihoods.discretized import DiscretizedLogistic
from ...programs.networks.dense import mlp
from ...programs.networks.units import Rescale
from ...programs.program import data_plate


class PlainVAE(nn.Module):
    r"""$z \sim \mathcal N(0, I)$, $x_d \sim \mathrm{Binomial}(L - 1, \sigma(\mathrm{net}(z)_d))$, in Pyro's own words.

    Args:
        dim: numbers D in a datum.
        levels: number L of levels.
        latent: latent dims.
        hidden: hidden units each way.
    """

    def __init__(self, dim: int, levels: int, latent: int = 8, hidden: int = 256):
        super().__init__()
        self.latent = latent
        self.trials = levels - 1
        self.decoder = mlp(latent, hidden, dim)
        self.encoder = mlp(dim, hidden, 2 * latent)

    def model(self, x: Tensor | None = None) -> Tensor:
        """Draw z, then x."""
        with data_plate(x):
            standard = dist.Normal(torch.zeros(self.latent), 1.0).to_event(1)
            z = pyro.sample("z", standard)
            binomial = dist.Binomial(self.trials, logits=self.decoder(z)).to_event(1)
            return pyro.sample("x", binomial, obs=x)

    def guide(self, x: Tensor) -> Tensor:
        """Draw z given x."""
        loc, raw_scale = self.encoder(x / self.trials).chunk(2, dim=-1)
        with data_plate(x):
            scale = nn.functional.softplus(raw_scale) + 1e-3
            return pyro.sample("z", dist.Normal(loc, scale).to_event(1))


class Hierarchical(nn.Module):
    r"""$p(z_2)\, p(z_1 \mid z_2)\, p(x \mid z_1)$ with the guide $q(z_1 \mid x)\, q(z_2 \mid z_1)$: two latent layers.

    Args:
        dim: numbers D in a datum.
        levels: number L of levels.
        lower: dims of $z_1$, next to the data.
        upper: dims of $z_2$.
        hidden: hidden units of every network.
        min_scale: smallest scale of the discretized logistic, in levels.
    """

    def __init__(
        self,
        dim: int,
        levels: int,
        lower: int = 16,
        upper: int = 8,
        hidden: int = 256,
        min_scale: float = 0.3,
    ):
        super().__init__()
        self.upper = upper
        self.prior = Conditional(dist.Normal, mlp(upper, hidden, 2 * lower))
        decoder = mlp(lower, hidden, 2 * dim)
        self.likelihood = DiscretizedLogistic(decoder, levels, min_scale)
        encoder = nn.Sequential(Rescale(0, levels - 1), mlp(dim, hidden, 2 * lower))
        self.lower_encoder = Conditional(dist.Normal, encoder)
        self.upper_encoder = Conditional(dist.Normal, mlp(lower, hidden, 2 * upper))

    def model(self, x: Tensor | None = None) -> Tensor:
        """Draw z2, z1, then x."""
        with data_plate(x):
            standard = dist.Normal(torch.zeros(self.upper), 1.0).to_event(1)
            z2 = pyro.sample("z2", standard)
            z1 = pyro.sample("z1", self.prior(z2))
            return pyro.sample("x", self.likelihood(z1), obs=x)

    def guide(self, x: Tensor) -> None:
        """Draw z1 given x, then z2 given z1."""
        with data_plate(x):
            z1 = pyro.sample("z1", self.lower_encoder(x))
            pyro.sample("z2", self.upper_encoder(z1))
