"""The codec of a distribution, by its class: independent numbers, mixtures, normals with covariances, flows."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import numpy as np
import torch
from pyro.distributions import MaskedDistribution
from torch import Tensor
from torch.distributions import Independent
from torch.distributions import LowRankMultivariateNormal as TorchLowRank
from torch.distributions import MultivariateNormal as TorchMultivariateNormal
from torch.distributions import TransformedDistribution as TorchTransformed

from ..densities.precision import in_float64
from ..densities.scoring import log_prob_of
from ..programs.dequantization.noise import UnitCube
from ..programs.dequantization.quantization import Quantized
from ..programs.distributions.autoregressive import AutoregressiveDistribution
from ..programs.distributions.intervals import log_cdf, log_sf
from ..programs.distributions.mixtures import Mixture
from ..programs.likelihoods.colour import ColourLevels
from .digits import Codec, Digits, Edges, Masses, Tails, clipped
from .grids import MOST_BITS, Grid, Integers, Space, unit_grid
from .local import FINER, LocalBitsBack, device_of
from .normals import TriangularNormal
from .stack import Stack

LARGEST_TABLE = 2**25  # masses of a block
AT_ONCE = 2**20  # masses that are computed at once

FIX = (
    "independent numbers, such as Conditional(dist.Normal, net), a Flow over them, MixturePrior or VampPrior "
    "for latents; Bernoulli, Categorical, DiscretizedLogistic or counts for data"
)


@singledispatch
def grid_of(distribution: Any, bits: int) -> Grid:
    """A grid of ±16 standard deviations around the mean; of ±32 for a distribution that does not know them."""
    try:
        mean = distribution.mean.double().cpu().numpy()
        std = distribution.stddev.double().cpu().numpy()
    except (NotImplementedError, AttributeError):
        return Grid(-32.0, 2.0 ** (6 - bits), bits)
    return Grid(mean - 16 * std, 32 * std / 2**bits, bits)


@grid_of.register
def _(distribution: UnitCube, bits: int) -> Grid:
    return unit_grid(bits)


@singledispatch
def codec_of(distribution: Any, space: Space) -> Codec:
    """The codec of a distribution of batch shape `(B,)` over the cells of a space.

    Raises:
        NotImplementedError: for a distribution without one.
    """
    if distribution.event_shape:
        raise NotImplementedError(
            f"a distribution of numbers that can be coded, got {distribution}"
        )
    return _scalars(distribution, distribution.batch_shape, space)


@codec_of.register
def _(distribution: Independent, space: Space) -> Codec:  # type: ignore[type-arg]
    base: Any = distribution
    while isinstance(base, Independent):
        base = base.base_dist
    if base.event_shape:
        raise NotImplementedError(f"independent numbers, got independent {base}")
    if isinstance(base, MaskedDistribution):
        return codec_of(base, space)
    return _scalars(base, distribution.batch_shape + distribution.event_shape, space)


@codec_of.register
def _(distribution: MaskedDistribution, space: Space) -> Codec:
    raise NotImplementedError("no mask, got one")


@codec_of.register
def _(distribution: TorchTransformed, space: Space) -> Codec:
    if not distribution.event_shape:
        return _scalars(distribution, distribution.batch_shape, space)
    space = _require_grid(distribution, space)
    if len(distribution.event_shape) > 1:
        raise NotImplementedError(
            f"a flow over vectors, got one over {tuple(distribution.event_shape)}"
        )
    base = distribution.base_dist
    if base.event_shape != distribution.event_shape:
        raise NotImplementedError(
            f"a flow that keeps the number of dims, got one from {tuple(base.event_shape)} to "
            f"{tuple(distribution.event_shape)}"
        )
    grid = grid_of(base, min(space.bits + FINER, MOST_BITS))
    return LocalBitsBack(distribution, codec_of(base, grid), grid, space)


@codec_of.register(TorchMultivariateNormal)
@codec_of.register(TorchLowRank)
def _(distribution: Any, space: Space) -> Codec:
    wide = in_float64(distribution)
    return TriangularNormal(wide.loc, wide.scale_tril, _require_grid(distribution, space))


@codec_of.register
def _(distribution: UnitCube, space: Space) -> Codec:
    shape = distribution.batch_shape + distribution.event_shape
    grid = _require_grid(distribution, space)

    def tails(edges: Edges) -> Masses:
        at = np.clip(grid.edges(edges), 0.0, 1.0)
        return np.stack([at, 1 - at])

    return Digits(tails, shape, grid.size)


@codec_of.register
def _(distribution: Quantized, space: Any) -> Codec:
    density = distribution.density.expand(distribution.batch_shape)
    return codec_of(density, space.grid)


@codec_of.register
def _(distribution: AutoregressiveDistribution, space: Space) -> Codec:
    raise NotImplementedError(
        f"independent numbers, got an autoregressive {distribution.weights.owner}, "
        "whose numbers need each other"
    )


@codec_of.register
def _(distribution: ColourLevels, space: Space) -> Codec:
    raise NotImplementedError(
        "independent numbers, got a ColourLogisticMixture, whose channels need each other"
    )


@codec_of.register
def _(distribution: Mixture, space: Space) -> Codec:
    return MixtureCodec(distribution, space)


def _require_grid(distribution: Any, space: Space) -> Grid:
    """The grid of a density; integers have none."""
    if isinstance(space, Grid):
        return space
    raise NotImplementedError(f"a mass function, got the density {distribution}")


def _scalars(distribution: Any, shape: torch.Size, space: Any) -> Digits:
    """The codec of independent numbers."""
    wide = in_float64(distribution)
    try:
        wide.cdf(space.values(torch.zeros(shape, dtype=torch.int64)).to(device_of(wide)))
    except (NotImplementedError, AttributeError):
        if isinstance(space, Grid):
            raise NotImplementedError(f"a distribution with a cdf, got {distribution}") from None
        return Digits(_table(wide, shape, space.size), shape, space.size)
    return Digits(_by_cdf(wide, space), shape, space.size)


def _by_cdf(distribution: Any, space: Grid | Integers) -> Tails:
    """F and 1 - F at edges by the distribution's own."""
    device = device_of(distribution)

    def tails(edges: Edges) -> Masses:
        at = torch.from_numpy(space.edges(edges)).to(device)
        if isinstance(space, Integers):
            below = distribution.cdf(at)
            above = 1 - below
        else:
            below = log_cdf(distribution, at).exp()
            above = log_sf(distribution, at).exp()
        return clipped(below.cpu().numpy(), above.cpu().numpy(), edges, space.size)

    return tails


