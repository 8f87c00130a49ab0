r"""What lies between and beside points of the latent space: $E[x \mid z]$ along lines and arcs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ...contract import DATA
from ...inference.run.data import repeat_rows
from ...inference.run.estimates import estimating, placed
from ...inference.run.generation import mean_of
from ...inference.run.session import require_positive
from ...inference.run.traces import (
    Site,
    plate_depth,
    plate_names,
    plate_value,
    sample_sites,
    vectorized,
)
from ..chains.coordinates import Chart, chart_of

Interpolator = Callable[[Tensor, Tensor, Tensor], Tensor]


def decode(
    model: Callable,
    z: Tensor,
    *context: Any,
    latent: str = "z",
    site: str | None = None,
    num: int = 1,
    seed: int = 0,
) -> Tensor:
    r"""$E[x \mid z, c]$: the mean of an observation where one latent site is clamped.

    Other latent sites are drawn from the model, and averaged over; there are none in a VAE, and the mean is exact.

    Args:
        model: a Pyro program that generates when its first argument is `None`.
        z: points of the latent space, such as `encode(guide, x)["z"].mean(0)`.
        context: the program's further arguments, one row for each point.
        latent: name of the site that is clamped.
        site: name of the observation; default: the site whose value the program returns.
        num: draws of the other latents.
        seed: of these draws.

    Shape:
        z: `(S, *plates, *event)`  ->  `(S, *event of x)`.

    Raises:
        ValueError: if the program has no such site, or z is of another shape.
        NotImplementedError: if the observation has no mean, as a flow likelihood.

    Example:
        >>> from pyro_dgm import LatentVariableModel, Normal, StandardNormal
        >>> model = LatentVariableModel(StandardNormal(2), Normal(torch.nn.Linear(2, 3)))
        >>> decode(model, torch.zeros(5, 2)).shape
        torch.Size([5, 3])
    """
    require_positive(num=num)
    z, *given = placed(model, (z, *context))
    with estimating(model, seed=seed):
        return _Clamped(model, tuple(given), latent).mean(z, site, num)


def traverse(
    model: Callable,
    z: Tensor,
    *context: Any,
    dims: Sequence[int] | None = None,
    span: float = 3.0,
    steps: int = 7,
    latent: str = "z",
    whiten: bool = True,
) -> Tensor:
    r"""$E[x \mid z]$ as one coordinate of z takes the values −span, …, span, and the others stay.

    Args:
        model: a Pyro program that generates when its first argument is `None`.
        z: points to start from, `(S, *event)`.
        context: the program's further arguments, one row for each point.
        dims: coordinates to move along; all of them if `None`.
        span: how far, in the unit of z, or of the base of a flow prior.
        steps: number of values.
        latent: name of the latent site.
        whiten: move in the base space of a flow prior, where −3, …, 3 is where the mass is.

    Shape:
        `(len(dims), steps, S, *event of x)`.

    Raises:
        ValueError: as `decode`, and for a discrete latent.

    Example:
        >>> from pyro_dgm import LatentVariableModel, Normal, StandardNormal
        >>> model = LatentVariableModel(StandardNormal(2), Normal(torch.nn.Linear(2, 3)))
        >>> traverse(model, torch.zeros(5, 2), steps=9).shape
        torch.Size([2, 9, 5, 3])
    """
    require_positive(steps=steps)
    z, *given = placed(model, (z, *context))
    with estimating(model, seed=0):
        clamped = _Clamped(model, tuple(given), latent)
        zeta = clamped.coordinates(z, whiten=whiten)
        dims = range(zeta.shape[1]) if dims is None else dims
        moved = zeta.expand(len(dims), steps, *zeta.shape).clone()
        values = torch.linspace(-span, span, steps).to(zeta)
        for row, dim in enumerate(dims):
            moved[row, :, :, dim] = values[:, None]
        return clamped.along(moved, whiten=whiten)


def interpolate(
    model: Callable,
    start: Tensor,
    end: Tensor,
    *context: Any,
    steps: int = 8,
    path: Interpolator | None = None,
    latent: str = "z",
    whiten: bool = True,
) -> Tensor:
    r"""$E[x \mid z_t]$ on a path of the latent space from one point to another, t = 0, …, 1.

    Args:
        model: a Pyro program that generates when its first argument is `None`.
        start: points `(S, *event)`.
        end: as many points.
        context: the program's further arguments, one row for each pair of points.
        steps: number of points on the path, both ends among them.
        path: `lerp` unless given, or `slerp`: any function `(zeta0, zeta1, t) -> zeta` of coordinates `(S, D)`.
        latent: name of the latent site.
        whiten: take the path in the base space of a flow prior, so that it does not leave the mass.

    Shape:
        `(steps, S, *event of x)`.

    Raises:
        ValueError: as `decode`, and for a discrete latent.

    Example:
        >>> from pyro_dgm import LatentVariableModel, Normal, StandardNormal
        >>> model = LatentVariableModel(StandardNormal(2), Normal(torch.nn.Linear(2, 3)))
        >>> interpolate(model, torch.zeros(5, 2), torch.ones(5, 2), steps=9, path=slerp).shape
        torch.Size([9, 5, 3])
    """
    require_positive(steps=steps)
    start, end, *given = placed(model, (start, end, *context))
    with estimating(model, seed=0):
        clamped = _Clamped(model, tuple(given), latent)
        first, last = (clamped.coordinates(z, whiten=whiten) for z in (start, end))
        points = [(path or lerp)(first, last, t) for t in torch.linspace(0, 1, steps).to(first)]
        return clamped.along(torch.stack(points), whiten=whiten)


def lerp(start: Tensor, end: Tensor, t: Tensor) -> Tensor:
    r"""$(1 - t)\, \zeta_0 + t\, \zeta_1$.

    Example:
        >>> lerp(torch.tensor([0.0]), torch.tensor([4.0]), torch.tensor(0.25))
        tensor([1.])
    """
    return (1 - t) * start + t * end


def slerp(start: Tensor, end: Tensor, t: Tensor) -> Tensor:
    r"""$\frac{\sin((1 - t) \omega)}{\sin \omega} \zeta_0 + \frac{\sin(t \omega)}{\sin \omega} \zeta_1$, ω their angle.

    Draws of a standard normal in many dims lie near a sphere, which this path follows and the straight line leaves.
    Straight where the angle is 0 or π.

    References:
        Shoemake 1985, *Animating rotation with quaternion curves*; White 2016, arXiv:1609.04468.

    Example:
        >>> slerp(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), torch.tensor(0.5))
        tensor([0.7071, 0.7071])
    """
    omega = torch.nn.functional.cosine_similarity(start, end, dim=-1).clamp(-1, 1).acos()[..., None]
    bent = omega.sin() > 1e-4
    safe = torch.where(bent, omega, 1.0)
    arc = (((1 - t) * safe).sin() * start + (t * safe).sin() * end) / safe.sin()
    return torch.where(bent, arc, lerp(start, end, t))


class _Clamped:
    """A program whose latent site is given: S points, as data where there is a context and as particles elsewhere."""

    def __init__(self, model: Callable, context: tuple, latent: str):
        self.model, self.context, self.latent = model, context, latent
        trace = poutine.trace(model).get_trace(None, *context)
        self.depth, sites = plate_depth(trace), dict(sample_sites(trace))
        if latent not in sites or plate_names(sites[latent]) != [DATA]:
            inside = [name for name, site in sites.items() if plate_names(site) == [DATA]]
            raise ValueError(
                f"latent: expected a site inside the plate '{DATA}' alone, one of {inside}, got '{latent}'. "
                f"Fix: latent='{next(iter(inside), 'z')}'."
            )
        self.distribution = sites[latent]["fn"]

    def coordinates(self, z: Tensor, *, whiten: bool) -> Tensor:
        r"""$\zeta$ `(S, D)` of points `(S, *event)`."""
        return self._chart(whiten=whiten).of(self._checked(z)).reshape(len(z), -1)

    def along(self, zeta: Tensor, *, whiten: bool) -> Tensor:
        """The mean of the observation at coordinates `(*lines, S, D)`: `(*lines, S, *event of x)`."""
        chart, lines = self._chart(whiten=whiten), zeta.shape[:-2]
        z, *_ = chart.at(
            zeta.reshape(*zeta.shape[:-1], *chart.shape[len(self.distribution.batch_shape) :]),
            len(lines) + 1,
        )
        again = tuple(repeat_rows(c, lines.numel()) for c in self.context)
        mean = _Clamped(self.model, again, self.latent).mean(z.flatten(0, len(lines)))
        return mean.reshape(*lines, -1, *mean.shape[1:])

    def mean(self, z: Tensor, site: str | None = None, num: int = 1) -> Tensor:
        """The mean of the observation at points `(S, *event)`, over `num` draws of the other latents."""
        in_rows = any(isinstance(c, Tensor) and c.dim() > 0 for c in self.context)
        event, between = self._checked(z).shape[1:], [1] * (self.depth - 1)
        value = (
            z.reshape(1, *between, -1, *event)
            if in_rows
            else repeat_rows(z, num).reshape(-1, *between, 1, *event)
        )
        program = poutine.condition(self.model, data={self.latent: value})
        run = vectorized(program, num if in_rows else len(value), self.depth)
        observation = _observation(poutine.trace(run).get_trace(None, *self.context), site)
        mean = plate_value(observation, mean_of(observation["name"], observation["fn"]))
        mean = mean.movedim(plate_names(observation).index(DATA), 1)
        return mean.reshape(num, len(z), *mean.shape[2:]).mean(0)

    def _chart(self, *, whiten: bool) -> Chart:
        return chart_of(self.latent, self.distribution, whiten=whiten)

    def _checked(self, z: Tensor) -> Tensor:
        expected = tuple(self.distribution.event_shape)
        if tuple(z.shape[1:]) != expected:
            raise ValueError(
                f"site '{self.latent}': expected points of shape (S, {', '.join(map(str, expected))}), got "
                f"{tuple(z.shape)}. Fix: encode(guide, x)['{self.latent}'].mean(0)."
            )
        return z


def _observation(trace: Trace, site: str | None) -> Site:
    """A site by name, or the one whose value the program returned."""
    sites, returned = dict(sample_sites(trace)), trace.nodes["_RETURN"]["value"]
    name = (
        next((n for n, s in sites.items() if s["value"] is returned), None)
        if site is None
        else site
    )
    if name not in sites:
        raise ValueError(
            f"site: expected the name of an observation among {[*sites]}, got {site!r}. Fix: site='x'."
        )
    return sites[name]
