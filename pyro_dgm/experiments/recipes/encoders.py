"""What a guide draws, whatever its size: latents of q(z | x, c), and noise of q(u | x, c) between levels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyro.distributions as dist
from torch import nn

from ...programs.conditionals.conditional import POSITIVE_FLOOR, Conditional, StandardNormal
from ...programs.conditionals.gaussians import LowRankMultivariateNormal, MultivariateNormal
from ...programs.dequantization.noise import UnitUniform
from ...programs.flows.flow import Flow
from ...programs.flows.levels import Levels
from ...programs.networks.dense import mlp
from ..data.datasets import Data
from .layers import IAF, FlowKind, RealNVP
from .networks import Network
from .slots import Dequantizer, Encoder
from .units import on_data


@dataclass(frozen=True)
class Diagonal(Encoder):
    """A normal with independent dims.

    Args:
        floor: smallest scale.
    """

    floor: float = POSITIVE_FLOOR

    def build(self, latent: int, data: Data, network: Network) -> nn.Module:  # noqa: D102
        net = on_data(data, network.encode(data, 2 * latent))
        return Conditional(dist.Normal, net, floor=self.floor)


@dataclass(frozen=True)
class FullRank(Encoder):
    """A normal with any covariance.

    Args:
        floor: smallest scale.
    """

    floor: float = POSITIVE_FLOOR

    def build(self, latent: int, data: Data, network: Network) -> nn.Module:  # noqa: D102
        num_out = latent + latent * (latent + 1) // 2
        net = on_data(data, network.encode(data, num_out))
        return MultivariateNormal(net, latent, self.floor)


@dataclass(frozen=True)
class LowRank(Encoder):
    """A normal whose covariance is a diagonal and a few directions.

    Args:
        rank: number of directions.
        floor: smallest variance of the diagonal.
    """

    rank: int = 2
    floor: float = POSITIVE_FLOOR

    def build(self, latent: int, data: Data, network: Network) -> nn.Module:  # noqa: D102
        net = on_data(data, network.encode(data, (2 + self.rank) * latent))
        return LowRankMultivariateNormal(net, latent, self.rank, self.floor)


@dataclass(frozen=True)
class FlowPosterior(Encoder):
    """A flow over a normal with independent dims.

    Args:
        flow: its kind; one that samples fast.
        layers: number of layers.
        hidden: hidden sizes of each layer's network.
        features: size of what the network makes of the data, which the normal and each layer see.
    """

    flow: FlowKind = IAF()
    layers: int = 2
    hidden: Sequence[int] = (128,)
    features: int = 256

    def build(self, latent: int, data: Data, network: Network) -> nn.Module:  # noqa: D102
        embed = on_data(data, network.encode(data, self.features), nn.SiLU())
        base = Conditional(dist.Normal, mlp(self.features, 2 * latent))
        layers = self.flow.build((latent,), self.layers, self.hidden, self.features)
        return Flow(base, layers, embed)


@dataclass(frozen=True)
class Uniform(Dequantizer):
    """Uniform noise, which learns nothing."""

    def build(self, data: Data, network: Network) -> nn.Module:  # noqa: D102
        return UnitUniform()


@dataclass(frozen=True)
class FlowNoise(Dequantizer):
    """Variational dequantization: a flow onto the unit cell, given the data.

    Args:
        flow: its kind; one that samples fast.
        layers: number of layers.
        hidden: hidden sizes of each layer's network.
        features: size of what the network makes of the data, which each layer sees.
    """

    flow: FlowKind = RealNVP()
    layers: int = 4
    hidden: Sequence[int] = (128,)
    features: int = 128

    def build(self, data: Data, network: Network) -> nn.Module:  # noqa: D102
        embed = on_data(data, network.encode(data, self.features), nn.SiLU())
        layers = self.flow.build((data.dim,), self.layers, self.hidden, self.features)
        return Flow(StandardNormal(data.dim), [*layers, Levels(1)], embed)
