"""nflows' flows; it has no validation to switch off."""

from __future__ import annotations

import torch
from nflows import flows, transforms
from nflows.distributions import StandardNormal
from torch import nn
from torch.nn.functional import silu

from .training import BATCH, BINS, DIM, LAYERS, UNITS, DenseNet, Flow


def coupling() -> Flow:
    layers = [transforms.AffineCouplingTransform(_mask(i), DenseNet) for i in range(LAYERS)]
    return _flow(transforms.CompositeTransform(layers))


def spline() -> Flow:
    layers = []
    for i in range(LAYERS):
        layers.append(
            transforms.PiecewiseRationalQuadraticCouplingTransform(
                _mask(i), DenseNet, num_bins=BINS, tails="linear", tail_bound=4.0
            )
        )
    return _flow(transforms.CompositeTransform(layers))


def maf() -> Flow:
    return _flow(_autoregressive())


def iaf() -> Flow:
    return _flow(transforms.InverseTransform(_autoregressive()))


def _mask(number: int) -> torch.Tensor:
    return (torch.arange(DIM) < DIM // 2) == number % 2


def _autoregressive() -> nn.Module:
    layers: list[nn.Module] = []
    for _ in range(LAYERS):
        layers.append(
            transforms.MaskedAffineAutoregressiveTransform(
                DIM, UNITS, num_blocks=0, use_residual_blocks=False, activation=silu
            )
        )
        layers.append(transforms.ReversePermutation(DIM))
    return transforms.CompositeTransform(layers)


def _flow(transform: nn.Module) -> Flow:
    flow = flows.Flow(transform, StandardNormal((DIM,)))
    return Flow(flow, flow.log_prob, lambda: flow.sample_and_log_prob(BATCH))
