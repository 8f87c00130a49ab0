"""What the latents of a trained pair do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..inference.estimating import at_least_one, placed
from .generation import encode


def active_units(guide: Callable, *batch: Any, num: int = 50, chunk: int = 20_000, seed: int = 0) -> dict[str, Tensor]:
    r"""$\mathrm{Var}_x\left(E_{q(z \mid x)}[z]\right)$ of every latent dim; a unit is active above 0.01.

    The mean of K draws stands for $E[z]$; the share of their own variance, $E_x \mathrm{Var}(z \mid x) / K$, is taken
    off, so that the estimate is unbiased (and may fall below 0 for an idle unit).

    Args:
        guide: a Pyro guide.
        batch: the data, observation first.
        num: draws K per datum, at least 2.
        chunk: how many (draw, datum) pairs are in memory at once.
        seed: of the draws.

    Returns:
        latent site → variances `(*event)`; `(variances > 0.01).sum()` counts the active units.

    Raises:
        ValueError: for fewer than 2 draws.

    References:
        Burda, Grosse, Salakhutdinov 2016, *Importance weighted autoencoders*, arXiv:1509.00519.
    """
    at_least_one(chunk=chunk)
    if num < 2:
        raise ValueError(f"active_units: expected num >= 2 draws per datum, got {num}.")
    batch = placed(guide, batch)
    rows = max(1, chunk // num)
    blocks = [
        encode(
            guide, *(b[i : i + rows] if isinstance(b, Tensor) and b.dim() > 0 else b for b in batch), num=num, seed=seed
        )
        for i in range(0, len(batch[0]), rows)
    ]
    return {name: _between(torch.cat([block[name] for block in blocks], dim=1)) for name in blocks[0]}


def _between(z: Tensor) -> Tensor:
    """Variance of the means over the data, of draws `(K, N, *event)`."""
    return z.mean(0).var(0) - z.var(0).mean(0) / len(z)
