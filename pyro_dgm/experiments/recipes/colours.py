"""Distributions of images as those of rows, for data that are kept in rows."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor, nn


class FlatEvent(dist.TorchDistribution):
    r"""$p(\mathrm{vec}\, x) = p(x)$: a distribution of images `(*event)` as one of vectors `(D,)`. Exact.

    Args:
        images: the distribution of images.
    """

    arg_constraints = {}

    def __init__(self, images: dist.TorchDistribution):
        self.images = images
        self.has_rsample = images.has_rsample
        num_numbers = images.event_shape.numel()
        super().__init__(images.batch_shape, torch.Size((num_numbers,)), validate_args=False)

    @constraints.dependent_property
    def support(self) -> constraints.Constraint:
        """That of each number."""
        of_images = self.images.support
        of_numbers = getattr(of_images, "base_constraint", of_images)
        return constraints.independent(of_numbers, 1)

    @property
    def mean(self) -> Tensor:
        """That of the images, where they have one."""
        return self._flat(self.images.mean)

    def expand(self, batch_shape: Any, _instance: Any = None) -> FlatEvent:
        """The same at another batch shape."""
        return FlatEvent(self.images.expand(torch.Size(batch_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        """In nats per image."""
        return self.images.log_prob(value.unflatten(-1, self.images.event_shape))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws as vectors."""
        return self._flat(self.images.sample(torch.Size(sample_shape)))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Reparameterized draws, where the images have them."""
        return self._flat(self.images.rsample(torch.Size(sample_shape)))

    def _flat(self, images: Tensor) -> Tensor:
        return images.flatten(-len(self.images.event_shape))


class FlatLikelihood(nn.Module):
    """A likelihood of images as one of rows.

    Args:
        images: conditional whose distributions are of images.
    """

    def __init__(self, images: nn.Module):
        super().__init__()
        self.images = images

    def forward(self, *contexts: Tensor) -> FlatEvent:
        """The distribution of rows."""
        return FlatEvent(self.images(*contexts))
