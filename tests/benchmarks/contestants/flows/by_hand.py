"""The floor: plain torch without any interface. Couplings never join their halves, densities are sums of squares."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ..networks import MADE
from .training import BATCH, DIM, LAYERS, UNITS, DenseNet, Draws, Flow, log_normal


def bounded(raw: Tensor) -> Tensor:
    return 3 * (raw / 3).tanh()


class CouplingByHand(nn.Module):
    """RealNVP whose halves never meet: the next layer moves the half that this one kept."""

    def __init__(self):
        super().__init__()
        self.nets = nn.ModuleList(DenseNet(DIM // 2, DIM) for _ in range(LAYERS))

    def forward(self, x: Tensor) -> Tensor:
        kept, moved = reversed(x.chunk(2, dim=-1))  # the last layer moved the first half
        log_det = 0.0
        for net in reversed(self.nets):
            shift, raw = net(kept).chunk(2, dim=-1)
            log_scale = bounded(raw)
            kept, moved = (moved - shift) * (-log_scale).exp(), kept
            log_det = log_det + log_scale.sum(-1)
        return log_normal(kept) + log_normal(moved) - log_det

    def draw(self) -> Draws:
        eps = torch.randn(BATCH, DIM)
        kept, moved = eps.chunk(2, dim=-1)
        log_det = 0.0
        for net in self.nets:
            shift, raw = net(kept).chunk(2, dim=-1)
            log_scale = bounded(raw)
            kept, moved = moved * log_scale.exp() + shift, kept
            log_det = log_det + log_scale.sum(-1)
        return torch.cat([kept, moved], dim=-1), log_normal(eps) - log_det


class AutoregressiveByHand(nn.Module):
    """Stacked MADEs in their fast direction: scores as MAF, draws as IAF."""

    def __init__(self):
        super().__init__()
        self.nets = nn.ModuleList(MADE(DIM, UNITS, reverse=i % 2 == 1) for i in range(LAYERS))

    def forward(self, x: Tensor) -> Tensor:
        z, log_det = self._through(reversed(self.nets), x)
        return log_normal(z) + log_det

    def draw(self) -> Draws:
        eps = torch.randn(BATCH, DIM)
        z, log_det = self._through(self.nets, eps)
        return z, log_normal(eps) - log_det

    def _through(self, nets: Iterable[nn.Module], x: Tensor) -> Draws:
        log_det = torch.zeros(())
        for net in nets:
            shift, log_scale = net(x)
            x, log_det = x * log_scale.exp() + shift, log_det + log_scale.sum(-1)
        return x, log_det


def coupling() -> Flow:
    module = CouplingByHand()
    return Flow(module, module, module.draw)


def maf() -> Flow:
    module = AutoregressiveByHand()
    return Flow(module, module, module.draw)


iaf = maf  # each in the direction that is fast
