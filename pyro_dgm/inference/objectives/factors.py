"""What a program adds to a training loss beside its sites: factors of the guide, and scales of its own."""

from __future__ import annotations

import torch
from pyro.distributions.util import scale_and_mask
from pyro.infer.util import MultiFrameTensor
from torch import Tensor

from ...contract import Site
from ..run.particles import Particles
from ..run.traces import PairTrace, log_density, scaled_sum
from ..sites.kinds import has_own_scale, own_scale, plate_scale


def guide_costs(pair: PairTrace) -> dict[str, Tensor]:
    r"""$+\log f$ of what the guide scores beside its draws, mostly `pyro.factor`s, summed and scaled.

    Value and gradient are those of `pyro.infer.Trace_ELBO`: a factor with `has_rsample=True` is differentiated
    itself; the gradient of another one is that of a score, times the cost that stands beside it.

    Returns:
        site of the guide → 0-dim cost.
    """
    costs = {}
    for name, site in pair.trained.items():
        log_f = log_density(site)
        cost = scaled_sum(site, log_f)
        if not site["fn"].has_rsample and log_f.requires_grad:
            score = (_log_ratio(pair, site) * log_f).sum()
            cost = cost.detach() - (score - score.detach())
        costs[name] = cost
    return costs


def _log_ratio(pair: PairTrace, site: Site) -> Tensor:
    r"""$\log p(x, z) - \log q(z \mid x)$, scaled, summed to the plates of a site; without a gradient."""
    total = MultiFrameTensor()
    for name, modelled in pair.joint.items():
        log_r = _scaled(modelled)
        if name in pair.latent:
            log_r = log_r - _scaled(pair.latent[name])
        frames = [frame for frame in modelled["cond_indep_stack"] if frame.vectorized]
        total.add((tuple(frames), log_r.detach()))
    return torch.as_tensor(total.sum_to(site["cond_indep_stack"]))


def _scaled(site: Site) -> Tensor:
    return scale_and_mask(log_density(site), scale=site["scale"])


def weight_of_loss(particles: Particles) -> Tensor:
    r"""$\sum_s c_s \log p_s - \sum_s c_s \log q_s$ `(K, N)`, the log weight that a loss sees.

    The c are the programs' own scales, `poutine.scale`, and 1 without one. Estimates never see them. Where all data
    share a draw it is the weight of the set, `(K, 1)`, and N/B of the plates is part of the c.

    Raises:
        ValueError: for a scale of several numbers at a site with further plates, or outside the data plate.
    """
    pair = particles.pair
    if particles.shared_q:
        return weight_of_set(particles, is_scaled=True)
    scaled = [site for site in (*pair.joint.values(), *pair.scored.values()) if has_own_scale(site)]
    if not scaled:
        return particles.log_weight
    total = torch.zeros_like(particles.log_weight)
    for name, log_p in particles.log_p.items():
        total = total + _own_share(name, pair.joint[name], log_p)
    for name, log_q in particles.log_q.items():
        total = total - _own_share(name, pair.scored[name], log_q)
    return total


def weight_of_set(particles: Particles, *, is_scaled: bool = False) -> Tensor:
    r"""$\log \frac{p(\theta)}{q(\theta)} + \frac NB \sum_i \log \frac{p(x_i, z_i|\theta)}{q(z_i|x_i, \theta)}$.

    `(K, 1)`, in float64. N/B is that of the plates around each site; it is 1 on the full set, where this is
    `log_weight_of_set`.

    Args:
        particles: draws of a pair whose data share some.
        is_scaled: whether the programs' own scales are in it, as in a loss.

    Raises:
        ValueError: for a scale of several numbers at a site with further plates, or outside the data plate.
    """
    pair = particles.pair
    model = _sum_of_set(pair.joint, particles.log_p, particles.shared_p, is_scaled=is_scaled)
    guide = _sum_of_set(pair.scored, particles.log_q, particles.shared_q, is_scaled=is_scaled)
    return (model - guide)[:, None]


def _sum_of_set(
    sites: dict[str, Site],
    inside: dict[str, Tensor],
    shared: dict[str, Tensor],
    *,
    is_scaled: bool,
) -> Tensor:
    """The log densities of one program, each times N/B of its plates, summed over sites and data: `(K,)`."""
    shares = []
    for name, log_p in (inside | shared).items():
        site = sites[name]
        share = _own_share(name, site, log_p) if is_scaled else log_p
        shares.append(share.double().reshape(len(log_p), -1).sum(1) * plate_scale(site))
    return torch.stack(shares).sum(0)


def _own_share(name: str, site: Site, log_p: Tensor) -> Tensor:
    """A site's log density `(K, N)`, or `(K,)` outside the data plate, times the program's own scale."""
    scale = own_scale(site)
    if isinstance(scale, Tensor) and scale.dim() > 0:
        if len(site["fn"].batch_shape) > log_p.dim() or log_p.dim() == 1:
            raise ValueError(
                f"site '{name}': expected a poutine.scale of one number at a site with further plates, or that all "
                f"data share, got shape {tuple(scale.shape)}. Fix: ELBO(model, guide), or a scale of one number."
            )
        scale = scale.reshape(-1, scale.shape[-1])
    return log_p * scale