def _table(distribution: Any, shape: torch.Size, size: int) -> Tails:
    """Both at edges by sums of masses.

    Raises:
        NotImplementedError: where they are more than `LARGEST_TABLE`.
    """
    num_numbers = max(1, shape.numel())
    if size * num_numbers > LARGEST_TABLE:
        raise NotImplementedError(
            f"a distribution with a cdf for so many integers, up to {size - 1:,}, got {distribution}, each of "
            f"whose masses is summed up, {LARGEST_TABLE:,} at most"
        )
    masses = []
    device = device_of(distribution)
    for levels in torch.arange(size, dtype=torch.float64, device=device).split(
        max(1, AT_ONCE // num_numbers)
    ):
        value = levels.reshape(-1, *[1] * len(shape)).expand(-1, *shape)
        mass = log_prob_of(distribution, value).exp().nan_to_num(0.0)
        masses.append(mass.double().cpu().expand(value.shape))
    none = torch.zeros((1, *shape), dtype=torch.float64)
    stacked = torch.cat(masses)
    below = torch.cat([none, stacked.cumsum(0)]).numpy()
    above = torch.cat([stacked.flip(0).cumsum(0).flip(0), none]).numpy()

    def tails(edges: Edges) -> Masses:
        parts = [np.take_along_axis(table, edges[None], 0) for table in (below, above)]
        return np.concatenate(parts)

    return tails


class MixtureCodec:
    r"""$-\log p(z) = -\log p(k) - \log p(z \mid k) + \log p(k \mid z)$: the component's index comes back.

    Args:
        distribution: $\sum_k p(k)\, p(z \mid k)$ of batch shape `(B,)`.
        space: of z.
    """

    def __init__(self, distribution: Mixture, space: Space):
        self.distribution = distribution
        self.space = space
        (self.num_data,) = distribution.batch_shape
        self.log_weights = distribution.log_weights.double()

    def push(self, stack: Stack, cells: Tensor) -> None:
        """Add cells `(B, D)`."""
        index = self._given(cells).pop(stack)
        self._component(index).push(stack, cells)
        self._index(self.log_weights.expand(self.num_data, -1)).push(stack, index)

    def pop(self, stack: Stack) -> Tensor:
        """Take cells `(B, D)` off."""
        index = self._index(self.log_weights.expand(self.num_data, -1)).pop(stack)
        cells = self._component(index).pop(stack)
        self._given(cells).push(stack, index)
        return cells

    def _index(self, log_weights: Tensor) -> Digits:
        """The codec of an index, from log masses `(B, K)`."""
        categories = torch.distributions.Categorical(logits=log_weights, validate_args=False)
        size = log_weights.shape[-1]
        return Digits(
            _table(categories, torch.Size([self.num_data]), size), torch.Size([self.num_data]), size
        )

    def _given(self, cells: Tensor) -> Digits:
        r"""$p(k \mid z)$ at the middle of the cells."""
        distribution = self.distribution
        value = self.space.values(cells).to(self.log_weights)
        every = torch.arange(len(self.log_weights), device=value.device)
        contexts = [context.unsqueeze(-2) for context in distribution.contexts]
        components = in_float64(distribution.component(every, *contexts))
        log_p = components.log_prob(value.unsqueeze(-1 - len(distribution.event_shape)))
        return self._index((self.log_weights + log_p).log_softmax(-1))

    def _component(self, index: Tensor) -> Codec:
        """The codec of each datum's component."""
        distribution = self.distribution
        index = index.to(self.log_weights.device)
        chosen = distribution.component(index, *distribution.contexts)
        return codec_of(chosen.expand(distribution.batch_shape), self.space)
