"""A refined guide: its draws are shifted and scaled for each datum, by an ascent of that datum's ELBO."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace
from torch import Tensor
from torch.distributions import Independent

from ...contract import PyroProgram, Site
from ...densities.ascent import ascend
from ...densities.factors import independent_numbers
from ...inference.data.tensors import split_rows
from ...inference.run.particles import draw
from ...inference.run.traces import latent_sites, vectorized
from ..chains.charts import chart_of

NUM_PARTICLES = 8  # draws of each datum for one gradient
NUM_MOMENTS = 64  # draws of each datum that tell where its posterior is, and how wide

Batch = tuple[Any, ...]


@dataclass(frozen=True)
class AffineImage:
    r"""$\zeta' = c + e^s \odot (\zeta - c + \sigma \odot t)$: draws of a site, shifted and scaled by datum.

    ζ are free coordinates of the site, z itself on the reals. The centre c and the unit σ are held fixed, so
    that the steps of t and s mean the same whatever the site's unit is.

    Attributes:
        centre: c, the median of draws of the guide.
        unit: σ, half the width of their middle two thirds.
        shift: t.
        log_scale: s.
        event_dim: number of free event dims.

    Shape:
        all tensors: `(*plates, N, *free event)`.
    """

    centre: Tensor
    unit: Tensor
    shift: Tensor
    log_scale: Tensor
    event_dim: int

    def pushforward(self, name: str, distribution: Any) -> Any:
        r"""The distribution of the site at ζ': $\log q'(z') = \log q(z) - \log|\det \partial z' / \partial z|$.

        Args:
            name: of the site.
            distribution: q, the site's own.
        """
        if isinstance(distribution, dist.MaskedDistribution):
            return self.pushforward(name, distribution.base_dist).mask(distribution._mask)
        scale = self.log_scale.exp()
        loc = self.centre + scale * (self.unit * self.shift - self.centre)
        # Every step remembers its draw: a flow that samples in one pass is not inverted, and need
        # have no inverse.
        from_free = chart_of(name, distribution, whiten=False).onto
        steps = [
            from_free.with_cache(1).inv,
            dist.transforms.AffineTransform(loc, scale, self.event_dim, cache_size=1),
            from_free.with_cache(1),
        ]
        return dist.TransformedDistribution(distribution, steps)

    def at(self, rows: slice) -> AffineImage:
        """The image of the data in these rows."""
        index: Any = (..., rows, *[slice(None)] * self.event_dim)
        return AffineImage(
            centre=self.centre[index],
            unit=self.unit[index],
            shift=self.shift[index],
            log_scale=self.log_scale[index],
            event_dim=self.event_dim,
        )


def concatenate(images: Sequence[AffineImage]) -> AffineImage:
    """The images of several blocks of data as one, without gradients."""
    event_dim = images[0].event_dim
    data_dim = -1 - event_dim
    return AffineImage(
        centre=torch.cat([image.centre for image in images], data_dim).detach(),
        unit=torch.cat([image.unit for image in images], data_dim).detach(),
        shift=torch.cat([image.shift for image in images], data_dim).detach(),
        log_scale=torch.cat([image.log_scale for image in images], data_dim).detach(),
        event_dim=event_dim,
    )


class RefinedGuide(Messenger):
    """Every latent site of a guide with its image as distribution: `RefinedGuide(images)(guide)` is a guide.

    Later sites see the refined draws of earlier ones, so that the log densities are those of one joint
    distribution.

    Args:
        images: latent site → its image, for the very data that the guide is called with.
    """

    def __init__(self, images: dict[str, AffineImage]):
        super().__init__()
        self.images = images

    def _pyro_sample(self, msg: Any) -> None:
        image = self.images.get(msg["name"])
        if image is not None and not msg["is_observed"]:
            msg["fn"] = image.pushforward(msg["name"], msg["fn"])

    def at(self, rows: slice) -> RefinedGuide:
        """The same for the data in these rows."""
        return RefinedGuide({name: image.at(rows) for name, image in self.images.items()})


def refine(
    model: PyroProgram,
    guide: PyroProgram,
    batch: Batch,
    depth: int,
    *,
    num_steps: int,
    lr: float,
    chunk: int,
) -> RefinedGuide:
    r"""$\max_{t_i, s_i} E_{q_i'}[\log p(x_i, z) - \log q_i'(z)]$ for every datum i, from t = s = 0.

    Adam under a schedule that falls to 0 as a cosine; all data and draws in one vectorized run of the pair a
    step.

    Args:
        model: a Pyro program that keeps the contract.
        guide: its guide.
        batch: the data.
        depth: number of plates of the pair.
        num_steps: steps of the ascent.
        lr: its step size at the start, in units of the guide's own width.
        chunk: how many (draw, datum) pairs are in memory at once.

    Raises:
        ValueError: for a site that has no density to be transformed, or whose draws carry no gradient.
    """
    blocks = []
    for block in split_rows(batch, max(1, chunk // NUM_MOMENTS)):
        images = _identities(guide, block, depth)
        _fit_images(images, model, guide, block, depth, num_steps, lr)
        blocks.append(images)
    fitted = {}
    for name in blocks[0]:
        fitted[name] = concatenate([images[name] for images in blocks])
    return RefinedGuide(fitted)


def _fit_images(
    images: dict[str, AffineImage],
    model: PyroProgram,
    guide: PyroProgram,
    block: Batch,
    depth: int,
    num_steps: int,
    lr: float,
) -> None:
    """The ascent; shifts and log scales are changed in place."""
    tensors = []
    for image in images.values():
        tensors.append(image.shift.requires_grad_())
        tensors.append(image.log_scale.requires_grad_())
    refined = RefinedGuide(images)(guide)

    def elbo() -> Tensor:
        """The sum of the data's ELBOs."""
        particles = draw(model, refined, *block, num=NUM_PARTICLES, depth=depth)
        return particles.log_weight.sum() / NUM_PARTICLES

    ascend(elbo, tensors, num_steps, lr)


def _identities(guide: PyroProgram, block: Batch, depth: int) -> dict[str, AffineImage]:
    """The images that change nothing, around the draws of the guide."""
    sites = latent_sites(poutine.trace(guide).get_trace(*block))
    many = latent_sites(guide_draws(guide, block, depth))
    return {name: _identity(name, site, many[name]) for name, site in sites.items()}


def guide_draws(guide: PyroProgram, block: Batch, depth: int) -> Trace:
    """A run of the guide with `NUM_MOMENTS` draws of each datum."""
    return poutine.trace(vectorized(guide, NUM_MOMENTS, depth)).get_trace(*block)


def _identity(name: str, site: Site, many: Site) -> AffineImage:
    """The identity, as an image of one site, from one draw of it and many."""
    _refuse(name, site["fn"])
    chart = chart_of(name, site["fn"], whiten=False)
    free_draws = chart_of(name, many["fn"], whiten=False).of(many["value"])
    centre, unit = _centre_and_unit(free_draws)
    centre = centre.reshape(chart.shape)
    return AffineImage(
        centre=centre,
        unit=unit.reshape(chart.shape),
        shift=torch.zeros_like(centre),
        log_scale=torch.zeros_like(centre),
        event_dim=len(chart.onto.inverse_shape(site["fn"].event_shape)),
    )


def _centre_and_unit(draws: Tensor) -> tuple[Tensor, Tensor]:
    """The median of `NUM_MOMENTS` draws along dim 0, and half the width of their middle two thirds."""
    ordered = draws.sort(0).values
    sixth = NUM_MOMENTS // 6
    low = ordered[sixth]
    high = ordered[-1 - sixth]
    smallest = torch.finfo(draws.dtype).tiny
    return ordered[NUM_MOMENTS // 2], ((high - low) / 2).clamp(min=smallest)


def _refuse(name: str, distribution: Any) -> None:
    """Refuse a distribution that no gradient can refine, or whose image has no density."""
    chart_of(name, distribution, whiten=False)  # refuses a discrete one
    if not distribution.has_rsample:
        raise ValueError(
            f"site '{name}': expected reparameterized draws in the guide, since the ascent takes "
            f"gradients through them, got {type(distribution).__name__}. "
            "Fix: a distribution with rsample, such as Conditional(dist.Normal, net) or a Flow "
            "over it."
        )
    inner = _unmasked(distribution)
    while isinstance(inner, Independent):
        inner = inner.base_dist
    if isinstance(inner, dist.Delta | dist.MaskedDistribution):
        raise ValueError(
            f"site '{name}': expected a density over every dim in the guide, got "
            f"{type(inner).__name__}: its ELBO grows without bound as the scale does. "
            "Fix: Conditional(dist.Normal, net), or a mask of whole data around the site."
        )


def is_mean_field_normal(sites: dict[str, Site]) -> bool:
    r"""Whether $q(z \mid x) = \prod_j N(z_j; \mu_j(x), \sigma_j(x)^2)$ over the dims j of all sites.

    Args:
        sites: latent sites of a run of the guide with many draws: the moments of a site that depends on
            another differ.
    """
    for site in sites.values():
        base = independent_numbers(_unmasked(site["fn"]))
        if type(base) is not dist.Normal:
            return False
        if not (_is_equal_for_all_draws(base.loc) and _is_equal_for_all_draws(base.scale)):
            return False
    return True


def _is_equal_for_all_draws(moment: Tensor) -> bool:
    return bool((moment == moment[:1]).all())


def _unmasked(distribution: Any) -> Any:
    masked = isinstance(distribution, dist.MaskedDistribution)
    return distribution.base_dist if masked else distribution
