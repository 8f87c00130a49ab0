"""Priors p(z | c), whatever their sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ...programs.conditionals.conditional import StandardNormal
from ...programs.conditionals.priors import MixturePrior, VampPrior
from ...programs.flows.flow import Flow
from ...programs.networks.dense import Concat
from ..data.datasets import Data
from .layers import MAF, FlowKind
from .slots import Prior
from .units import num_context, typical_rows


@dataclass(frozen=True)
class Standard(Prior):
    """The standard normal."""

    def build(self, latent: int, data: Data, encoder: Callable[[], nn.Module]) -> nn.Module:  # noqa: D102
        return StandardNormal(latent)


@dataclass(frozen=True)
class FlowPrior(Prior):
    """A flow over another prior.

    Args:
        flow: its kind; one that scores given points fast.
        layers: number of layers.
        hidden: hidden sizes of each layer's network.
        base: the prior of its noise.
        conditional: whether it is p(z | c) where the data have a context c, in place of p(z).
    """

    flow: FlowKind = MAF()
    layers: int = 2
    hidden: Sequence[int] = (128,)
    base: Prior = Standard()
    conditional: bool = True

    def build(self, latent: int, data: Data, encoder: Callable[[], nn.Module]) -> nn.Module:  # noqa: D102
        base = self.base.build(latent, data, encoder)
        context = num_context(data)
        sees_context = self.conditional and context > 0
        size = context if sees_context else 0
        layers = self.flow.build((latent,), self.layers, self.hidden, size)
        if sees_context:
            return Flow(base, layers, Concat(nn.Identity()))
        flow = Flow(base, layers)
        return Unconditional(flow) if context else flow


class Unconditional(nn.Module):
    """p(z | c) = p(z): a conditional that is not told the context.

    Args:
        conditional: for p(z).
    """

    def __init__(self, conditional: nn.Module):
        super().__init__()
        self.conditional = conditional

    def forward(self, *contexts: Tensor) -> dist.TorchDistribution:
        """The distribution of z."""
        return self.conditional()


@dataclass(frozen=True)
class Mixture(Prior):
    """A mixture of normals, all learned.

    Args:
        components: how many.
    """

    components: int = 10

    def build(self, latent: int, data: Data, encoder: Callable[[], nn.Module]) -> nn.Module:  # noqa: D102
        return MixturePrior(latent, self.components)


@dataclass(frozen=True)
class Vamp(Prior):
    """The VampPrior: a mixture of the guide's own posteriors of learned pseudo-inputs, which start at training data.

    Args:
        pseudo_inputs: how many; all training data if there are fewer.
    """

    pseudo_inputs: int = 500

    def build(self, latent: int, data: Data, encoder: Callable[[], nn.Module]) -> nn.Module:  # noqa: D102
        rows = typical_rows(data, self.pseudo_inputs)
        unit = typical_rows(data, len(data.train)).std()
        shared = FullyObserved(encoder()) if data.has_mask else encoder()
        return VampPrior(shared, rows, unit)


class FullyObserved(nn.Module):
    """An encoder of data with a mask, for data of which all numbers are there.

    Args:
        encoder: called as `encoder(x, *context, mask)`.
    """

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor, *context: Tensor) -> dist.TorchDistribution:
        """The posterior of x."""
        return self.encoder(x, *context, torch.ones_like(x, dtype=torch.bool))


class WithoutMask(nn.Module):
    """p(z | c) of data with a mask: a prior is told the context alone, not what is missing.

    Args:
        prior: for p(z | c).
    """

    def __init__(self, prior: nn.Module):
        super().__init__()
        self.prior = prior

    def forward(self, *contexts: Tensor) -> dist.TorchDistribution:
        """The distribution of z; the last context is passed over if it is a mask."""
        has_mask = bool(contexts) and contexts[-1].dtype is torch.bool
        return self.prior(*contexts[:-1]) if has_mask else self.prior(*contexts)
