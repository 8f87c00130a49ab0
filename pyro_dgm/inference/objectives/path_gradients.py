"""Sticking the landing without an inversion, where the guide is a flow that scores its own draws."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from pyro import poutine
from pyro.distributions import Delta, TransformedDistribution
from torch import Tensor, nn

from ...contract import ScoresItsDraws, Site
from ..process.states import fork_rng
from ..run.particles import Particles, draw
from ..run.traces import latent_sites, vectorized
from .gradients import Estimator


class PathGradient(Estimator):
    r"""`StickingTheLanding` of a guide that is a `Flow`, at one more pass forward and no inversion.

    $\sum_k \tilde w_k\, \partial_z \log w_k\, \partial_\phi z_k$, with $\partial_z \log q$ pushed along the layers
    beside the draw. The gradient equals that of `StickingTheLanding` to rounding: zero, draw by draw, where the
    guide is the exact posterior; unbiased at K = 1 and biased for K > 1. For couplings the cost is the same; an
    autoregressive flow that samples in one pass (`iaf`) takes one pass in place of D.

    The guide must have one latent site that is a `Flow`; points that follow from it may stand beside it. Of a
    `FlowGuide`, whose draw all data share, `fit_posterior` takes the same gradient.

    Raises:
        ValueError: in `preflight`, for a guide with another latent site.

    References:
        Vaitl, Winkler, Richter, Kessel 2024, *Fast and unified path gradient estimators for normalizing flows*,
        arXiv:2403.15881.

    Example:
        >>> from pyro_dgm import Bernoulli, Flow, IWELBO, StandardNormal, VAE, iaf, mlp
        >>> encoder = Flow(StandardNormal(2), iaf(2, layers=2, context=9))
        >>> vae = VAE(StandardNormal(2), Bernoulli(mlp(2, 9)), encoder)
        >>> IWELBO(vae.model, vae.guide, 1, estimator=PathGradient())(torch.ones(5, 9)).shape
        torch.Size([])
    """

    def draw(  # noqa: D102
        self, model: nn.Module, guide: nn.Module, *batch: Any, num: int, depth: int
    ) -> Particles:
        particles = draw(model, guide, *batch, num=num, depth=depth)
        log_q = dict(particles.log_q)
        for name, site in particles.pair.latent.items():
            if not isinstance(site["fn"], Delta):
                log_q[name] = log_q[name].detach() + _along_path(site, log_q[name].shape)
        return replace(particles, log_q=log_q)

    def check(self, guide: nn.Module, *batch: Any, depth: int) -> None:  # noqa: D102
        with fork_rng(*batch), torch.no_grad():
            trace = poutine.trace(vectorized(guide, 1, depth)).get_trace(*batch)
        drawn = {n: s for n, s in latent_sites(trace).items() if not isinstance(s["fn"], Delta)}
        names = sorted(drawn)
        if len(drawn) == 1 and _flow_of(drawn[names[0]]) is not None:
            return
        raise ValueError(
            f"PathGradient: expected a guide with one latent site, drawn by a Flow, got {names}. "
            "Fix: estimator=StickingTheLanding(), which takes any guide."
        )


def _flow_of(site: Site) -> ScoresItsDraws | None:
    """The transform of a site that is a flow over noise."""
    fn = site["fn"]
    if not isinstance(fn, TransformedDistribution) or len(fn.transforms) != 1:
        return None
    (transform,) = fn.transforms
    return transform if isinstance(transform, ScoresItsDraws) else None


def _along_path(site: Site, shape: torch.Size) -> Tensor:
    r"""0 `(K, N)`, with the gradient $\partial_z \log q(z)\, \mathrm dz$."""
    flow = _flow_of(site)
    assert flow is not None  # preflight has checked it
    z = site["value"]
    score = flow.score_of(site["fn"].base_dist, z)
    if site["mask"] is not None:
        score = score * torch.as_tensor(site["mask"], device=score.device)[..., None]
    moved = (score * z).flatten(z.dim() - len(site["fn"].event_shape)).sum(-1)
    total = moved.reshape(shape[0], -1, shape[-1]).sum(1)
    return total - total.detach()
