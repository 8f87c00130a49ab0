r"""A guide refined: each of its draws moved and scaled for each datum by itself, by ascent of that datum's ELBO."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace
from torch import Tensor
from torch.distributions import Independent

from ...inference.run.data import split_rows
from ...inference.run.particles import draw
from ...inference.run.traces import Site, latent_sites, vectorized
from ..chains.charts import chart_of
from ..latents.aggregate import of_numbers

NUM_PARTICLES = 8  # draws of each datum for one gradient
NUM_MOMENTS = 64  # draws of each datum that tell where its law is, and how wide


@dataclass(frozen=True)
class AffineImage:
    r"""$\zeta' = c + e^s \odot (\zeta - c + \sigma \odot t)$: the draws of one site, moved and scaled for each datum.

    ζ are free coordinates of the site, z itself on the reals. The centre c and the unit σ are held fixed, so that the
    steps of t and s mean the same whatever the site's unit is.

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

    def of(self, name: str, distribution: Any) -> Any:
        r"""The law of $z' = b(\zeta')$, with $\log q'(z') = \log q(z) - \log|\det \partial z' / \partial z|$."""
        if isinstance(distribution, dist.MaskedDistribution):
            return self.of(name, distribution.base_dist).mask(distribution._mask)
        onto, scale = chart_of(name, distribution, whiten=False).onto, self.log_scale.exp()
        loc = self.centre + scale * (self.unit * self.shift - self.centre)
        affine = dist.transforms.AffineTransform(loc, scale, self.event_dim, cache_size=1)
        # Every step remembers its draw: a flow that samples in one pass is not inverted, and need have no inverse.
        return dist.TransformedDistribution(
            distribution, [onto.with_cache(1).inv, affine, onto.with_cache(1)]
        )

    def at(self, rows: slice) -> AffineImage:
        """The image of some of the data."""
        index: Any = (..., rows, *[slice(None)] * self.event_dim)
        return self._each(lambda tensors: tensors[0][index], self)

    def joined(self, *others: AffineImage) -> AffineImage:
        """The image of these data and those of others behind them, without gradients."""
        return self._each(
            lambda tensors: torch.cat(tensors, -1 - self.event_dim).detach(), self, *others
        )

    @staticmethod
    def _each(function: Callable[[list[Tensor]], Tensor], *images: AffineImage) -> AffineImage:
        """The image whose tensors a function makes of the same tensors of others."""
        return AffineImage(
            centre=function([image.centre for image in images]),
            unit=function([image.unit for image in images]),
            shift=function([image.shift for image in images]),
            log_scale=function([image.log_scale for image in images]),
            event_dim=images[0].event_dim,
        )


class RefinedGuide(Messenger):
    """Gives every latent site of a guide the law of its image; `Refined(images)(guide)` is the refined guide.

    Later sites see the moved draws of earlier ones, so that the log densities are those of one joint law.

    Args:
        images: latent site → its image, for the very data that the guide is called with.
    """

    def __init__(self, images: dict[str, AffineImage]):
        super().__init__()
        self.images = images

    def _pyro_sample(self, msg: Any) -> None:
        image = self.images.get(msg["name"])
        if image is not None and not msg["is_observed"]:
            msg["fn"] = image.of(msg["name"], msg["fn"])

    def at(self, rows: slice) -> RefinedGuide:
        """The same for some of the data."""
        return RefinedGuide({name: image.at(rows) for name, image in self.images.items()})


