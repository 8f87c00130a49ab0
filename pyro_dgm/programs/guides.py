"""Guides: programs for q(z | x)."""

from __future__ import annotations

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn

from ..ascent import ascend
from .dequantization.noise import sampled_noise, within_cell
from .program import Program, data_plate, explain_errors

REFINEMENT_DIM = -5  # to the left of the plates of any model, and of the particles around the guide


class AmortizedGuide(Program):
    r"""$q(z \mid x, c)$: one encoder for all data; $q(u \mid x, c)\, q(z \mid x + u, c)$ with a dequantizer.

    Args:
        encoder: conditional for $q(z \mid x, c)$, called as `encoder(x, *context)`.
        dequantizer: conditional of the noise $u$, called as `dequantizer(x, *context)`, if the model is `dequantized`;
            the encoder then sees x + u.
        size: number of data in the full set, see `data_plate`.
        latent: name of the site z.
        observed: name of the site x, which gives the noise its name.

    Shape:
        x: `(B, *event)`; context: `(B, …)`; returns z `(B, *latent event)`.

    Raises:
        ValueError: if x is `None`: a guide explains data.
    """

    def __init__(
        self,
        encoder: nn.Module,
        dequantizer: nn.Module | None = None,
        size: int | None = None,
        latent: str = "z",
        observed: str = "x",
    ):
        super().__init__()
        self.encoder, self.dequantizer = encoder, dequantizer
        self.size, self.latent, self.observed = size, latent, observed

    def forward(self, x: Tensor | None = None, *context: Tensor) -> Tensor:
        v = explain_errors(self, x)
        with data_plate(v, *context, size=self.size):
            if self.dequantizer is not None:
                v = within_cell(v, sampled_noise(self.dequantizer, self.observed, v, *context))
            return pyro.sample(self.latent, self.encoder(v, *context))


class EmptyGuide(Program):
    """The guide of a model without latents: it samples nothing, so the bound is the exact log density."""

    def forward(self, x: Tensor | None = None, *context: Tensor) -> None:
        """Sample nothing."""


class SemiAmortizedGuide(Program):
    r"""$q_i(z) = a_i + e^{b_i} \odot q(z \mid x_i)$, $(a_i, b_i)$ fitted to every datum by ascent of its own ELBO.

    The encoder's answer, refined: the ascent starts at $a = b = 0$ and runs anew in every call, with the encoder and
    the model as they stand. Over a diagonal normal encoder it ranges over all diagonal normals, so that the bound it
    reaches is free of the amortization gap. A guide to measure with: `nll(vae.model, refined, x)`; a call costs
    `num_steps` runs of the model and their gradients. Nothing is learned, and no gradient flows through the ascent.

    Args:
        encoder: conditional for $q(z \mid x, c)$ with reparameterized draws.
        model: the program for p(x, z), with one latent site.
        num_steps: steps of the ascent (Adam).
        lr: its step size at the start; it falls to 0 as a cosine.
        num_particles: draws for the gradient of each datum's ELBO.
        latent: name of the site z.

    Shape:
        x: `(B, *event)`; context: `(B, …)`; returns z `(B, D)`.

    Raises:
        ValueError: if x is `None`.

    References:
        Kim, Wiseman, Miller, Sontag, Rush 2018, *Semi-amortized variational autoencoders*, arXiv:1802.02550;
        Cremer, Li, Duvenaud 2018, *Inference suboptimality in variational autoencoders*, arXiv:1801.03558.
    """

    def __init__(
        self,
        encoder: nn.Module,
        model: Callable,
        num_steps: int = 100,
        lr: float = 0.05,
        num_particles: int = 8,
        latent: str = "z",
    ):
        super().__init__()
        self.encoder, self.model, self.latent = encoder, model, latent
        self.num_steps, self.lr, self.num_particles = num_steps, lr, num_particles

    def forward(self, x: Tensor | None = None, *context: Tensor) -> Tensor:
        x = explain_errors(self, x)
        shift, log_scale = self._refined(x, *context)
        with data_plate(x, *context):
            return pyro.sample(self.latent, self._law(shift, log_scale, x, *context))

    def _law(
        self, shift: Tensor, log_scale: Tensor, x: Tensor, *context: Tensor
    ) -> dist.TransformedDistribution:
        moved = dist.transforms.AffineTransform(shift, log_scale.exp(), event_dim=1, cache_size=1)
        return dist.TransformedDistribution(self.encoder(x, *context), [moved])

    def _refined(self, x: Tensor, *context: Tensor) -> tuple[Tensor, Tensor]:
        """The ascent, hidden from every handler around the guide."""
        with poutine.block(), torch.enable_grad():
            start = self.encoder(x, *context).sample()
            shift = torch.zeros_like(start).requires_grad_()
            log_scale = torch.zeros_like(start).requires_grad_()
            ascend(
                lambda: self._elbo(shift, log_scale, x, *context),
                [shift, log_scale],
                self.num_steps,
                self.lr,
            )
        return shift.detach(), log_scale.detach()

    def _elbo(self, shift: Tensor, log_scale: Tensor, x: Tensor, *context: Tensor) -> Tensor:
        r"""$\sum_i E_{q_i}[\log p(x_i, z) - \log q_i(z)]$, from `num_particles` draws of each datum."""
        distribution = self._law(shift, log_scale, x, *context)
        z = distribution.rsample((self.num_particles, *[1] * (-1 - REFINEMENT_DIM - 1)))
        given = poutine.condition(self.model, data={self.latent: z})
        with pyro.plate("refinement", self.num_particles, dim=REFINEMENT_DIM):
            trace = poutine.trace(given).get_trace(x, *context)
        trace.compute_log_prob()
        sites = (trace.nodes[name] for name in trace.stochastic_nodes + trace.observation_nodes)
        log_joint = sum(site["unscaled_log_prob"].sum() for site in sites)
        return (log_joint - distribution.log_prob(z).sum()) / self.num_particles
