"""Schedules: values that change during training, as tensors, so that a compiled step sees them change."""

from __future__ import annotations

from math import inf

import torch
from torch import Tensor, nn


class Schedule(nn.Module):
    """A 0-dim value that `advance` moves on by one optimization step; abstract: a subclass gives `forward`.

    Its state is a buffer, so that it travels in checkpoints.
    """

    def forward(self) -> Tensor:
        """The value now."""
        raise NotImplementedError(
            f"{type(self).__name__} has no value. "
            "Fix: def forward(self): return a 0-dim tensor in the subclass, or LinearWarmup(1000)."
        )

    def advance(self) -> None:
        """Move on by one optimization step."""


class Constant(Schedule):
    r"""$\beta_t = \beta$.

    Raises:
        ValueError: for a value that is negative or not finite: a cost would be rewarded.

    Example:
        >>> Constant(0.5)()
        tensor(0.5000)
    """

    value: Tensor

    def __init__(self, value: float):
        super().__init__()
        _check_weight("Constant", float(value))
        self.register_buffer("value", torch.tensor(float(value), device="cpu"))

    def forward(self) -> Tensor:  # noqa: D102
        return self.value

    def extra_repr(self) -> str:
        """The value."""
        return f"{self.value.item():g}"


class LinearWarmup(Schedule):
    r"""$\beta_t = \beta_0 + (1 - \beta_0) \min(t / T, 1)$ after t optimization steps.

    Args:
        num_steps: number T of steps until the value is 1.
        start: $\beta_0$.

    Raises:
        ValueError: if `num_steps < 1`, or `start` is negative or not finite.

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
                f"LinearWarmup: expected num_steps >= 1, got {num_steps}. "
                "Fix: Constant(1.0) for no warm-up."
            )
        _check_weight("LinearWarmup", start)
        self.num_steps = num_steps
        self.start = start
        self.register_buffer("step", torch.zeros((), dtype=torch.long, device="cpu"))

    def forward(self) -> Tensor:  # noqa: D102
        share = (self.step / self.num_steps).clamp(max=1.0)
        return self.start + (1 - self.start) * share

    def advance(self) -> None:  # noqa: D102
        self.step += 1

    def extra_repr(self) -> str:
        """The settings, without a start of 0."""
        return f"{self.num_steps}" if self.start == 0 else f"{self.num_steps}, start={self.start:g}"


class Cyclical(Schedule):
    r"""$\beta_t = \min(\tau_t / R, 1)$ with $\tau_t = (M t / T) \bmod 1$; 1 from step T on.

    M times from 0 to 1, by a ramp over a share R of each cycle: between the ramps the encoder is trained at β
    = 1, and each restart meets a decoder that has learned from it.

    Args:
        num_steps: number T of optimization steps of all cycles.
        cycles: number M of cycles.
        ramp: share R of a cycle in which the value rises.

    Raises:
        ValueError: for `cycles < 1`, `num_steps < cycles`, or a ramp outside (0, 1].

    References:
        Fu, Li, Liu, Gao, Celikyilmaz, Carin 2019, *Cyclical annealing schedule*, arXiv:1903.10145.

    Example:
        >>> beta, values = Cyclical(8, cycles=2), []
        >>> for _ in range(9):
        ...     values.append(round(beta().item(), 2))
        ...     beta.advance()
        >>> values
        [0.0, 0.5, 1.0, 1.0, 0.0, 0.5, 1.0, 1.0, 1.0]
    """

    step: Tensor

    def __init__(self, num_steps: int, cycles: int = 4, ramp: float = 0.5):
        super().__init__()
        if not 1 <= cycles <= num_steps:
            raise ValueError(
                f"Cyclical: expected 1 <= cycles <= num_steps, got cycles={cycles} "
                f"and num_steps={num_steps}. "
                "Fix: num_steps = epochs * batches per epoch."
            )
        if not 0 < ramp <= 1:
            raise ValueError(
                f"Cyclical: expected a ramp in (0, 1], got {ramp}. Fix: Constant(1.0) for no ramp."
            )
        self.num_steps = num_steps
        self.cycles = cycles
        self.ramp = ramp
        self.register_buffer("step", torch.zeros((), dtype=torch.long, device="cpu"))

    def forward(self) -> Tensor:  # noqa: D102
        place = (self.step * self.cycles).remainder(self.num_steps)  # integers: no rounding adds up
        tau = place / self.num_steps
        rising = (tau / self.ramp).clamp(max=1.0)
        return rising.where(self.step < self.num_steps, 1.0)

    def advance(self) -> None:  # noqa: D102
        self.step += 1

    def extra_repr(self) -> str:
        """The settings."""
        return f"{self.num_steps}, cycles={self.cycles}, ramp={self.ramp:g}"


def _check_weight(name: str, value: float) -> None:
    """Refuse a weight under which a cost would be rewarded, or the loss be infinite."""
    if not 0 <= value < inf:
        raise ValueError(
            f"{name}: expected a finite value >= 0, got {value:g}, which would reward a cost. "
            "Fix: 0.0 leaves the cost out, 1.0 is the bound itself."
        )
