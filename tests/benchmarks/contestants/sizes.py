"""The models that everyone trains: sizes of networks and batches, and the data."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

STEPS = 200  # of an epoch


@dataclass(frozen=True)
class Size:
    """Networks and batch of one model.

    Attributes:
        event: shape of a datum.
        hidden: units of encoder and decoder; channels follow `channels` in convolutions.
        latent: latent dims.
        batch: data in a step.
        particles: K of the importance-weighted bound; 1 for the ELBO.
        pseudo_inputs: of the VampPrior.
        units: hidden units of each flow layer.
        layers: flow layers of the prior, and of the posterior.
        channels: of the two strided convolutions.
    """

    event: tuple[int, ...]
    hidden: int
    latent: int
    batch: int
    particles: int = 1
    pseudo_inputs: int = 0
    units: int = 128
    layers: int = 2
    channels: tuple[int, int] = (32, 64)

    @property
    def dim(self) -> int:
        """Pixels of a datum."""
        return prod(self.event)

    def data(self, batches: int = 1) -> Tensor:
        """Binary images, one batch or more."""
        return torch.rand(batches * self.batch, *self.event).bernoulli()


MLP = Size((784,), 400, 20, batch=128)
SMALL = Size((784,), 64, 20, batch=64)
CONV = Size((1, 28, 28), 0, 20, batch=64)
FLOWS = MLP
SMALL_FLOWS = Size((64,), 64, 8, batch=64)
IWAE = Size((784,), 200, 20, batch=32, particles=16)
DIGITS = Size((64,), 512, 16, batch=100)
VAMP = Size((784,), 400, 20, batch=128, pseudo_inputs=500)


@dataclass(frozen=True)
class Contestant:
    """A training step that is ready to be timed.

    Attributes:
        step: takes `num` steps.
        parameters: numbers that are trained.
        loss: in nats per datum, with the first weights: everyone has the same, up to the draws of weights and noise.
        num: steps of one call.
        warm_up: called before all others, where a call of `step` would take long.
    """

    step: Callable[[], object]
    parameters: int
    loss: float
    num: int = 1
    warm_up: Callable[[], object] = lambda: None


def count(parameters: Iterable[Tensor]) -> int:
    """How many numbers they hold."""
    return sum(p.numel() for p in parameters)


def count_in(module: nn.Module) -> int:
    """How many numbers a module trains."""
    return count(p for p in module.parameters() if p.requires_grad)
