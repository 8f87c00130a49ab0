"""Exponential moving average of the weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    r"""$\bar\theta_t = d_t \bar\theta_{t-1} + (1 - d_t) \theta_t$ with the ramp $d_t = \min(d, (1 + t) / (10 + t))$.

    Args:
        module: whose parameters are averaged.
        decay: d in [0, 1).

    Raises:
        ValueError: if the decay is outside [0, 1).

    Example:
        >>> layer = nn.Linear(1, 1, bias=False)
        >>> ema = Ema(layer, decay=0.5)
        >>> _ = layer.weight.data.add_(11.0)
        >>> ema.update(1)  # d = 2 / 11
        >>> with ema.applied():
        ...     averaged = layer.weight.item()
        >>> round(layer.weight.item() - averaged, 4)
        2.0
    """

    def __init__(self, module: nn.Module, decay: float):
        if not 0 <= decay < 1:
            raise ValueError(f"Ema: expected a decay in [0, 1), got {decay}. Fix: ema=0.999.")
        self.decay = decay
        self.parameters = list(module.parameters())
        with torch.inference_mode(mode=False):  # else an average built there could not be updated
            self.average = [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after step t = 1, 2, ….

        The ramp lets short runs forget their start: with a fixed 0.999 they would average the initial weights.
        """
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The averaged weights in place of the current ones."""
        current = [p.detach().clone() for p in self.parameters]
        self._set(self.average)
        try:
            yield
        finally:
            self._set(current)

    @torch.no_grad()
    def _set(self, values: list[Tensor]) -> None:
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.copy_(value)

    def state_dict(self) -> list[Tensor]:
        """The averages."""
        return self.average

    def load_state_dict(self, state: list[Tensor]) -> None:
        """Take the averages of a checkpoint."""
        pairs = zip(state, self.average, strict=True)
        self.average = [saved.to(own.device, own.dtype) for saved, own in pairs]
