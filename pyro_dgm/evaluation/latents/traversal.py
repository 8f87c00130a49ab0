r"""What a model makes of points, lines and arcs of its latent space: $E[x \mid z]$."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from ...contract import PyroProgram
from ...inference.run.sessions import require_positive, session
from .clamping import ClampedProgram

Interpolator = Callable[[Tensor, Tensor, Tensor], Tensor]


def decode(
    model: PyroProgram,
    z: Tensor,
    *context: Any,
    latent: str = "z",
    site: str | None = None,
    num: int = 1,
    seed: int = 0,
) -> Tensor:
    r"""$E[x \mid z, c]$: the mean of an observation where one latent site is clamped.

    Other latent sites are drawn from the model, and averaged over; there are none in a VAE, and the mean is
    exact.

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
    with session(model, None, z, *context, num=num, seed=seed) as opened:
        clamped = ClampedProgram(model, opened.context, latent)
        return clamped.mean(opened.batch[0], site, num)


def traverse(
    model: PyroProgram,
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
        TypeError: for one number in place of `dims`.
        ValueError: as `decode`, for a discrete latent, or a coordinate that the latent does not have.

    Example:
        >>> from pyro_dgm import LatentVariableModel, Normal, StandardNormal
        >>> model = LatentVariableModel(StandardNormal(2), Normal(torch.nn.Linear(2, 3)))
        >>> traverse(model, torch.zeros(5, 2), steps=9).shape
        torch.Size([2, 9, 5, 3])
    """
    require_positive(steps=steps)
    with session(model, None, z, *context) as opened:
        clamped = ClampedProgram(model, opened.context, latent)
        zeta = clamped.coordinates(opened.batch[0], whiten=whiten)
        num_coordinates = zeta.shape[1]
        dims = range(num_coordinates) if dims is None else dims
        _check_dims(dims, num_coordinates)
        values = torch.linspace(-span, span, steps, dtype=zeta.dtype, device=zeta.device)
        lines = _lines_through(zeta, dims, values)
        return clamped.mean_along(lines, whiten=whiten)


def _lines_through(zeta: Tensor, dims: Sequence[int], values: Tensor) -> Tensor:
    """Copies of points in which one coordinate takes each value: `(len(dims), len(values), S, D)`."""
    lines = zeta.expand(len(dims), len(values), *zeta.shape).clone()
    for row, dim in enumerate(dims):
        lines[row, :, :, dim] = values[:, None]
    return lines


def _check_dims(dims: Any, num: int) -> None:
    """Refuse coordinates that the latent does not have."""
    if isinstance(dims, Integral):
        raise TypeError(
            f"dims: expected a sequence of coordinates, got {dims!r}. Fix: dims=[0], for the first."
        )
    missing = [dim for dim in dims if not -num <= dim < num]
    if missing:
        raise ValueError(
            f"dims: expected coordinates of a latent that has {num}, got {missing}. "
            f"Fix: dims=range({num})."
        )


def interpolate(
    model: PyroProgram,
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
        path: `lerp` unless given, or `slerp`: any function `(zeta0, zeta1, t) -> zeta` of coordinates
            `(S, D)`.
        latent: name of the latent site.
        whiten: take the path in the base space of a flow prior, so that it does not leave the mass.

    Shape:
        `(steps, S, *event of x)`.

    Raises:
        TypeError: if `path` is no function.
        ValueError: as `decode`, and for a discrete latent.

    Example:
        >>> from pyro_dgm import LatentVariableModel, Normal, StandardNormal
        >>> model = LatentVariableModel(StandardNormal(2), Normal(torch.nn.Linear(2, 3)))
        >>> interpolate(model, torch.zeros(5, 2), torch.ones(5, 2), steps=9, path=slerp).shape
        torch.Size([9, 5, 3])
    """
    require_positive(steps=steps)
    path = lerp if path is None else path
    if not callable(path):
        raise TypeError(
            f"path: expected a function (zeta0, zeta1, t) -> zeta, got {path!r}. "
            "Fix: path=dgm.diagnostics.slerp."
        )
    with session(model, None, start, end, *context) as opened:
        first, last, *given = opened.batch
        clamped = ClampedProgram(model, tuple(given), latent)
        zeta_start = clamped.coordinates(first, whiten=whiten)
        zeta_end = clamped.coordinates(last, whiten=whiten)
        times = torch.linspace(0, 1, steps, dtype=first.dtype).to(zeta_start)
        points = [path(zeta_start, zeta_end, t) for t in times]
        return clamped.mean_along(torch.stack(points), whiten=whiten)


def lerp(start: Tensor, end: Tensor, t: Tensor) -> Tensor:
    r"""$(1 - t)\, \zeta_0 + t\, \zeta_1$.

    Example:
        >>> lerp(torch.tensor([0.0]), torch.tensor([4.0]), torch.tensor(0.25))
        tensor([1.])
    """
    return (1 - t) * start + t * end


def slerp(start: Tensor, end: Tensor, t: Tensor) -> Tensor:
    r"""$(\sin((1 - t) \omega)\, \zeta_0 + \sin(t \omega)\, \zeta_1) / \sin \omega$, ω their angle.

    Draws of a standard normal in many dims lie near a sphere, which this path follows and the straight line
    leaves. Straight where the angle is 0 or π.

    References:
        Shoemake 1985, *Animating rotation with quaternion curves*; White 2016, arXiv:1609.04468.

    Example:
        >>> slerp(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), torch.tensor(0.5))
        tensor([0.7071, 0.7071])
    """
    cosine = torch.nn.functional.cosine_similarity(start, end, dim=-1).clamp(-1, 1)
    omega = cosine.acos()[..., None]
    is_bent = omega.sin() > 1e-4
    safe_omega = torch.where(is_bent, omega, 1.0)
    from_start = ((1 - t) * safe_omega).sin() * start
    from_end = (t * safe_omega).sin() * end
    arc = (from_start + from_end) / safe_omega.sin()
    return torch.where(is_bent, arc, lerp(start, end, t))
