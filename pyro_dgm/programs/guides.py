"""Guides: programs that draw the latents z from q(z | x)."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from torch import Tensor, nn

from ..contract import PyroProgram
from ..densities.ascent import ascend
from ..densities.scoring import log_prob_of
from .dequantization.noise import DEQUANTIZER, sample_noise, within_cell
from .program import Program, data_plate, require_data
from .requirements import distribution_of, require_conditional, require_program

REFINEMENT_DIM = -5  # to the left of the plates of any model, and of the particles around the guide
ENCODER = "Conditional(dist.Normal, net)"  # an example, for messages


class AmortizedGuide(Program):
    r"""$q(z \mid x, c)$: one encoder for all data; $q(u \mid x, c)\, q(z \mid x + u, c)$ with a dequantizer.

    Args:
        encoder: conditional for $q(z \mid x, c)$, called as `encoder(x, *context)`.
        dequantizer: conditional of the noise $u$, called as `dequantizer(x, *context)`, if the model is
            `dequantized`; the encoder then sees x + u.
        size: number of data in the full set, see `data_plate`.
        latent: name of the site z.
        observed: name of the site x, which gives the noise its name.

    Shape:
        x: `(B, *event)`; context: `(B, …)`; returns z `(B, *latent event)`.

    Raises:
        TypeError: for an encoder or a dequantizer that is no conditional.
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
        require_conditional("encoder", encoder, ENCODER)
        if dequantizer is not None:
            require_conditional("dequantizer", dequantizer, DEQUANTIZER)
        self.encoder = encoder
        self.dequantizer = dequantizer
        self.size = size
        self.latent = latent
        self.observed = observed

    def extra_repr(self) -> str:
        return f"size={self.size}, latent={self.latent!r}, observed={self.observed!r}"

    def forward(self, x: Tensor | None = None, *context: Tensor) -> Tensor:
        v = require_data(self, x)
        with data_plate(v, *context, size=self.size):
            if self.dequantizer is not None:
                u = sample_noise(self.dequantizer, self.observed, v, *context)
                v = within_cell(v, u)
            encoded = distribution_of("encoder", self.encoder, v, *context)
            return pyro.sample(self.latent, encoded)


class EmptyGuide(Program):
    """The guide of a model without latents: it samples nothing, so the bound is the exact log density."""

    def forward(self, x: Tensor | None = None, *context: Tensor) -> None:
        """Sample nothing."""


class SemiAmortizedGuide(Program):
    r"""$q_i(z) = a_i + e^{b_i} \odot q(z \mid x_i)$, with $a_i, b_i$ from an ascent of the ELBO of datum i.

    The encoder's posterior, refined: the ascent starts at $a = b = 0$ and runs anew in every call, with the
    encoder and the model as they stand. Over a diagonal normal encoder it ranges over all diagonal normals,
    so that the bound it reaches is free of the amortization gap. A guide to measure with, as in
    `nll(vae.model, refined, x)`; a call costs `num_steps` runs of the model and their gradients. Nothing is
    learned, and no gradient flows through the ascent.

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
        TypeError: for an encoder that is no conditional, or a model that is no program.
        ValueError: if x is `None`.

    References:
        Kim, Wiseman, Miller, Sontag, Rush 2018, *Semi-amortized variational autoencoders*, arXiv:1802.02550;
        Cremer, Li, Duvenaud 2018, *Inference suboptimality in variational autoencoders*, arXiv:1801.03558.
    """

    def __init__(
        self,
        encoder: nn.Module,
        model: PyroProgram,
        num_steps: int = 100,
        lr: float = 0.05,
        num_particles: int = 8,
        latent: str = "z",
    ):
        super().__init__()
        require_conditional("encoder", encoder, ENCODER)
        require_program(
            "SemiAmortizedGuide",
            model,
            fix="SemiAmortizedGuide(encoder, vae.model)",
            fix_of_conditional="SemiAmortizedGuide(encoder, LatentVariableModel(…))",
        )
        self.encoder = encoder
        self.model = model
        self.latent = latent
        self.num_steps = num_steps
        self.lr = lr
        self.num_particles = num_particles

    def extra_repr(self) -> str:
        return (
            f"num_steps={self.num_steps}, lr={self.lr}, num_particles={self.num_particles}, "
            f"latent={self.latent!r}"
        )

    def forward(self, x: Tensor | None = None, *context: Tensor) -> Tensor:
        x = require_data(self, x)
        shift, log_scale = self._refine(x, *context)
        with data_plate(x, *context):
            return pyro.sample(self.latent, self._distribution(shift, log_scale, x, *context))

    def _distribution(
        self, shift: Tensor, log_scale: Tensor, x: Tensor, *context: Tensor
    ) -> dist.TransformedDistribution:
        r"""$a + e^b \odot q(\cdot \mid x, c)$."""
        affine = dist.transforms.AffineTransform(shift, log_scale.exp(), event_dim=1, cache_size=1)
        encoded = distribution_of("encoder", self.encoder, x, *context)
        return dist.TransformedDistribution(encoded, [affine])

    def _refine(self, x: Tensor, *context: Tensor) -> tuple[Tensor, Tensor]:
        """The best $(a, b)$ of every datum, found where no handler around the guide sees it."""
        with poutine.block(), torch.enable_grad():
            z = distribution_of("encoder", self.encoder, x, *context).sample()
            shift = torch.zeros_like(z).requires_grad_()
            log_scale = torch.zeros_like(z).requires_grad_()
            ascend(
                lambda: self._elbo(shift, log_scale, x, *context),
                [shift, log_scale],
                self.num_steps,
                self.lr,
            )
        return shift.detach(), log_scale.detach()

    def _elbo(self, shift: Tensor, log_scale: Tensor, x: Tensor, *context: Tensor) -> Tensor:
        r"""$\sum_i E_{q_i}[\log p(x_i, z) - \log q_i(z)]$, from `num_particles` draws of each datum."""
        distribution = self._distribution(shift, log_scale, x, *context)
        num_dims_between = -REFINEMENT_DIM - 2  # of the particles, at that dim, and the data, at -1
        z = distribution.rsample((self.num_particles, *[1] * num_dims_between))
        log_joint = self._log_joint(z, x, *context)
        return (log_joint - distribution.log_prob(z).sum()) / self.num_particles

    def _log_joint(self, z: Tensor, x: Tensor, *context: Tensor) -> Tensor:
        r"""$\sum_{k, i} \log p(x_i, z_{k i})$, whatever scale a subsampling plate has."""
        given_z = poutine.condition(self.model, data={self.latent: z})
        with pyro.plate("refinement", self.num_particles, dim=REFINEMENT_DIM):
            trace = poutine.trace(given_z).get_trace(x, *context)
        log_joint = z.new_zeros(())
        for name in trace.stochastic_nodes + trace.observation_nodes:
            site: Any = trace.nodes[name]
            log_p = log_prob_of(site["fn"], site["value"], *site["args"], **site["kwargs"])
            log_joint = log_joint + scale_and_mask(log_p, mask=site["mask"]).sum()
        return log_joint
