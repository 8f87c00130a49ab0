"""Splits of data in an order of a seed's own."""

from __future__ import annotations

import torch
from torch import Tensor


def shuffle(images: Tensor, seed: int) -> Tensor:
    """The images in an order of the seed's own; the random state outside stays as it is."""
    generator = torch.Generator().manual_seed(seed)
    return images[torch.randperm(len(images), generator=generator)]
