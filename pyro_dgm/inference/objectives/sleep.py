"""The sleep objective: an encoder learned from data that the model simulates, without a density of x."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from torch import Tensor, nn

from ...contract import PyroProgram
from ..drawing.simulation import generative_trace, reader_of, simulate, sites_given
from ..process.ambient import TURN
from ..process.states import eval_mode, fork_rng
from ..run.rules import latents_have_the_same_names
from ..run.structure import Structure, preflight
from ..run.traces import latent_sites, log_density
from ..sites.kinds import own_scale
from ..sites.measure_checks import require_density
from .objective import Objective


class Sleep(Objective):
    r"""$-E_{p(z, x)} \log q(z \mid x) = E_p[KL(p(z \mid x) \,\|\, q(z \mid x))] + H(z \mid x)$.

    In nats per datum, an objective of the guide alone: pairs (z, x) are simulated from the model anew in
    every step, and the guide is fitted to the z of each x by maximum likelihood. No density of x is asked
    for, so that it takes a deterministic decoder with a `Delta` observation, as the generator of a GAN, as
    well as any other. Of a batch only the number of data and the context are used. No gradient reaches the
    model, which runs in evaluation mode. The KL is the other way round than in the ELBO: the guide covers the
    posterior. The loss is an upper bound of $H(z \mid x)$.

    Args:
        model: the model, a module that generates when its first argument is `None`.
        guide: its guide, which scores given latents; draws need not be reparameterized.

    Terms:
        loss: what is minimized; its least value, without factors, is the conditional entropy of z given x;
        `guide_factor[f]`: $+\log f$ of a `pyro.factor` in the guide, part of the loss.

    Raises:
        TypeError: for what is no pair of programs, see `Objective`.
        ValueError: in `preflight`, for programs that draw different latent sites, for a guide that is a point
            mass at one, for data of another shape than the model makes, and for a guide that fails on what it
            makes.

    References:
        Hinton, Dayan, Frey, Neal 1995, *The wake-sleep algorithm for unsupervised neural networks*,
        Science 268.

    Example:
        >>> import torch
        >>> import pyro.distributions as dist
        >>> from pyro_dgm import AmortizedGuide, Conditional, Deterministic, LatentVariableModel
        >>> from pyro_dgm import StandardNormal, mlp
        >>> generator = LatentVariableModel(StandardNormal(2), Deterministic(mlp(2, 9)))
        >>> guide = AmortizedGuide(Conditional(dist.Normal, mlp(9, 4)))
        >>> Sleep(generator, guide)(torch.zeros(5, 9)).shape
        torch.Size([])
    """

    def __init__(self, model: nn.Module, guide: nn.Module | None = None):
        super().__init__(model, guide)
        self._latent: list[str] = []
        self._read: Callable[[Trace], Tensor] | None = None

    @TURN.taken()
    def terms(self, *batch: Any) -> dict[str, Tensor]:  # noqa: D102
        _, guide = self._programs(batch)
        x, latents = self._simulate(batch, self._latent_sites(batch))
        terms = {"loss": x.new_zeros((), dtype=torch.float64)}
        for name, site in sites_given(guide, (x, *batch[1:]), latents, self._depth).items():
            log_q = (log_density(site) * own_scale(site)).double().sum() / len(x)
            if name in latents:
                terms["loss"] = terms["loss"] - log_q
            else:
                terms[f"guide_factor[{name}]"] = log_q
                terms["loss"] = terms["loss"] + log_q
        return terms

    def _simulate(
        self, batch: tuple[Any, ...], sites: list[str]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """As many data as the batch has, under its context, with the latents they came from; no gradient."""
        with eval_mode(self.model):
            model, _ = self._programs(batch)
            if self._read is None:
                self._read = self._find_data(model, batch)
            return simulate(model, len(batch[0]), batch[1:], sites, self._depth, self._read)

    def _find_data(self, model: PyroProgram, batch: tuple[Any, ...]) -> Callable[[Trace], Tensor]:
        """What reads the model's data from its runs; told by one of them, with a noise of its own."""
        with fork_rng(*batch):
            trace = generative_trace(model, 1, len(batch[0]), batch[1:], self._depth)
            return reader_of(model, trace, batch[1:], self._depth)

    def _latent_sites(self, batch: tuple[Any, ...]) -> list[str]:
        """Names of the guide's latent sites, found by one run where `preflight` has not been called."""
        if not self._latent:
            with fork_rng(*batch), eval_mode(self.guide):
                guide_trace = poutine.trace(self.guide).get_trace(*batch)
            self._latent = list(latent_sites(guide_trace))
        return self._latent

    def preflight(self, *batch: Any) -> Structure:
        """Check that both programs draw the same sites, and that the guide scores what the model simulates.

        The model's density of x is not looked at, nor where the guide draws: neither is part of the loss.
        """
        structure = preflight(self.model, self.guide, *batch, rules=(latents_have_the_same_names,))
        require_density(
            "Sleep", structure.points, reason="every draw of the prior has the density 0 there"
        )
        self._latent, self._depth = list(structure.latent), structure.depth
        self._read = None
        self._particles, self._is_known = self._mode_of(structure.particles, batch), True
        with fork_rng(*batch), eval_mode(self.model, self.guide), pyro.validation_enabled(True):
            self._check_shape(batch)
            self._check_scores(batch)
        return structure

    def _check_shape(self, batch: tuple[Any, ...]) -> None:
        """Refuse data of another event shape than those that the guide will be fitted to."""
        x, _ = self._simulate(batch, self._latent)
        expected = tuple(x.shape[1:])
        got = tuple(batch[0].shape[1:])
        if expected != got:
            raise ValueError(
                f"data: expected the event shape {expected} that the model makes, got {got}. "
                f"Fix: x.reshape(len(x), *{expected}), or networks for {got}."
            )

    def _check_scores(self, batch: tuple[Any, ...]) -> None:
        """Refuse a guide without a density of the latents that the prior draws."""
        try:
            self.terms(*batch)
        except Exception as error:  # whatever a user's program raises
            raise ValueError(
                "the guide fails to score the model's own latents beside the data that they made: "
                f"{error}\n"
                "Fix: an encoder with a density of given z, "
                "whose support holds all that the prior draws."
            ) from error
