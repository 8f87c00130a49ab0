"""Pyro's transforms; a density clears its cache at each step, or else it scores the last batch again."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import transforms
from pyro.nn import AutoRegressiveNN, DenseNN
from torch import Tensor, nn

from .training import BATCH, DIM, LAYERS, UNITS, Draws, Flow

REVERSED = torch.arange(DIM).flip(0)


def coupling() -> Flow:
    """It splits at a fixed place, so that each coupling needs a permutation beside it."""
    layers: list[transforms.Transform] = []
    half = DIM // 2
    for _ in range(LAYERS):
        net = DenseNN(half, [UNITS], [half, half], nonlinearity=nn.SiLU())
        layers += [transforms.AffineCoupling(half, net), transforms.Permute(REVERSED)]
    return _flow(layers, layers)


def maf() -> Flow:
    layers = _autoregressive()
    return _flow(layers, [layer.inv for layer in layers])


def iaf() -> Flow:
    layers = _autoregressive()
    return _flow(layers, layers)


def _autoregressive() -> list[transforms.Transform]:
    layers = []
    for i in range(LAYERS):
        order = REVERSED if i % 2 else torch.arange(DIM)
        net = AutoRegressiveNN(DIM, [UNITS], permutation=order, nonlinearity=nn.SiLU())
        layers.append(transforms.AffineAutoregressive(net))
    return layers


def _flow(layers: list[transforms.Transform], maps: list[transforms.Transform]) -> Flow:
    pyro.enable_validation(False)
    base = dist.Normal(torch.zeros(DIM), torch.ones(DIM)).to_event(1)

    def log_prob(x: Tensor) -> Tensor:
        for layer in layers:
            layer.clear_cache()
        return dist.TransformedDistribution(base, maps).log_prob(x)

    def draw() -> Draws:
        flow = dist.TransformedDistribution(base, maps)
        z = flow.rsample((BATCH,))
        return z, flow.log_prob(z)

    module = nn.ModuleList(layer for layer in layers if isinstance(layer, nn.Module))
    return Flow(module, log_prob, draw)
