"""Guides: programs for q(z | x)."""

from __future__ import annotations

import pyro
from torch import Tensor, nn

from .program import Program, data_plate


class AmortizedGuide(Program):
    r"""$q(z \mid x, c)$: one encoder for all data.

    Args:
        encoder: conditional for $q(z \mid x, c)$, called as `encoder(x, *context)`.
        size: number of data in the full set, see `data_plate`.
        latent: name of the site z.

    Shape:
        x: `(B, *event)`; context: `(B, …)`; returns z `(B, *latent event)`.

    Raises:
        ValueError: if x is `None`: a guide explains data.
    """

    def __init__(self, encoder: nn.Module, size: int | None = None, latent: str = "z"):
        super().__init__()
        self.encoder, self.size, self.latent = encoder, size, latent

    def forward(self, x: Tensor | None = None, *context: Tensor) -> Tensor:
        if x is None:
            raise ValueError("AmortizedGuide: expected data x, got None. Fix: guide(x), or generate with the model.")
        with data_plate(x, *context, size=self.size):
            return pyro.sample(self.latent, self.encoder(x, *context))


class EmptyGuide(Program):
    """The guide of a model without latents: it samples nothing, so the bound is the exact log density."""

    def forward(self, x: Tensor | None = None, *context: Tensor) -> None:
        """Sample nothing."""
