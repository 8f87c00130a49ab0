"""A density without latents: a flow on the data themselves, dequantized if they are integers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import AffineTransform

from ...programs.conditionals.conditional import StandardNormal
from ...programs.dequantization.noise import NoiseGuide
from ...programs.dequantization.quantization import dequantized
from ...programs.flows.bijector import Bijector
from ...programs.flows.flow import Flow
from ...programs.flows.levels import Levels
from ...programs.flows.pointwise import Pointwise
from ...programs.flows.whitening import FixedAffine
from ...programs.guides import EmptyGuide
from ...programs.models import DensityModel
from ...programs.networks.dense import Concat
from ..data.datasets import Data, Kind
from .encoders import Uniform
from .layers import MAF, FlowKind
from .networks import Dense, Network
from .recipe import ModelAndGuide, Recipe
from .slots import Dequantizer
from .units import num_context, require_complete, train_units


@dataclass(frozen=True)
class Density(Recipe):
    """A flow on the data, trained by maximum likelihood: exact of real numbers, a bound on the mass of integers.

    Args:
        flow: its kind; one that scores given points fast. Of images `MultiscaleRealNVP` or `ImageRealNVP`.
        layers: number of layers.
        hidden: hidden sizes of each layer's network.
        dequantizer: noise between integers; without a part where data are real numbers.
        network: what the network of a `FlowNoise` is made of.
    """

    flow: FlowKind = MAF()
    layers: int = 5
    hidden: Sequence[int] = (128,)
    dequantizer: Dequantizer = Uniform()
    network: Network = Dense()

    def build(self, data: Data) -> nn.Module:  # noqa: D102
        require_complete("Density", data)
        context = num_context(data)
        layers = self.flow.build(data.event_shape, self.layers, self.hidden, context)
        embed = Concat(nn.Identity()) if context else None
        flow = Flow(StandardNormal(data.dim), [*layers, last_layer(data)], embed)
        density = DensityModel(flow)
        if data.kind is Kind.REAL:
            return ModelAndGuide(density, EmptyGuide())
        noise = self.dequantizer.build(data=data, network=self.network)
        return ModelAndGuide(dequantized(density, levels=data.levels), NoiseGuide(noise))


def last_layer(data: Data) -> Bijector:
    """Onto the range of the levels; else to the place and the spread of the training data."""
    if data.levels is not None:
        return Levels(data.levels)
    loc, scale = train_units(data)
    if loc.dim() == 0:
        return Pointwise(AffineTransform(loc.item(), scale.item()))
    return _placed(loc, scale)


def _placed(loc: Tensor, scale: Tensor) -> FixedAffine:
    layer = FixedAffine(len(loc))
    layer.place(loc, torch.diag(scale))
    return layer
