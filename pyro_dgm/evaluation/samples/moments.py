"""The Fréchet distance of two samples: the distance of two normals with their means and covariances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...display.tabular import Tabular
from ...inference.process.states import estimation_mode
from ...inference.run.sessions import require_positive
from .pools import over_halves, two_samples


@dataclass(frozen=True)
class Frechet(Tabular):
    r"""A squared Fréchet (2-Wasserstein) distance of normals, in squared units of the features; at least 0.

    Attributes:
        value: the distance of the samples' moments, biased upward by about a constant over the sample size.
        stderr: its standard error from random halves; up to twice too large where the distributions agree.
        bias: about how much of the value is bias: mean value of the halves minus value. It is itself noisy.
        num_real: number m of real data.
        num_fake: number n of fakes.
        dim: number D of features.
    """

    value: float
    stderr: float
    bias: float
    num_real: int
    num_fake: int
    dim: int

    def __str__(self) -> str:
        return (
            f"Fréchet distance {self.value:.4g} ± {self.stderr:.2g}, "
            f"of which about {self.bias:.2g} is bias "
            f"({self.num_real} real, {self.num_fake} fake, {self.dim} features)"
        )


def frechet(*, real: Any, fake: Any, num_resamples: int = 20, seed: int = 0) -> Frechet:
    r"""$|\mu_x - \mu_y|^2 + \mathrm{tr}(\Sigma_x + \Sigma_y - 2 (\Sigma_x \Sigma_y)^{1/2})$ of the features.

    Exact for normal distributions; of others it sees means and covariances alone. On the 2,048 features of
    one Inception network it is known as FID; here the features are the caller's. With centred features
    $\Sigma = R^T R$ the trace of the root is the nuclear norm of $R_x R_y^T$: no root of a matrix that has
    none, and fewer data than features are welcome. It is biased upward by about a constant over the sample
    size: compare results of equal sizes.

    Args:
        real: features `(m, *event)`, an array or a tensor.
        fake: features `(n, *event)`.
        num_resamples: number of halves for standard error and bias.
        seed: of the halves; the random state outside stays as it is.

    Raises:
        ValueError: for samples of fewer than four points, of different event shapes, or with NaN.

    References:
        Dowson, Landau 1982, *The Fréchet distance between multivariate normal distributions*; Heusel et al.
        2017, arXiv:1706.08500; Chong, Forsyth 2020, *Effectively unbiased FID*, arXiv:1911.07023.

    Example:
        >>> x = torch.randn(100, 3, dtype=torch.float64)
        >>> round(frechet(real=x, fake=x + 2).value, 9)
        12.0
    """
    require_positive(num_resamples=num_resamples)
    real, fake = two_samples("frechet", real, fake, at_least=4)
    with estimation_mode(real, seed=seed):
        value = _frechet(real, fake).item()
        halves = over_halves(_frechet, real, fake, num_resamples)
    return Frechet(
        value=value,
        stderr=halves.std(correction=0).item(),
        bias=halves.mean().item() - value,
        num_real=len(real),
        num_fake=len(fake),
        dim=real.shape[1],
    )


def _frechet(x: Tensor, y: Tensor) -> Tensor:
    """The distance of two samples `(m, D)`, `(n, D)`: from their means, and from their spreads."""
    root_x = _root(x)
    root_y = _root(y)
    trace_of_root = torch.linalg.svdvals(root_x @ root_y.mT).sum()
    of_spreads = root_x.square().sum() + root_y.square().sum() - 2 * trace_of_root
    of_means = (x.mean(0) - y.mean(0)).square().sum()
    return of_means + of_spreads.clamp(min=0)


def _root(x: Tensor) -> Tensor:
    r"""R with $R^T R$ the covariance of a sample `(n, D)`."""
    centred = x - x.mean(0)
    return torch.linalg.qr(centred, mode="r").R / (len(x) - 1) ** 0.5
