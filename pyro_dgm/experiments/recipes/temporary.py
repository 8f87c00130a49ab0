"""Until the recipes are there."""

from .compositions import levels_vae
from .recipe import Recipe


class Levels(Recipe):
    """A VAE of levels.

    Args:
        latent: latent dims.
        hidden: hidden units.
        layers: flow layers.
        min_scale: smallest scale.
    """

    def __init__(
        self, latent: int = 16, hidden: int = 512, layers: int = 2, min_scale: float = 0.3
    ):
        self.latent, self.hidden, self.layers, self.min_scale = latent, hidden, layers, min_scale

    def build(self, data):
        return levels_vae(
            data.dim, data.levels, self.latent, self.hidden, self.layers, self.min_scale
        )
