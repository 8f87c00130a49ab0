"""An experiment of a tenth of a second: a VAE of 4 binary numbers, which a file names by `tiny_experiment`."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import nn

import pyro_dgm as dgm
from pyro_dgm.datasets import Data
from pyro_dgm.experiments.recipes.recipe import Recipe


class TinyVAE(Recipe):
    """A VAE of linear maps.

    Args:
        latent: latent dims.
        scale: of the weights; NaN makes every loss NaN.
        fails: whether it can't be built.
    """

    def __init__(self, latent: int = 1, scale: float = 1.0, fails: bool = False):
        self.latent, self.scale, self.fails = latent, scale, fails

    def build(self, data: Data) -> nn.Module:
        if self.fails:
            raise ValueError("fails: expected false, got true. Fix: --model.fails=false.")
        likelihood = dgm.Bernoulli(nn.Linear(self.latent, data.dim))
        encoder = dgm.Conditional(dist.Normal, nn.Linear(data.dim, 2 * self.latent))
        vae = dgm.VAE(dgm.StandardNormal(self.latent), likelihood, encoder)
        with torch.no_grad():
            for parameter in vae.parameters():
                parameter.mul_(self.scale)
        return vae


class TinyData(Data):
    """Pairs of equal bits.

    Args:
        num: of each split.
    """

    def __init__(self, num: int = 60):
        generator = torch.Generator().manual_seed(0)
        bits = torch.rand(3, num, 2, generator=generator).round().repeat(1, 1, 2)
        super().__init__(*bits.unbind(), (4,), levels=2)


EXPERIMENT = {
    "model": "tiny_experiment.TinyVAE",
    "data": "tiny_experiment.TinyData",
    "objective": "pyro_dgm.ELBO",
    "trainer": {"class_path": "pyro_dgm.SVITrainer", "init_args": {"lr": 0.01}},
    "epochs": 2,
    "batch_size": 20,
    "evaluation": {"num": 20},
}
TRUST = ["tiny_experiment"]
