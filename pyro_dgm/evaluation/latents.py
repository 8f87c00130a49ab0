"""What the latents of a trained pair do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..contract import DATA
from ..inference.estimating import at_least_one, blocks_of, placed
from ..inference.traces import Site, mixed, plate_names, plate_value
from .generation import encoded


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
        latent site → variances `(*plates, *event)`; `(variances > 0.01).sum()` counts the active units.

    Raises:
        ValueError: for fewer than 2 draws, or a site outside the data plate.

    References:
        Burda, Grosse, Salakhutdinov 2016, *Importance weighted autoencoders*, arXiv:1509.00519.
    """
    at_least_one(chunk=chunk)
    if num < 2:
        raise ValueError(f"active_units: expected num >= 2 draws per datum, got {num}.")
    blocks = [
        # A seed for every block: noise that repeats would be taken for variance that the data do not have.
        encoded(guide, block, num, mixed(seed, i))
        for i, block in enumerate(blocks_of(placed(guide, batch), max(1, chunk // num)))
    ]
    return {name: _between(torch.cat([_by_datum(name, block[name]) for block in blocks], 1)) for name in blocks[0]}


def _by_datum(name: str, site: Site) -> Tensor:
    """Draws with the data behind the particles `(K, N, …)`, whatever further plates there are."""
    value, names = plate_value(site), plate_names(site)
    if DATA not in names:
        raise ValueError(
            f"site '{name}': expected a site inside the plate '{DATA}', got a global one, which is the same for every "
            f"datum. Fix: move pyro.sample('{name}', …) under `with data_plate(x):`."
        )
    return value.movedim(names.index(DATA), 1)


def _between(z: Tensor) -> Tensor:
    """Variance of the means over the data, of draws `(K, N, *event)`."""
    return z.mean(0).var(0) - z.var(0).mean(0) / len(z)
