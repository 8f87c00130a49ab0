"""Networks that act on the rightmost event dims and broadcast over all others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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


def _at_least_two(name: str, sizes: Sequence[int]) -> None:
    if len(sizes) < 2:
        raise ValueError(
            f"{name}: expected sizes (in, *hidden, out), got {tuple(sizes)}. Fix: sizes=[in, out]."
        )
