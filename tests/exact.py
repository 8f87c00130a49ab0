"""Laws in sixty-digit arithmetic: what the tests of masses compare with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from mpmath import mp, mpf
from torch import Tensor

DIGITS = 60

# P(X > x) of the standard laws, for x of either sign.
SURVIVAL: dict[Any, Callable] = {
    dist.Logistic: lambda x: 1 / (1 + mp.exp(x)),
    dist.Normal: lambda x: mp.erfc(x / mp.sqrt(2)) / 2,
    dist.Laplace: lambda x: mp.exp(-x) / 2 if x > 0 else 1 - mp.exp(x) / 2,
}


def mass(family: Any, lower: Any, upper: Any) -> Any:
    """P(lower < X < upper) of a standard symmetric law; tails are read from the side where they are small."""
    survival = SURVIVAL[family]
    if lower > 0:
        return survival(lower) - survival(upper)
    if upper < 0:
        return survival(-upper) - survival(-lower)
    return 1 - survival(-lower) - survival(upper)


def log_mass(components: list[tuple[Any, Any, float, float]], lower: Any, upper: Any) -> float:
    r"""$\log \sum_k w_k P_k$ over components (weight, family, location, scale)."""
    with mp.workdps(DIGITS):
        parts, outside = mpf(0), mpf(0)
        for w, family, loc, scale in components:
            a, b = ((mpf(x) - mpf(loc)) / mpf(scale) for x in (lower, upper))
            parts += w * mass(family, a, b)
            outside += w * (SURVIVAL[family](-a) + SURVIVAL[family](b))
        return float(mp.log1p(-outside) if outside < 0.5 else mp.log(parts))


# Bases of laws of levels: name -> (kernel, components). A mixture spreads its kernels around one location.
LOGITS, SHIFTS, SPREADS = (0.3, -1.0, 0.5), (-2.0, 0.25, 1.5), (0.5, 1.0, 4.0)
FAMILIES: dict[str, tuple[Any, int]] = {
    "logistic": (dist.Logistic, 1),
    "normal": (dist.Normal, 1),
    "laplace": (dist.Laplace, 1),
    "mixture_of_logistics": (dist.Logistic, 3),
    "mixture_of_normals": (dist.Normal, 3),
}


def base(family: str, loc: Tensor, scale: Tensor, dtype: torch.dtype | None = None) -> Any:
    """A base law; its parameters are computed in the dtype of `loc` and then cast, so that two dtypes share them."""
    kernel, num = FAMILIES[family]
    dtype = dtype or loc.dtype
    if num == 1:
        return kernel(loc.to(dtype), scale.to(dtype))
    logits, shifts, spreads = (torch.tensor(t, dtype=loc.dtype) for t in (LOGITS, SHIFTS, SPREADS))
    loc, scale = loc[..., None] + shifts * scale[..., None], spreads * scale[..., None]
    weights = dist.Categorical(logits=logits.to(dtype).expand(loc.shape))
    return dist.MixtureSameFamily(weights, kernel(loc.to(dtype), scale.to(dtype)))


def components(law: Any) -> list[tuple[Any, Any, float, float]]:
    """The components of a scalar base law, for `log_mass`."""
    if not isinstance(law, dist.MixtureSameFamily):
        return [(mpf(1), type(law), float(law.loc), float(law.scale))]
    kernels = law.component_distribution
    with mp.workdps(DIGITS):
        raw = [mp.exp(mpf(x)) for x in LOGITS]
        weights = [w / sum(raw) for w in raw]
    return [
        (w, type(kernels), float(m), float(s))
        for w, m, s in zip(weights, kernels.loc, kernels.scale, strict=True)
    ]
