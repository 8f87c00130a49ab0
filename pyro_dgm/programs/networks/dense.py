"""Networks that act on the rightmost event dims and broadcast over all others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log, prod

import torch
from torch import Tensor, nn

Activation = Callable[[], nn.Module]


def cast(x: Tensor, module: nn.Module) -> Tensor:
    """Give `x` the dtype of the module's parameters: data may be stored as integer levels."""
    return x.to(next(module.parameters()).dtype)


class MLP(nn.Sequential):
    r"""$h_L \circ \dots \circ h_1$ with $h_i(x) = a(W_i x + b_i)$ and a linear last layer.

    Args:
        sizes: input, hidden and output sizes, `(in, *hidden, out)`.
        activation: builds the nonlinearity between the layers.

    Shape:
        `(*batch, in)` of any dtype, integer levels included  ->  `(*batch, out)`.

    Raises:
        ValueError: if fewer than two sizes are given.

    Example:
        >>> MLP([3, 16, 2])(torch.zeros(7, 5, 3)).shape
        torch.Size([7, 5, 2])
    """

    def __init__(self, sizes: Sequence[int], activation: Activation = nn.SiLU):
        _at_least_two("MLP", sizes)
        layers: list[nn.Module] = []
        for num_in, num_out in zip(sizes[:-1], sizes[1:], strict=True):
            layers += [nn.Linear(num_in, num_out), activation()]
        super().__init__(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(cast(x, self))


def zeroed(network: nn.Sequential) -> nn.Sequential:
    """The network with a last layer of zeros: whatever reads it starts at its own start."""
    for parameter in network[-1].parameters():
        nn.init.zeros_(parameter)
    return network


def mlp(*sizes: int, activation: Activation = nn.SiLU) -> MLP:
    r"""The `MLP` of the given sizes: `mlp(8, 256, 128)` maps `(*batch, 8)` to `(*batch, 128)`."""
    return MLP(sizes, activation)


class GatedLinear(nn.Module):
    r"""$h(x) = (W x + b) \odot \sigma(V x + c)$, the gated dense layer.

    Shape:
        `(*batch, in)`  ->  `(*batch, out)`.

    References:
        Dauphin et al. 2017, *Language modeling with gated convolutional networks*, arXiv:1612.08083.
    """

    def __init__(self, num_in: int, num_out: int):
        super().__init__()
        self.both = nn.Linear(num_in, 2 * num_out)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.both(x).chunk(2, dim=-1)
        return value * gate.sigmoid()


class GatedMLP(nn.Sequential):
    r"""Gated dense hidden layers and a linear last one.

    Args:
        sizes: input, hidden and output sizes, `(in, *hidden, out)`.

    Shape:
        `(*batch, in)`  ->  `(*batch, out)`.

    References:
        Tomczak, Welling 2018, *VAE with a VampPrior*, arXiv:1705.07120 (its networks).
    """

    def __init__(self, sizes: Sequence[int]):
        _at_least_two("GatedMLP", sizes)
        hidden = [GatedLinear(a, b) for a, b in zip(sizes[:-2], sizes[1:-1], strict=True)]
        super().__init__(*hidden, nn.Linear(sizes[-2], sizes[-1]))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(cast(x, self))


def gated_mlp(*sizes: int) -> GatedMLP:
    """The `GatedMLP` of the given sizes."""
    return GatedMLP(sizes)


class Concat(nn.Module):
    r"""$\mathrm{net}([c_1, \dots, c_n])$: contexts joined along the last dim, leading dims broadcast.

    Shape:
        `(*batch, C_1), …, (*batch, C_n)`  ->  the output of `net` on `(*batch, C_1 + … + C_n)`.

    Example:
        >>> Concat(mlp(2 + 10, 3))(torch.zeros(7, 5, 2), torch.zeros(5, 10)).shape
        torch.Size([7, 5, 3])
    """

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, *contexts: Tensor) -> Tensor:
        return self.net(concat_inputs(*contexts))


def concat_inputs(*contexts: Tensor, event_dim: int = 1) -> Tensor:
    """Concatenate along the first event dim after broadcasting the leading dims, in the widest dtype."""
    dtype = contexts[0].dtype
    for context in contexts[1:]:
        dtype = torch.promote_types(dtype, context.dtype)
    batch = torch.broadcast_shapes(*(c.shape[:-event_dim] for c in contexts))
    return torch.cat(
        [c.to(dtype).expand(*batch, *c.shape[-event_dim:]) for c in contexts], dim=-event_dim
    )


class Rescale(nn.Module):
    r"""$x \mapsto 2 \frac{x - \mathrm{low}}{\mathrm{high} - \mathrm{low}} - 1$: levels onto $[-1, 1]$.

    Example:
        >>> Rescale(0, 16)(torch.tensor([0, 8, 16]))
        tensor([-1.,  0.,  1.])
    """

    def __init__(self, low: float, high: float):
        super().__init__()
        if not low < high:
            raise ValueError(f"Rescale: expected low < high, got low={low}, high={high}.")
        self.low, self.high = (
            float(low),
            float(high),
        )  # floats lift uint8 levels, which would overflow

    def forward(self, x: Tensor) -> Tensor:
        return 2 * (x - self.low) / (self.high - self.low) - 1


