"""normflows' flows; halves and orders change by swapping the halves."""

from __future__ import annotations

import normflows as nf
import torch
from normflows.flows.neural_spline.coupling import PiecewiseRationalQuadraticCoupling
from torch import nn

from .training import BATCH, BINS, DIM, LAYERS, UNITS, DenseNet, Flow


class SplineCoupling(nf.flows.Flow):
    """`CoupledRationalQuadraticSpline` with our network in place of its residual one, the first half as it is."""

    def __init__(self):
        super().__init__()
        self.coupling = PiecewiseRationalQuadraticCoupling(
            torch.arange(DIM) >= DIM // 2, DenseNet, num_bins=BINS, tails="linear", tail_bound=4.0
        )

    def forward(self, z):
        z, log_det = self.coupling.inverse(z, None)
        return z, log_det.view(-1)

    def inverse(self, z):
        z, log_det = self.coupling(z, None)
        return z, log_det.view(-1)


def coupling() -> Flow:
    layers: list[nn.Module] = []
    for _ in range(LAYERS):
        layers.append(nf.flows.AffineCouplingBlock(DenseNet(DIM // 2, DIM)))
        layers.append(nf.flows.Permute(DIM, mode="swap"))
    return _flow(layers)


def spline() -> Flow:
    layers: list[nn.Module] = []
    for _ in range(LAYERS):
        layers += [SplineCoupling(), nf.flows.Permute(DIM, mode="swap")]
    return _flow(layers)


def maf() -> Flow:
    layers: list[nn.Module] = []
    for _ in range(LAYERS):
        layers += [nf.flows.base.Reverse(_autoregressive()), nf.flows.Permute(DIM, mode="swap")]
    return _flow(layers)


def iaf() -> Flow:
    layers: list[nn.Module] = []
    for _ in range(LAYERS):
        layers += [_autoregressive(), nf.flows.Permute(DIM, mode="swap")]
    return _flow(layers)


def _autoregressive() -> nn.Module:
    """Its network of no block has no nonlinearity: one is put in."""
    layer = nf.flows.MaskedAffineAutoregressive(DIM, UNITS, num_blocks=0, use_residual_blocks=False)
    net = layer.autoregressive_net
    net.initial_layer = nn.Sequential(net.initial_layer, nn.SiLU())
    return layer


def _flow(layers: list[nn.Module]) -> Flow:
    flow = nf.NormalizingFlow(nf.distributions.DiagGaussian(DIM, trainable=False), layers)
    return Flow(flow, flow.log_prob, lambda: flow.sample(BATCH))
