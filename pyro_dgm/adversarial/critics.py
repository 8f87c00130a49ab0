"""Critics: their output as one logit per datum, one pass per tensor, and layers of spectral norm one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrizations

from ..densities.precision import HALF, dtype_of_networks
from ..inference.process.states import fork_rng
from ..inference.vectorization.modes import training_mode
from .checks import require_instance

Critic = Callable[..., Tensor]
LAYERS = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


def logits(critic: Critic, x: Tensor, *context: Any) -> Tensor:
    """C(x) or C(x, c), `(B,)`, in float32 at least: losses and log ratios are no place for half precision.

    Args:
        critic: called as `critic(x, *context)`.
        x: `(B, *event)`.
        context: labels and the like, `(B, …)`.

    Raises:
        ValueError: if the critic's output is neither `(B,)` nor `(B, 1)`.
    """
    output = critic(x, *context)
    num = len(x)
    if not isinstance(output, Tensor) or tuple(output.shape) not in ((num,), (num, 1)):
        raise ValueError(
            f"critic: expected one logit per datum, ({num},) or ({num}, 1), "
            f"got {_shape_or_type(output)} from data of shape {tuple(x.shape)}. "
            "Fix: end the critic with nn.Flatten(), nn.Linear(hidden, 1)."
        )
    return output.flatten().to(torch.promote_types(output.dtype, torch.float32))


def _shape_or_type(output: Any) -> str:
    if isinstance(output, Tensor):
        return f"shape {tuple(output.shape)}"
    return type(output).__name__


def mixes_data(critic: nn.Module, x: Tensor, *context: Any) -> bool:
    """Whether, in training mode, the logit of the first datum changes with the others; dropout stays off.

    Weights, buffers, modes and random state are afterwards what they were.
    """
    if len(x) < 2:
        return False
    others = x.roll(1, 0)
    others[0] = x[0]
    with training_mode(critic), fork_rng(x, *context), torch.no_grad():
        try:
            logit = logits(critic, x, *context)[0]
            found = logits(critic, others, *context)[0]
        except Exception:  # whatever a user's module raises: the game says why
            return False
    rounding = torch.finfo(logit.dtype).eps ** 0.5
    return bool((found - logit).abs() > rounding * (1 + logit.abs()))


def is_batch_norm(module: nn.Module) -> bool:
    """Whether a layer normalizes over the data of a batch."""
    return isinstance(module, _BatchNorm)


class Scores:
    """C(x, c) at one context, with one pass of the critic per tensor, however often it is asked.

    A penalty at the data thus shares the pass that the game's loss took. Not under autocast: the loss may
    take its pass in half precision, a penalty takes another one in float32.

    Args:
        critic: called as `critic(x, *context)`.
        context: labels and the like, `(B, …)`.

    Shape:
        x: `(B, *event)`  ->  `(B,)`.
    """

    def __init__(self, critic: Critic, *context: Any):
        self.critic = critic
        self.context = context
        self._passes: list[tuple[Tensor, bool, Tensor]] = []

    def __call__(self, x: Tensor) -> Tensor:
        in_half = torch.is_autocast_enabled(x.device.type) or dtype_of_networks() in HALF
        for earlier_x, was_in_half, earlier_logits in self._passes:
            if earlier_x is x and was_in_half == in_half:
                return earlier_logits
        output = logits(self.critic, x, *self.context)
        self._passes.append((x, in_half, output))
        return output


def spectral_norm(critic: nn.Module) -> nn.Module:
    r"""$W \mapsto W / \sigma_{max}(W)$ for every linear and convolutional layer of a critic, in place.

    torch's parametrization: σ by one power iteration per training call.

    Args:
        critic: any module; it is changed and returned.

    Raises:
        TypeError: if it is no module.
        ValueError: if there is no such layer.

    References:
        Miyato, Kataoka, Koyama, Yoshida 2018, arXiv:1802.05957.

    Example:
        >>> critic = spectral_norm(nn.Linear(4, 1)).eval()
        >>> bool(torch.isclose(critic.weight.norm(), torch.tensor(1.0), atol=1e-4))
        True
    """
    require_instance(
        "spectral_norm", critic, nn.Module, "a critic", "critic = spectral_norm(mlp(2, 64, 1))"
    )
    layers = [module for module in critic.modules() if isinstance(module, LAYERS)]
    if not layers:
        raise ValueError(
            "spectral_norm: expected a critic with linear or convolutional layers, "
            f"got {type(critic).__name__} without any. Fix: build it of nn.Linear or nn.Conv2d."
        )
    for layer in layers:
        parametrizations.spectral_norm(layer)
    return critic
