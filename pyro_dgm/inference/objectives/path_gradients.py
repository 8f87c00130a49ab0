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
from .gradients import Estimator, check_scoring, score_guide


class PathGradient(Estimator):
    r"""`StickingTheLanding` of a guide that is a `Flow`, at one more pass forward and no inversion.

    $\sum_k \tilde w_k\, \partial_z \log w_k\, \partial_\phi z_k$, with $\partial_z \log q$ pushed along the layers
    beside the draw. The gradient equals that of `StickingTheLanding` to rounding: zero, draw by draw, where the
    guide is the exact posterior; unbiased at K = 1 and biased for K > 1. For couplings the cost is the same; an
    autoregressive flow that samples in one pass (`iaf`) takes one pass in place of D.

    The guide must draw from a `Flow` first: an encoder's, or that of a `FlowGuide`, which all data share. What it draws
    further, as the `local` part of a `FlowGuide`, is scored a second time with detached parameters, as
    `StickingTheLanding` scores it; points that follow from its draws may stand beside them.

    Raises:
        ValueError: in `preflight`, for a guide whose first draw is none of a flow; where it draws further, for one that
            takes random numbers while it scores, such as dropout.

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
        name, *others = _drawn(particles.pair.scored)
        log_q, shared_q = particles.log_q, particles.shared_q
        if others:  # they depend on the flow's draw, by parameters that have no score either
            given = particles.guide_trace
            _, (log_q, shared_q) = score_guide(guide, batch, num, depth, given, without=name)
        moved = _along_path(particles.pair.scored[name])
        if name in particles.shared_q:
            value = particles.shared_q[name].detach()
            shared_q = shared_q | {name: value + moved.reshape(num, -1).sum(1)}
        else:
            value = particles.log_q[name].detach()
            log_q = log_q | {name: value + moved.reshape(num, -1, value.shape[-1]).sum(1)}
        return replace(particles, log_q=log_q, shared_q=shared_q)

    def check(self, guide: nn.Module, *batch: Any, depth: int) -> None:  # noqa: D102
        with fork_rng(*batch), torch.no_grad():
            trace = poutine.trace(vectorized(guide, 1, depth)).get_trace(*batch)
        sites = latent_sites(trace)
        names = _drawn(sites)
        if not names or _flow_of(sites[names[0]]) is None:
            raise ValueError(
                f"PathGradient: expected a guide whose first latent site is drawn by a Flow, got {names}. "
                "Fix: estimator=StickingTheLanding(), which takes any guide."
            )
        if len(names) > 1:
            check_scoring(self, guide, batch, depth)


def _drawn(sites: dict[str, Site]) -> list[str]:
    """Names of the sites that are no points, in the order in which they are drawn."""
    return [name for name, site in sites.items() if not isinstance(site["fn"], Delta)]


def _flow_of(site: Site) -> ScoresItsDraws | None:
    """The transform of a site that is a flow over noise."""
    fn = site["fn"]
    if not isinstance(fn, TransformedDistribution) or len(fn.transforms) != 1:
        return None
    (transform,) = fn.transforms
    return transform if isinstance(transform, ScoresItsDraws) else None


def _along_path(site: Site) -> Tensor:
    r"""0 `(K, …, N)`, with the gradient $\partial_z \log q(z)\, \mathrm dz$."""
    flow = _flow_of(site)
    assert flow is not None  # preflight has checked it
    z = site["value"]
    score = flow.score_of(site["fn"].base_dist, z)
    if site["mask"] is not None:
        score = score * torch.as_tensor(site["mask"], device=score.device)[..., None]
    moved = (score * z).flatten(z.dim() - len(site["fn"].event_shape)).sum(-1)
    return moved - moved.detach()
