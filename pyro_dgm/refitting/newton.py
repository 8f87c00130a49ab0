"""Where a flow begins: the best normal at the iterates of a damped Newton ascent."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import pyro
import torch
from torch import Tensor

from .log_density import LogDensity

NUM_STEPS = 60
NUM_DRAWS = 64
LARGEST_DIM = 200  # above it a Hessian costs more than it brings
CAPS = (1e3, 3.0, 1.0, 0.1)  # the largest standard deviations that are tried in flat directions
LEAST_GAIN = 1e-8


@dataclass(frozen=True)
class Normal:
    """A normal $N(m, L L^T)$ with its ELBO, up to a constant."""

    loc: Tensor
    scale_tril: Tensor
    elbo: float


def best_normal(density: LogDensity, start: Tensor) -> Normal:
    r"""The normal of largest ELBO among $N(u_t, |H_t|^{-1})$ at the iterates $u_t$ of a Newton ascent from `start`.

    Its eigenvalues are absolute, so that a saddle is left uphill; steps are halved until the density grows. The
    mode itself may be a bad place (a funnel has its mode in its neck), which is why every iterate is a
    candidate, at several caps of its standard deviations.

    Args:
        density: of u `(D,)`.
        start: the first iterate, `(D,)`.

    References:
        Zhang, Carpenter, Gelman, Vehtari 2022, *Pathfinder: parallel quasi-Newton variational inference*, JMLR 23.
    """
    eps = torch.randn(NUM_DRAWS, len(start), dtype=start.dtype, device=start.device)
    best = Normal(start, 0.1 * torch.eye(len(start)).to(start), -inf)
    if len(start) > LARGEST_DIM:
        return best
    u = start
    for _ in range(NUM_STEPS):
        spectrum = _curvature(density, u)
        if spectrum is None:
            break
        curvature, axes = spectrum
        for cap in CAPS:
            candidate = _normal_at(density, u, curvature.clamp(min=cap**-2), axes, eps)
            if candidate.elbo > best.elbo:
                best = candidate
        moved = _step(density, u, curvature, axes)
        if moved is None:
            break
        u = moved
    return best


def _curvature(density: LogDensity, u: Tensor) -> tuple[Tensor, Tensor] | None:
    """Absolute eigenvalues and the eigenvectors of the Hessian; none where it is not finite or has no derivative."""
    with pyro.validation_enabled(False):
        try:
            hessian = torch.func.jacrev(torch.func.grad(density.at))(u)
        except (RuntimeError, NotImplementedError):  # an operation that is differentiable once
            return None
    if not bool(hessian.isfinite().all()):
        return None
    values, axes = torch.linalg.eigh((hessian + hessian.mT) / 2)
    return values.abs().clamp(min=1e-12), axes


def _normal_at(
    density: LogDensity, u: Tensor, curvature: Tensor, axes: Tensor, eps: Tensor
) -> Normal:
    r"""$N(u, A \Lambda^{-1} A^T)$ and its ELBO from the same noise for all."""
    # L of the QR decomposition of a square root: no Cholesky of a matrix that is nearly singular.
    root = axes * curvature.rsqrt()
    upper = torch.linalg.qr(root.mT).R
    scale_tril = (upper * upper.diagonal().sign()[:, None]).mT
    log_p = density.evaluate(u + eps @ scale_tril.mT)
    elbo = (log_p.mean() + scale_tril.diagonal().log().sum()).item()
    is_sound = bool(scale_tril.isfinite().all()) and elbo == elbo
    return Normal(u, scale_tril, elbo if is_sound else -inf)


def _step(density: LogDensity, u: Tensor, curvature: Tensor, axes: Tensor) -> Tensor | None:
    """The next iterate; none where no step is uphill, or none worth taking."""
    log_p, slope = density.gradient(u[None])
    along = axes.mT @ slope[0]
    damping = 0.0
    for _ in range(12):
        candidate = u + axes @ (along / (curvature + damping * curvature.max()))
        gain = float(density.evaluate(candidate[None]) - log_p)
        if gain > 0:
            return candidate if gain > LEAST_GAIN else None
        damping = max(4 * damping, 1e-5)
    return None
