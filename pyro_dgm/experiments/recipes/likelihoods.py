"""Likelihoods p(x | z, c), whatever their sizes: of levels, of colours, of real numbers, or chosen by the data."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ...programs.conditionals.deterministic import Deterministic as DeterministicDecoder
from ...programs.likelihoods import categories, colour, continuous, discretized
from ...programs.networks.units import LevelUnits
from ..data.datasets import Data, Kind
from . import families
from .colours import FlatLikelihood
from .networks import Network, image_shape, num_channels
from .slots import Likelihood
from .units import Chain, LocationScale, Unstandardize, train_units

FEW_LEVELS = 32  # up to here a location that starts near 0 finds its level by itself


@dataclass(frozen=True)
class Automatic(Likelihood):
    """By the data: Bernoulli of zeros and ones, DiscretizedLogistic of levels, NegativeBinomial of counts, else Normal.

    With a dequantizer it is Normal.
    """

    def build(  # noqa: D102
        self, num_in: int, data: Data, network: Network, *, is_density: bool = False
    ) -> nn.Module:
        chosen = Normal() if is_density else choose(data)
        return chosen.build(num_in, data, network, is_density=is_density)


def choose(data: Data) -> Likelihood:
    """The likelihood of data as they are, by their kind."""
    by_kind: dict[Kind, Likelihood] = {
        Kind.BINARY: families.Bernoulli(),
        Kind.LEVELS: DiscretizedLogistic(),
        Kind.COUNTS: families.NegativeBinomial(),
        Kind.REAL: Normal(),
    }
    return by_kind[data.kind]


@dataclass(frozen=True)
class DiscretizedLogistic(Likelihood):
    """Masses of levels under a logistic.

    Args:
        min_scale: smallest scale, in levels.
        bounded: whether locations stay within the levels and start in their middle; default: beyond 32 levels.
    """

    min_scale: float = 0.3
    bounded: bool | None = None

    def build(  # noqa: D102
        self, num_in: int, data: Data, network: Network, *, is_density: bool = False
    ) -> nn.Module:
        levels = levels_of(self, data)
        net = level_network(num_in, data, network, self.bounded)
        return discretized.DiscretizedLogistic(net, levels, self.min_scale)


@dataclass(frozen=True)
class DiscretizedNormal(Likelihood):
    """Masses of levels under a normal.

    Args:
        min_scale: smallest scale, in levels.
        bounded: whether locations stay within the levels and start in their middle; default: beyond 32 levels.
    """

    min_scale: float = 0.3
    bounded: bool | None = None

    def build(  # noqa: D102
        self, num_in: int, data: Data, network: Network, *, is_density: bool = False
    ) -> nn.Module:
        levels = levels_of(self, data)
        net = level_network(num_in, data, network, self.bounded)
        return discretized.DiscretizedNormal(net, levels, self.min_scale)


@dataclass(frozen=True)
class DiscretizedLogisticMixture(Likelihood):
    """Masses of levels under a mixture of logistics, for each pixel and channel alone.

    Args:
        components: of the mixture.
        min_scale: smallest scale, in levels.
    """

    components: int = 5
    min_scale: float = 0.0

    def build(  # noqa: D102
        self, num_in: int, data: Data, network: Network, *, is_density: bool = False
    ) -> nn.Module:
        levels = levels_of(self, data)
        net = network.decode(data, num_in, 3 * num_channels(data), self.components)
        return discretized.DiscretizedLogisticMixture(net, levels, self.components, self.min_scale)


@dataclass(frozen=True)
class ColourLogisticMixture(Likelihood):
    """Masses of the colours of each pixel under a mixture of logistics, later channels given earlier ones.

    Args:
        components: of the mixture.
        min_scale: smallest scale, in levels.
    """

    components: int = 5
    min_scale: float = 0.0

    def build(  # noqa: D102
        self, num_in: int, data: Data, network: Network, *, is_density: bool = False
    ) -> nn.Module:
        levels = levels_of(self, data)
        channels, height, width = image_shape(data)
        num_pairs = channels * (channels - 1) // 2
        num_planes = (1 + 2 * channels + num_pairs) * self.components
        rows = network.decode(data, num_in, num_planes)
        net = Chain(rows, nn.Unflatten(-1, (num_planes, height, width)))
        return FlatLikelihood(
            colour.ColourLogisticMixture(net, levels, self.components, channels, self.min_scale)
        )


@dataclass(frozen=True)
class Categorical(Likelihood):
    """A probability for each level, whose order does not matter."""

    def build(  # noqa: D102
        self, num_in: int, data: Data, network: Network, *, is_density: bool = False
    ) -> nn.Module:
        levels = levels_of(self, data)
        net = network.decode(data, num_in, num_channels(data), levels)
        return categories.Categorical(net, levels)


@dataclass(frozen=True)
class Normal(Likelihood):
    """A normal with one learned scale, in the unit of each column of the training data.

    Args:
        scale: where it starts, in standard deviations of the data.
    """

    scale: float = 1.0

    def build(  # noqa: D102
        self, num_in: int, data: Data, network: Network, *, is_density: bool = False
    ) -> nn.Module:
        net = network.decode(data, num_in, num_channels(data))
        return LocationScale(continuous.Normal(net, self.scale), *train_units(data))


@dataclass(frozen=True)
class Laplace(Likelihood):
    """The L1 loss with a scale for each number."""

    def build(  # noqa: D102
        self, num_in: int, data: Data, network: Network, *, is_density: bool = False
    ) -> nn.Module:
        net = network.decode(data, num_in, 2 * num_channels(data))
        return LocationScale(continuous.Laplace(net), *train_units(data))


@dataclass(frozen=True)
class StudentT(Likelihood):
    """Heavy tails, with degrees of freedom, location and scale for each number."""

    def build(  # noqa: D102
        self, num_in: int, data: Data, network: Network, *, is_density: bool = False
    ) -> nn.Module:
        net = network.decode(data, num_in, 3 * num_channels(data))
        return LocationScale(continuous.StudentT(net), *train_units(data))


@dataclass(frozen=True)
class Deterministic(Likelihood):
    """x = G(z), for adversarial training alone: it scores no datum."""

    def build(  # noqa: D102
        self, num_in: int, data: Data, network: Network, *, is_density: bool = False
    ) -> nn.Module:
        net = network.decode(data, num_in, num_channels(data))
        return DeterministicDecoder(Chain(net, Unstandardize(*train_units(data))))


def level_network(num_in: int, data: Data, network: Network, bounded: bool | None) -> nn.Module:  # noqa: FBT001
    """Locations and log-scales in levels, two for each number."""
    levels = data.levels or 0
    net = network.decode(data, num_in, 2 * num_channels(data))
    if bounded or (bounded is None and levels > FEW_LEVELS):
        return Chain(net, LevelUnits(levels))
    return net


def levels_of(likelihood: Likelihood, data: Data) -> int:
    """The number of levels of the data.

    Raises:
        ValueError: if they have none.
    """
    if data.levels is None:
        name = type(likelihood).__name__
        fix = "NegativeBinomial" if data.kind is Kind.COUNTS else "Normal"
        raise ValueError(
            f"model.likelihood: expected data with a number of levels for {name}, "
            f"got {data.kind.value} data. Fix: --model.likelihood={fix}."
        )
    return data.levels
