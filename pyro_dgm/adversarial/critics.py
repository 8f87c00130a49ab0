"""What a game asks of a critic: one logit per datum, and layers that do not stretch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations


def logits(critic: nn.Module, x: Tensor, *context: Any) -> Tensor:
    """C(x) or C(x, c), `(B,)`, in float32 at least: losses and log ratios are no place for half precision.

    Args:
        critic: called as `critic(x, *context)`.
        x: `(B, *event)`.
        context: labels and the like, `(B, …)`.

    Raises:
        ValueError: if the critic's output is neither `(B,)` nor `(B, 1)`.
    """
    found = critic(x, *context)
    if not isinstance(found, Tensor) or tuple(found.shape) not in ((len(x),), (len(x), 1)):
        got = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(
            f"critic: expected one logit per datum, ({len(x)},) or ({len(x)}, 1), got {got} from data of shape "
            f"{tuple(x.shape)}. Fix: end the critic with nn.Flatten(), nn.Linear(hidden, 1)."
        )
    return found.flatten().to(torch.promote_types(found.dtype, torch.float32))


class Scores:
    """C(x, c) at one context, each tensor once: a penalty at the data shares the pass that the game's loss took.

    Not under autocast: the loss may take its pass in half precision, a penalty takes another one in float32.

    Args:
        critic: called as `critic(x, *context)`.
        context: labels and the like, `(B, …)`.
    """

    def __init__(self, critic: nn.Module, *context: Any):
        self.critic, self.context = critic, context
        self._found: list[tuple[Tensor, bool, Tensor]] = []

    def __call__(self, x: Tensor) -> Tensor:
        halved = torch.is_autocast_enabled(x.device.type)
        for seen, was_halved, found in self._found:
            if seen is x and was_halved == halved:
                return found
        found = logits(self.critic, x, *self.context)
        self._found.append((x, halved, found))
        return found


def spectral_norm(critic: nn.Module) -> nn.Module:
    r"""$W \mapsto W / \sigma_{max}(W)$ for every linear and convolutional layer of a critic, in place.

    torch's parametrization: σ by one power iteration per training call.

    Args:
        critic: any module; it is changed and returned.

    Raises:
        ValueError: if there is no such layer.

    References:
        Miyato, Kataoka, Koyama, Yoshida 2018, arXiv:1802.05957.

    Example:
        >>> critic = spectral_norm(nn.Linear(4, 1)).eval()
        >>> bool(torch.isclose(critic.weight.norm(), torch.tensor(1.0), atol=1e-4))
        True
    """
    kinds = (
        nn.Linear,
        nn.Conv1d,
        nn.Conv2d,
        nn.Conv3d,
        nn.ConvTranspose1d,
        nn.ConvTranspose2d,
        nn.ConvTranspose3d,
    )
    layers = [module for module in critic.modules() if isinstance(module, kinds)]
    if not layers:
        raise ValueError(
            f"spectral_norm: expected a critic with linear or convolutional layers, got {type(critic).__name__} "
            "without any. Fix: build it of nn.Linear or nn.Conv2d."
        )
    for layer in layers:
        parametrizations.spectral_norm(layer)
    return critic
