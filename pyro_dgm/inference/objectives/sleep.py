"""The sleep phase: an encoder learned from what the generator makes, which needs no density of an observation."""

from __future__ import annotations

from typing import Any

import pyro
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from torch import Tensor, nn

from ..run.data import check_data
from ..run.simulation import log_joint, simulated
from ..run.states import eval_mode, fork_rng
from ..run.structure import Structure
from ..run.traces import latent_sites, run_pair
from .elbo import Objective


class Sleep(Objective):
    r"""$-E_{p(z, x)} \log q(z \mid x) = E_p[KL(p(z \mid x) \,\|\, q(z \mid x))] + H(z \mid x)$, nats per datum.

    Pairs (z, x) are simulated from the model anew in every step, so that no density of x is asked for: it takes a
    deterministic decoder with a `Delta` observation, the generator of a GAN, as well as any other. Of a batch only the
    number of data and the context are used; the guide learns to explain what the model makes, which data need not be.
    No gradient reaches the model, which runs as it is evaluated. KL is the other way round than in the ELBO: the guide
    covers the posterior.

    Args:
        model: the model, a module that generates when its first argument is `None`.
        guide: its guide, which scores given latents; draws need not be reparameterized.

    Terms:
        loss: what is minimized; its least value is the conditional entropy of z given x.

    Raises:
        ValueError: in `preflight`, for programs that draw different latent sites, for data of another shape than the
            model makes, and for a guide that fails on what it makes.

    References:
        Hinton, Dayan, Frey, Neal 1995, *The wake-sleep algorithm for unsupervised neural networks*, Science 268.

    Example:
        >>> import torch
        >>> import pyro.distributions as dist
        >>> from pyro_dgm import AmortizedGuide, Conditional, Deterministic, LatentVariableModel, StandardNormal, mlp
        >>> generator = LatentVariableModel(StandardNormal(2), Deterministic(mlp(2, 9)))
        >>> guide = AmortizedGuide(Conditional(dist.Normal, mlp(9, 4)))
        >>> Sleep(generator, guide)(torch.zeros(5, 9)).shape
        torch.Size([])
    """

    def __init__(self, model: nn.Module, guide: nn.Module):
        super().__init__(model, guide)
        self._latent: list[str] = []

    def terms(self, *batch: Any) -> dict[str, Tensor]:  # noqa: D102
        with eval_mode(self.model):
            x, latents = simulated(
                self.model, len(batch[0]), batch[1:], self._sites(batch), self._depth
            )
        return {"loss": -log_joint(self.guide, (x, *batch[1:]), latents, self._depth).mean()}

    def preflight(self, *batch: Any) -> Structure:
        """Check that both programs draw the same sites, and that the guide scores what the model makes."""
        for position, value in enumerate(batch):
            if isinstance(value, Tensor):
                check_data(value, f"argument {position}")
        with fork_rng(*batch), eval_mode(self.model, self.guide), pyro.validation_enabled(True):
            traces = run_pair(self.model, self.guide, batch)
            _check_sites(*traces)
            self._latent, self._depth = list(traces.latent), traces.depth
            self._check_scores(batch)
        return Structure.of(traces)

    def _sites(self, batch: tuple) -> list[str]:
        if not self._latent:
            with fork_rng(*batch), eval_mode(self.guide):
                self._latent = list(latent_sites(poutine.trace(self.guide).get_trace(*batch)))
        return self._latent

    def _check_scores(self, batch: tuple) -> None:
        x, _ = simulated(self.model, len(batch[0]), batch[1:], self._latent, self._depth)
        if x.shape != batch[0].shape:
            raise ValueError(
                f"data: expected the event shape {tuple(x.shape[1:])} that the model makes, got "
                f"{tuple(batch[0].shape[1:])}. Fix: x.reshape(len(x), *{tuple(x.shape[1:])}), or networks for "
                f"{tuple(batch[0].shape[1:])}."
            )
        try:
            self.terms(*batch)
        except Exception as error:
            raise ValueError(
                f"the guide fails to score the model's own latents beside what they made, x of shape {tuple(x.shape)}: "
                f"{error}\nFix: an encoder with a density of given z, whose support holds all that the prior draws."
            ) from error


def _check_sites(guide_trace: Trace, model_trace: Trace) -> None:
    drawn, latent = set(latent_sites(guide_trace)), set(latent_sites(model_trace))
    if drawn != latent or not drawn:
        raise ValueError(
            f"model and guide: expected the same latent sites, got {sorted(latent)} in the model and {sorted(drawn)} "
            "in the guide. Fix: give each the same name in both programs."
        )
