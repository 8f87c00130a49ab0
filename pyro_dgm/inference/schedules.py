"""Schedules: values that change during training, as tensors, so that a compiled step sees them change."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Schedule(nn.Module):
    """A 0-dim value that `advance` moves on by one step; abstract. Its state is a buffer and travels in checkpoints."""

    def forward(self) -> Tensor:
        """The value now."""
        raise NotImplementedError(f"{type(self).__name__} has no value.")

    def advance(self) -> None:
        """Move on by one optimization step."""


class Constant(Schedule):
    r"""$\beta_t = \beta$.

    Example:
        >>> Constant(0.5)()
        tensor(0.5000)
    """

    value: Tensor

    def __init__(self, value: float):
        super().__init__()
        self.register_buffer("value", torch.tensor(float(value)))

    def forward(self) -> Tensor:  # noqa: D102
        return self.value


class LinearWarmup(Schedule):
    r"""$\beta_t = \beta_0 + (1 - \beta_0) \min(t / T, 1)$ after t optimization steps.

    Args:
        num_steps: number T of steps until the value is 1.
        start: $\beta_0$.

    Raises:
        ValueError: if `num_steps < 1`.

    Example:
        >>> beta = LinearWarmup(4)
        >>> beta.advance()
        >>> beta()
        tensor(0.2500)
    """

    step: Tensor

    def __init__(self, num_steps: int, start: float = 0.0):
        super().__init__()
        if num_steps < 1:
            raise ValueError(
                f"LinearWarmup: expected num_steps >= 1, got {num_steps}. Fix: Constant(1.0) for no warm-up."
            )
        self.num_steps, self.start = num_steps, start
        self.register_buffer("step", torch.zeros((), dtype=torch.long))

    def forward(self) -> Tensor:  # noqa: D102
        return self.start + (1 - self.start) * (self.step / self.num_steps).clamp(max=1.0)

    def advance(self) -> None:  # noqa: D102
        self.step += 1
