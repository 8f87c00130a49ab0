"""What every part of a program asks of its arguments: one mistake has one answer, where it is handed over."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.distributions import Distribution

from .program import Program


def require_network(owner: str, net: Any) -> None:
    """Refuse what maps no contexts to a tensor: a class, a distribution, a program, or a holder such as a VAE.

    Args:
        owner: name of what is built on the network, for the message.
        net: any callable; a module needs a `forward`.

    Raises:
        TypeError: for anything else.
    """
    if isinstance(net, type):
        raise TypeError(
            f"{owner}: expected a network, built, got the class {net.__name__}. "
            f"Fix: {owner}({net.__name__}(…), …), with the arguments of {net.__name__}."
        )
    draws = isinstance(net, Distribution | Program)
    if draws or not callable(net) or _lacks_forward(net):
        raise TypeError(
            f"{owner}: expected a network that maps contexts to a tensor, "
            f"got {type(net).__name__}. Fix: {owner}(mlp(latent, hidden, outputs), …)."
        )


def _lacks_forward(net: Any) -> bool:
    """Whether a module only holds others, as a `VAE` or an `nn.ModuleList` does."""
    if not isinstance(net, nn.Module):
        return False
    return getattr(net.forward, "__func__", None) is nn.Module.forward


def require_tensor(owner: str, output: Any) -> None:
    """Refuse a network's output that is no tensor, such as the distribution of a conditional.

    Raises:
        TypeError: for anything else.
    """
    if not isinstance(output, Tensor):
        raise TypeError(
            f"{owner}: expected a network whose output is one tensor, "
            f"got {type(output).__name__}. Fix: {owner}(mlp(latent, hidden, outputs), …); "
            "a conditional or a distribution is no network."
        )


def require_levels(owner: str, levels: int) -> None:
    """Refuse fewer than two levels.

    Raises:
        ValueError: if there are fewer.
    """
    if levels < 2:
        raise ValueError(
            f"{owner}: expected at least 2 levels, got {levels}. "
            "Fix: levels=256 for bytes, levels=2 for zeros and ones."
        )


def require_event_dim(owner: str, event_dim: int) -> None:
    """Refuse an event without dims.

    Raises:
        ValueError: if `event_dim < 1`.
    """
    if event_dim < 1:
        raise ValueError(
            f"{owner}: expected event_dim >= 1, got {event_dim}. "
            "Fix: event_dim=1 for vectors and for scalars (*batch, 1), event_dim=3 for images."
        )


def require_distribution(owner: str, argument: Any, example: str) -> None:
    """Refuse what is no distribution: its class, or a conditional that has not met its context.

    Args:
        owner: name of what is built on the distribution, for the message.
        argument: what was handed over.
        example: code that is right, for the message.

    Raises:
        TypeError: for anything else.
    """
    if isinstance(argument, Distribution):
        return
    is_class = isinstance(argument, type)
    found = f"the class {argument.__name__}" if is_class else type(argument).__name__
    raise TypeError(f"{owner}: expected a distribution, got {found}. Fix: {example}.")