def refine(
    model: Callable,
    guide: Callable,
    batch: tuple,
    depth: int,
    *,
    num_steps: int,
    lr: float,
    chunk: int,
) -> RefinedGuide:
    r"""$\max_{t_i, s_i} E_{q_i'}[\log p(x_i, z) - \log q_i'(z)]$ for every datum, from the guide itself, $t = s = 0$.

    Adam under a schedule that falls to 0 as a cosine; all data and draws in one vectorized run of the pair a step.

    Args:
        model: a Pyro program that keeps the contract.
        guide: its guide.
        batch: the data.
        depth: number of plates of the pair.
        num_steps: steps of the ascent.
        lr: its step size at the start, in units of the guide's own width.
        chunk: how many (draw, datum) pairs are in memory at once.

    Raises:
        ValueError: for a site that has no density to be moved, or whose draws carry no gradient.
    """
    blocks = [
        _ascended(model, guide, block, depth, num_steps, lr)
        for block in split_rows(batch, max(1, chunk // NUM_MOMENTS))
    ]
    first, *others = blocks
    return RefinedGuide(
        {name: image.joined(*(block[name] for block in others)) for name, image in first.items()}
    )


def _ascended(
    model: Callable, guide: Callable, block: tuple, depth: int, num_steps: int, lr: float
) -> dict[str, AffineImage]:
    images = _started(guide, block, depth)
    params = [
        p.requires_grad_() for image in images.values() for p in (image.shift, image.log_scale)
    ]
    optimizer = torch.optim.Adam(params, lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    moved = RefinedGuide(images)(guide)
    for _ in range(num_steps):
        for param, gradient in zip(
            params, _gradients(model, moved, block, depth, params), strict=True
        ):
            param.grad = gradient
        optimizer.step()
        schedule.step()
    return images


def _gradients(
    model: Callable, moved: Callable, block: tuple, depth: int, params: list[Tensor]
) -> tuple[Tensor, ...]:
    """Of the sum of the data's −ELBO; zero for a site that is masked altogether."""
    with torch.enable_grad():
        loss = (
            -draw(model, moved, *block, num=NUM_PARTICLES, depth=depth).log_weight.sum()
            / NUM_PARTICLES
        )
        return torch.autograd.grad(loss, params, allow_unused=True, materialize_grads=True)


def _started(guide: Callable, block: tuple, depth: int) -> dict[str, AffineImage]:
    """The images that change nothing, around the draws of the guide."""
    sites = latent_sites(poutine.trace(guide).get_trace(*block))
    many = latent_sites(guide_draws(guide, block, depth))
    return {name: _identity(name, site, many[name]) for name, site in sites.items()}


def guide_draws(guide: Callable, block: tuple, depth: int) -> Trace:
    """A run of the guide with `NUM_MOMENTS` draws of each datum."""
    return poutine.trace(vectorized(guide, NUM_MOMENTS, depth)).get_trace(*block)


def _identity(name: str, site: Site, many: Site) -> AffineImage:
    """The identity, as an image of one site, from one draw of it and many."""
    _refuse(name, site["fn"])
    chart = chart_of(name, site["fn"], whiten=False)
    drawn = chart_of(name, many["fn"], whiten=False).of(many["value"]).sort(0).values
    low, centre, high = (
        drawn[i].reshape(chart.shape)
        for i in (NUM_MOMENTS // 6, NUM_MOMENTS // 2, -NUM_MOMENTS // 6)
    )
    unit = ((high - low) / 2).clamp(min=torch.finfo(drawn.dtype).tiny)
    event_dim = len(chart.onto.inverse_shape(site["fn"].event_shape))
    return AffineImage(centre, unit, torch.zeros_like(centre), torch.zeros_like(centre), event_dim)


def _refuse(name: str, distribution: Any) -> None:
    """Refuse a law that can't be moved by gradients, or whose image has no density."""
    chart_of(name, distribution, whiten=False)  # refuses a discrete one
    if not distribution.has_rsample:
        raise ValueError(
            f"site '{name}': expected reparameterized draws in the guide, through which the ascent moves them, got "
            f"{type(distribution).__name__}. Fix: a law with rsample, such as Conditional(dist.Normal, net) or a Flow over it."
        )
    inner = _unmasked(distribution)
    while isinstance(inner, Independent):
        inner = inner.base_dist
    if isinstance(inner, dist.Delta | dist.MaskedDistribution):
        raise ValueError(
            f"site '{name}': expected a density over every dim in the guide, got {type(inner).__name__}: its ELBO "
            "grows without bound as the law is scaled. Fix: Conditional(dist.Normal, net), or a mask of whole data "
            "around the site."
        )


def is_mean_field_normal(sites: dict[str, Site]) -> bool:
    r"""Whether $q(z \mid x) = \prod_j N(z_j; \mu_j(x), \sigma_j(x)^2)$ over the dims j of all sites.

    Args:
        sites: latent sites of a run of the guide with many draws: the moments of a site that hangs on another differ.
    """
    bases = [of_numbers(_unmasked(site["fn"])) for site in sites.values()]
    return all(type(b) is dist.Normal and _constant(b.loc) and _constant(b.scale) for b in bases)


def _constant(moment: Tensor) -> bool:
    return bool((moment == moment[:1]).all())


def _unmasked(distribution: Any) -> Any:
    return (
        distribution.base_dist
        if isinstance(distribution, dist.MaskedDistribution)
        else distribution
    )
