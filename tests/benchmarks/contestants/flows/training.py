"""Sizes, and a training step: the same loss, gradient and optimizer for everyone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log, pi

import torch
from torch import Tensor, nn

from ..sizes import Contestant, count_in

DIM, LAYERS, BATCH, UNITS, BINS = 64, 8, 256, 128, 8
RATE = 1e-5  # small: weights that run off to infinity, or to denormal numbers, would be timed too
Draws = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Flow:
    """A flow of any library.

    Attributes:
        module: holds what is trained.
        log_prob: density of points `(B, D)`.
        draw: a batch of its own draws, and their density.
    """

    module: nn.Module
    log_prob: Callable[[Tensor], Tensor]
    draw: Callable[[], Draws]


def log_normal(z: Tensor) -> Tensor:
    return -0.5 * (z.square().sum(-1) + z.shape[-1] * log(2 * pi))


def scoring(build: Callable[[], Flow], *, compiled: bool = False) -> Contestant:
    """Mean of -log p(x) over given points."""
    flow, x = build(), torch.randn(BATCH, DIM)
    log_prob = torch.compile(flow.log_prob) if compiled else flow.log_prob
    return _training(flow.module, lambda: -log_prob(x).mean())


def drawing(build: Callable[[], Flow], *, compiled: bool = False) -> Contestant:
    """Mean of log q(z) - log N(z) over the flow's own draws."""
    flow = build()
    draw = torch.compile(flow.draw) if compiled else flow.draw

    def loss() -> Tensor:
        z, log_q = draw()
        return (log_q - log_normal(z)).mean()

    return _training(flow.module, loss)


def _training(module: nn.Module, loss: Callable[[], Tensor]) -> Contestant:
    optimizer = torch.optim.Adam(module.parameters(), lr=RATE, fused=True)
    first = loss().item()

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return Contestant(step, count_in(module), first)


class DenseNet(nn.Sequential):
    """An MLP with SiLU, which takes the context that some libraries hand over."""

    def __init__(self, num_in: int, num_out: int):
        super().__init__(nn.Linear(num_in, UNITS), nn.SiLU(), nn.Linear(UNITS, num_out))
        self.hidden_features = UNITS  # nflows and normflows scale the bins by it

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return super().forward(x)