class LevelUnits(nn.Module):
    r"""$(r^\mu, r^s) \mapsto ((L - 1)\, \sigma(r^\mu),\ r^s + \log L - 2)$: raw outputs to the units of levels.

    Stands between a network and `DiscretizedLogistic` or `DiscretizedNormal`: locations stay within the levels, and
    outputs of 0 are one bump in the middle, whose scale is 0.14 of the range.

    Args:
        levels: number L of levels.
        dim: the dim whose halves are locations and log-scales: -1 for vectors, -3 for the channels of images.

    Shape:
        `(*batch, 2 * D)`  ->  the same.

    Raises:
        ValueError: if there are fewer than 2 levels, or that dim has an odd size.

    Example:
        >>> LevelUnits(256)(torch.zeros(2))
        tensor([127.5000,   3.5452])
    """

    def __init__(self, levels: int, dim: int = -1):
        super().__init__()
        if levels < 2:
            raise ValueError(f"LevelUnits: expected at least 2 levels, got {levels}.")
        self.levels, self.dim = levels, dim

    def forward(self, raw: Tensor) -> Tensor:
        if raw.shape[self.dim] % 2:
            raise ValueError(
                f"LevelUnits: expected locations then log-scales, halves of dim {self.dim}; got {tuple(raw.shape)}. "
                "Fix: LevelUnits(levels, dim=-3) for images, or an even number of outputs."
            )
        loc, log_scale = raw.chunk(2, dim=self.dim)
        return torch.cat(
            [(self.levels - 1) * loc.sigmoid(), log_scale + log(self.levels) - 2], dim=self.dim
        )


class ConvEncoder(nn.Module):
    r"""Strided convolutions, then one linear layer: an image to a context vector.

    Args:
        shape: `(channels, height, width)` of the image.
        out: size of the context.
        channels: output channels of the stride-2 convolutions; each one halves height and width (rounded up).

    Shape:
        `(*batch, channels, height, width)` of any dtype  ->  `(*batch, out)`.
    """

    def __init__(self, shape: Sequence[int], out: int, channels: Sequence[int] = (32, 64)):
        super().__init__()
        self.shape = tuple(shape)
        layers: list[nn.Module] = []
        for num_in, num_out in zip([shape[0], *channels[:-1]], channels, strict=True):
            layers += [nn.Conv2d(num_in, num_out, 3, stride=2, padding=1), nn.SiLU()]
        self.convolutions = nn.Sequential(*layers)
        self.last = nn.Linear(prod(_pyramid(shape, channels)[-1]), out)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-3:] != self.shape:
            raise ValueError(
                f"ConvEncoder: expected images (*batch, {', '.join(map(str, self.shape))}), got {tuple(x.shape)}. "
                "Fix: reshape the data, or pass shape=(channels, height, width) of your images."
            )
        images = cast(x, self).reshape(-1, *self.shape)
        return self.last(self.convolutions(images).flatten(1)).reshape(*x.shape[:-3], -1)


class ConvDecoder(nn.Module):
    r"""One linear layer, then transposed convolutions: a code to an image, the mirror of `ConvEncoder`.

    Args:
        code: size of the code.
        shape: `(channels, height, width)` of the output.
        channels: hidden channels, finest level first, as in `ConvEncoder`.

    Shape:
        `(*batch, code)`  ->  `(*batch, channels, height, width)`.
    """

    def __init__(self, code: int, shape: Sequence[int], channels: Sequence[int] = (32, 64)):
        super().__init__()
        pyramid = _pyramid(shape, channels)
        self.coarsest = pyramid[-1]
        self.first = nn.Linear(code, prod(self.coarsest))
        layers: list[nn.Module] = []
        for small, large in zip(pyramid[:0:-1], pyramid[-2::-1], strict=True):
            extra = (1 - large[1] % 2, 1 - large[2] % 2)
            up = nn.ConvTranspose2d(
                small[0], large[0], 3, stride=2, padding=1, output_padding=extra
            )
            layers += [nn.SiLU(), up]
        self.convolutions = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        images = self.convolutions(self.first(cast(z, self)).reshape(-1, *self.coarsest))
        return images.reshape(*z.shape[:-1], *images.shape[1:])


def _pyramid(shape: Sequence[int], channels: Sequence[int]) -> list[tuple[int, ...]]:
    """Shapes (channels, height, width) after each stride-2 convolution, the input first."""
    shapes = [tuple(shape)]
    for num in channels:
        _, height, width = shapes[-1]
        shapes.append((num, (height + 1) // 2, (width + 1) // 2))
    return shapes


def _at_least_two(name: str, sizes: Sequence[int]) -> None:
    if len(sizes) < 2:
        raise ValueError(
            f"{name}: expected sizes (in, *hidden, out), got {tuple(sizes)}. Fix: sizes=[in, out]."
        )
