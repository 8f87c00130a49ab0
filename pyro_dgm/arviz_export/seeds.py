"""Runs that differ in their seed as chains of one export."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..contract import PyroProgram
from .containers import container_of, groups_of
from .datatree import as_one_chain
from .export import to_arviz

if TYPE_CHECKING:
    import xarray

CHAIN = "chain"


def seeds_to_arviz(
    pairs: Iterable[tuple[PyroProgram, PyroProgram]],
    *batch: Any,
    seeds: Sequence[int] | None = None,
    seed: int = 0,
    **options: Any,
) -> Any:
    r"""Draws of the same data by several pairs, each pair a chain: R-hat and spread then compare seeds.

    Chains of a sampler walk in one posterior. These come from models that were trained apart, whose latents may mean
    other things (rotated, in another order): R-hat near 1 says that the seeds agree on a quantity, and a large one that
    it depends on the seed. Groups that differ by seed (draws, statistics, `per_datum`, prior) get the dim `chain` with
    the coordinate `seed`; observed and constant data stand there once.

    Args:
        pairs: model and guide of each seed, such as `Replicates(…).pairs`.
        batch: as in `to_arviz`.
        seeds: of the pairs, the coordinate; default 0, 1, ….
        seed: of the draws.
        options: of `to_arviz`.

    Returns:
        As `to_arviz`, with a chain for each seed; of a single pair with the chains that `to_arviz` cuts its draws into.

    Raises:
        ValueError: without a pair, for another number of seeds; as `to_arviz`.

    Example:
        >>> import torch
        >>> import pyro.distributions as dist
        >>> from pyro_dgm import Bernoulli, Conditional, StandardNormal, VAE, mlp
        >>> vaes = []
        >>> for _ in range(3):
        ...     encoder = Conditional(dist.Normal, mlp(9, 4))
        ...     vaes.append(VAE(StandardNormal(2), Bernoulli(mlp(2, 9)), encoder))
        >>> found = seeds_to_arviz([(v.model, v.guide) for v in vaes], torch.ones(5, 9), num=50)
        >>> dict(found.posterior["z"].sizes)
        {'chain': 3, 'draw': 50, 'datum': 5, 'z_dim_0': 2}
    """
    exports = [to_arviz(m, g, *batch, seed=seed, **options) for m, g in pairs]
    labels = list(range(len(exports))) if seeds is None else list(seeds)
    if not exports or len(labels) != len(exports):
        raise ValueError(
            f"seeds_to_arviz: expected a pair for each of {len(labels)} seeds, got {len(exports)}. "
            "Fix: seeds_to_arviz(runs.pairs, x, seeds=runs.seeds)."
        )
    groups = [groups_of(export) for export in exports]
    joined = {}
    for name, first in groups[0].items():
        parts = [group[name] for group in groups]
        joined[name] = first if _is_of_data(name) else _as_chains(parts, labels)
    return container_of(joined)


def _is_of_data(name: str) -> bool:
    return name in ("observed_data", "constant_data")


def _as_chains(parts: Sequence[xarray.Dataset], labels: Sequence[int]) -> xarray.Dataset:
    """Datasets one after the other along the chains, numbered anew: a chain each where they are several."""
    import xarray

    if len(parts) > 1:
        parts = [as_one_chain(part) for part in parts]
    whole = xarray.concat(
        parts,
        dim=CHAIN,
        combine_attrs="override",
        coords="minimal",
        compat="override",
        join="exact",
    )
    per_pair = whole.sizes[CHAIN] // len(parts)
    own = np.repeat(np.asarray(labels), per_pair)
    return whole.assign_coords({CHAIN: np.arange(len(own)), "seed": (CHAIN, own)})
