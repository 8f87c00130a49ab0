"""Dense networks and the concatenation of contexts: they act on the last dim, all others are batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from ...display.representation import SettingsFirst
from ..requirements import require_network

Activation = Callable[[], nn.Module]


def cast(x: Tensor, module: nn.Module) -> Tensor:
    """Give `x` the dtype of the module's parameters: data may be stored as integer levels."""
    return x.to(next(module.parameters()).dtype)


class MLP(SettingsFirst, nn.Sequential):
    r"""$h_L \circ \dots \circ h_1$ with $h_i(x) = a(W_i x + b_i)$ and a linear last layer.

    Args:
        sizes: input, hidden and output sizes, `(in, *hidden, out)`.
        activation: builds the nonlinearity between the layers.

    Shape:
        `(*batch, in)` of any dtype, integer levels included  ->  `(*batch, out)`.

    Raises:
        ValueError: if fewer than two sizes are given.
        TypeError: if `activation` is a module in place of what builds one.

    Example:
        >>> MLP([3, 16, 2])(torch.zeros(7, 5, 3)).shape
        torch.Size([7, 5, 2])
    """

    def __init__(
        self,
        sizes: Sequence[int],
        activation: Activation = nn.SiLU,
    ):
        _require_two_sizes("MLP", sizes)
        _require_builder("MLP", activation)
        layers: list[nn.Module] = []
        for num_in, num_out in pairwise(sizes):
            layers.append(nn.Linear(num_in, num_out))
            layers.append(activation())
        super().__init__(*layers[:-1])
        self.sizes = tuple(sizes)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(cast(x, self))

    def extra_repr(self) -> str:
        return f"sizes={self.sizes}"


def mlp(*sizes: int, activation: Activation = nn.SiLU) -> MLP:
    r"""The `MLP` of the given sizes: `mlp(8, 256, 128)` maps `(*batch, 8)` to `(*batch, 128)`."""
    return MLP(sizes, activation)


def zeroed(network: nn.Sequential) -> nn.Sequential:
    """Fill the last layer with zeros, so that the outputs are 0 at the start; return the network."""
    for parameter in network[-1].parameters():
        nn.init.zeros_(parameter)
    return network


class GatedLinear(SettingsFirst):
    r"""$h(x) = (W x + b) \odot \sigma(V x + c)$, the gated dense layer.

    Args:
        num_in: size of the input.
        num_out: size of the output.

    Shape:
        `(*batch, num_in)`  ->  `(*batch, num_out)`.

    References:
        Dauphin et al. 2017, *Language modeling with gated convolutional networks*, arXiv:1612.08083.
    """

    def __init__(self, num_in: int, num_out: int):
        super().__init__()
        self.num_in = num_in
        self.num_out = num_out
        self.both = nn.Linear(num_in, 2 * num_out)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.both(x).chunk(2, dim=-1)
        return value * gate.sigmoid()

    def extra_repr(self) -> str:
        return f"{self.num_in}, {self.num_out}"


class GatedMLP(SettingsFirst, nn.Sequential):
    r"""$h_L \circ \dots \circ h_1$ with gated layers, $h_i(x) = (W_i x + b_i) \odot \sigma(V_i x + c_i)$.

    The last layer $h_L$ is linear.

    Args:
        sizes: input, hidden and output sizes, `(in, *hidden, out)`.

    Shape:
        `(*batch, in)` of any dtype  ->  `(*batch, out)`.

    Raises:
        ValueError: if fewer than two sizes are given.

    References:
        Tomczak, Welling 2018, *VAE with a VampPrior*, arXiv:1705.07120 (its networks).

    Example:
        >>> GatedMLP([3, 16, 2])(torch.zeros(7, 5, 3)).shape
        torch.Size([7, 5, 2])
    """

    def __init__(self, sizes: Sequence[int]):
        _require_two_sizes("GatedMLP", sizes)
        layers: list[nn.Module] = []
        for num_in, num_out in pairwise(sizes[:-1]):
            layers.append(GatedLinear(num_in, num_out))
        layers.append(nn.Linear(sizes[-2], sizes[-1]))
        super().__init__(*layers)
        self.sizes = tuple(sizes)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(cast(x, self))

    def extra_repr(self) -> str:
        return f"sizes={self.sizes}"


def gated_mlp(*sizes: int) -> GatedMLP:
    """The `GatedMLP` of the given sizes: `gated_mlp(8, 300, 128)` maps `(*batch, 8)` to `(*batch, 128)`."""
    return GatedMLP(sizes)


class Concat(SettingsFirst):
    r"""$\mathrm{net}([c_1, \dots, c_n])$: contexts concatenated along the last dim, leading dims broadcast.

    Args:
        net: maps `(*batch, C_1 + … + C_n)` to its output.

    Shape:
        `(*batch, C_1), …, (*batch, C_n)`  ->  the output of `net` on `(*batch, C_1 + … + C_n)`.

    Raises:
        TypeError: if `net` is no network.
        ValueError: if it is called without a context.

    Example:
        >>> Concat(mlp(2 + 10, 3))(torch.zeros(7, 5, 2), torch.zeros(5, 10)).shape
        torch.Size([7, 5, 3])
    """

    def __init__(self, net: nn.Module):
        super().__init__()
        require_network("Concat", net)
        self.net = net

    def forward(self, *contexts: Tensor) -> Tensor:
        return self.net(concat_inputs(*contexts))


def concat_inputs(*contexts: Tensor, event_dim: int = 1) -> Tensor:
    """Concatenate along the first event dim after broadcasting the leading dims, in the widest dtype.

    Args:
        contexts: tensors `(*batch, *event)` whose events agree but for their first dim.
        event_dim: number of event dims: 1 for vectors, 3 for images.

    Raises:
        ValueError: if there is no context.
    """
    if not contexts:
        raise ValueError(
            "Concat: expected at least one context, got none. "
            "Fix: call the module with its contexts, net(z, labels)."
        )
    dtype = contexts[0].dtype
    for context in contexts[1:]:
        dtype = torch.promote_types(dtype, context.dtype)
    batch_shapes = [context.shape[:-event_dim] for context in contexts]
    batch_shape = torch.broadcast_shapes(*batch_shapes)
    expanded = []
    for context in contexts:
        event_shape = context.shape[-event_dim:]
        context = context.to(dtype)
        expanded.append(context.expand(*batch_shape, *event_shape))
    return torch.cat(expanded, dim=-event_dim)


def flatten_contexts(
    contexts: Sequence[Tensor],
    batch_shape: Sequence[int],
) -> tuple[Tensor, ...]:
    """Contexts `(*batch, C)`, broadcast to `batch_shape`, as `(N, C)`."""
    num = prod(batch_shape)
    flat = []
    for context in contexts:
        size = context.shape[-1]
        expanded = context.expand(*batch_shape, size)
        flat.append(expanded.reshape(num, size))
    return tuple(flat)


def _require_two_sizes(owner: str, sizes: Sequence[int]) -> None:
    if len(sizes) < 2:
        raise ValueError(
            f"{owner}: expected sizes (in, *hidden, out), got {tuple(sizes)}. "
            f"Fix: sizes=[in, out], as in {owner}([784, 256, 10])."
        )


def _require_builder(owner: str, activation: Any) -> None:
    if isinstance(activation, nn.Module):
        name = type(activation).__name__
        raise TypeError(
            f"{owner}: expected an activation that can be built once per layer, "
            f"got the module {name}. Fix: activation=nn.{name}, without parentheses."
        )
