"""Networks in plain torch, of the sizes and the kind that every contestant has."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, silu

from .sizes import Size


def dense(*sizes: int) -> nn.Sequential:
    """Linear layers with SiLU between them."""
    layers: list[nn.Module] = []
    for num_in, num_out in pairwise(sizes):
        layers += [nn.Linear(num_in, num_out), nn.SiLU()]
    return nn.Sequential(*layers[:-1])


def mlp_networks(size: Size) -> tuple[nn.Module, nn.Module]:
    """Encoder to location and raw scale, decoder to logits."""
    encoder = dense(size.dim, size.hidden, 2 * size.latent)
    return encoder, dense(size.latent, size.hidden, size.dim)


def conv_networks(size: Size) -> tuple[nn.Module, nn.Module]:
    """Two strided convolutions each way, over images whose height and width 4 divides."""
    num, height, width = size.event
    first, second = size.channels
    coarse = (second, height // 4, width // 4)
    features = second * height * width // 16
    encoder = nn.Sequential(
        nn.Conv2d(num, first, 3, stride=2, padding=1),
        nn.SiLU(),
        nn.Conv2d(first, second, 3, stride=2, padding=1),
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear(features, 2 * size.latent),
    )
    decoder = nn.Sequential(
        nn.Linear(size.latent, features),
        nn.Unflatten(-1, coarse),
        nn.SiLU(),
        nn.ConvTranspose2d(second, first, 3, stride=2, padding=1, output_padding=1),
        nn.SiLU(),
        nn.ConvTranspose2d(first, num, 3, stride=2, padding=1, output_padding=1),
    )
    return encoder, decoder


class MaskedLinear(nn.Linear):
    """A linear layer whose weights a mask `(out, in)` multiplies."""

    def __init__(self, mask: Tensor):
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask.float())

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.mask * self.weight, self.bias)


class MADE(nn.Module):
    """Shift and raw log-scale of each coordinate from those before it, by one hidden layer; zero at the start."""

    def __init__(self, dim: int, units: int, context: int = 0, *, reverse: bool = False):
        super().__init__()
        degree = torch.arange(dim).flip(0) if reverse else torch.arange(dim)
        lowest = -1 if context else 0
        hidden = torch.linspace(lowest, dim - 2, units).round()
        self.first = MaskedLinear(hidden[:, None] >= degree)
        self.last = MaskedLinear((degree[:, None] > hidden).repeat(2, 1))
        self.context = nn.Linear(context, units, bias=False) if context else None
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        hidden = self.first(x)
        if self.context is not None:
            hidden = hidden + self.context(context)
        shift, raw = self.last(silu(hidden)).chunk(2, dim=-1)
        return shift, 3 * (raw / 3).tanh()


def mades(size: Size, context: int = 0) -> nn.ModuleList:
    """One per flow layer, in alternating order."""
    found = nn.ModuleList()
    for number in range(size.layers):
        found.append(MADE(size.latent, size.units, context, reverse=number % 2 == 1))
    return found
