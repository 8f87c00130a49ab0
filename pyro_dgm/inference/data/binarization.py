"""Grey values as fresh binary draws."""

from __future__ import annotations

import torch
from torch import Tensor


def binarize(x: Tensor) -> Tensor:
    r"""$b \sim \mathrm{Bern}(x)$: a fresh binary draw of grey values in [0, 1], or of bytes in 0…255.

    As the `transform` of `Batches` it gives dynamic binarization: a new draw each time an image is seen.

    Raises:
        ValueError: if values lie outside [0, 1] and are not bytes.

    Example:
        >>> binarize(torch.tensor([0, 255], dtype=torch.uint8))
        tensor([0., 1.])
    """
    grey = x / 255 if x.dtype == torch.uint8 else x
    if x.dtype != torch.uint8 and not bool(((grey >= 0) & (grey <= 1)).all()):
        raise ValueError(
            f"binarize: expected grey values in [0, 1] or uint8 bytes, got values from {x.min()} to {x.max()}. "
            "Fix: binarize(x / x.max())."
        )
    return torch.bernoulli(grey)
