"""What likelihood makers share: a network that is one, and an output that can be cut into parameters."""

from __future__ import annotations

import warnings
from typing import Any

from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from ...contract import last_layer
from ..conditionals.conditional import Conditional
from ..requirements import describe, require_network


class FamilyLikelihood(Conditional):
    r"""$p(x \mid c) = \prod_d \mathrm{family}(x_d;\ \eta_d(c))$: a `Conditional` of one family. Abstract.

    Args:
        net: maps contexts to `(*batch, num_params * D)`, one chunk for each parameter.
        event_dim: number of event dims: 1 for vectors, 3 for images.

    Attributes:
        family: a Pyro distribution class.
        params: names of its parameters, in the order of the chunks.

    Raises:
        TypeError: if `net` is no network.
    """

    family: type[TorchDistributionMixin]
    params: tuple[str, ...]

    def __init__(self, net: nn.Module, event_dim: int = 1):
        require_network(type(self).__name__, net)
        if self.params == ("logits",):
            _warn_of_sigmoid(type(self).__name__, net)
        super().__init__(self.family, net, self.params, event_dim)

    def extra_repr(self) -> str:
        return f"event_dim={self.event_dim}"


def _warn_of_sigmoid(owner: str, net: nn.Module) -> None:
    """Warn of a network that ends in a sigmoid where the likelihood applies one itself."""
    if not isinstance(last_layer(net), nn.Sigmoid):
        return
    warnings.warn(
        f"{owner}: expected a network with logits on all reals, got one that ends in nn.Sigmoid: "
        "the likelihood applies σ itself, and no mean would lie outside of 0.5 to 0.73. "
        "Fix: leave the last layer out.",
        stacklevel=4,
    )


def require_chunks(owner: str, raw: Any, num: int, parts: str, event_dim: int) -> None:
    """Refuse a network's output whose first event dim is not cut into `num` equal chunks.

    Args:
        owner: name of the likelihood, for the message.
        raw: the network's output, `(*batch, num * D)`, or `(*batch, num * channels, height, width)`.
        num: of numbers for each of the D dims.
        parts: what the chunks are, for the message.
        event_dim: number of event dims.

    Raises:
        TypeError: if the output is no tensor.
        ValueError: if that dim is no multiple of `num`.
    """
    require_tensor(owner, raw)
    too_few_dims = raw.dim() < event_dim
    if too_few_dims or raw.shape[-event_dim] % num:
        size = 9 if too_few_dims else raw.shape[-event_dim]
        raise ValueError(
            f"{owner}: expected a network output (*batch, {num} * D), {parts}, "
            f"got {tuple(raw.shape)}. "
            f"Fix: end the network with nn.Linear(hidden, {num} * D), "
            f"which is {num * size} outputs for D = {size}; "
            f"for images with nn.Conv2d(hidden, {num} * channels, 1)."
        )


def require_tensor(owner: str, raw: Any) -> None:
    """Refuse a network's output that is no tensor, such as the distribution of a conditional.

    Raises:
        TypeError: for anything else.
    """
    if not isinstance(raw, Tensor):
        raise TypeError(
            f"{owner}: expected a network whose output is one tensor, got {describe(raw)}. "
            "Fix: net=mlp(num_in, hidden, num_out); a conditional is no network."
        )


def require_event_dim(owner: str, event_dim: int) -> None:
    """Refuse an event without dims.

    Raises:
        ValueError: if `event_dim < 1`.
    """
    if event_dim < 1:
        raise ValueError(
            f"{owner}: expected event_dim >= 1, got {event_dim}. "
            "Fix: event_dim=1 for vectors and scalars (*batch, 1), event_dim=3 for images."
        )
