"""Schedules: values that change during training, as tensors, so that a compiled step sees them change."""

from __future__ import annotations

from math import inf

import torch
from torch import Tensor, nn

from ..process.numbers import check_count, check_number

FIX = "0.0 leaves the cost out, 1.0 is the bound itself"


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

    def has_ended(self) -> bool:
        """Whether the value stays as it is from now on; `fit` counts its patience from there."""
        return True


class Constant(Schedule):
    r"""$\beta_t = \beta$.

    Raises:
        TypeError: for what is no number.
        ValueError: for a value that is negative or not finite: a cost would be rewarded.

    Example:
        >>> Constant(0.5)()
        tensor(0.5000)
    """

    value: Tensor

    def __init__(self, value: float):
        super().__init__()
        check_number("Constant", "a finite value", value, least=0, fix=FIX)
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
        TypeError: for what is no number.
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
        check_count("LinearWarmup", "num_steps", num_steps, fix="Constant(1.0) for no warm-up")
        check_number("LinearWarmup", "a finite value", start, least=0, fix=FIX)
        self.num_steps = num_steps
        self.start = start
        self.register_buffer("step", torch.zeros((), dtype=torch.long, device="cpu"))

    def forward(self) -> Tensor:  # noqa: D102
        share = (self.step / self.num_steps).clamp(max=1.0)
        return self.start + (1 - self.start) * share

    def advance(self) -> None:  # noqa: D102
        self.step += 1

    def has_ended(self) -> bool:  # noqa: D102
        return int(self.step) >= self.num_steps

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
        fix = "num_steps = epochs * batches per epoch"
        check_count("Cyclical", "num_steps", num_steps, least=0, fix=fix)
        check_count("Cyclical", "cycles", cycles, least=0, fix="cycles=4")
        check_number("Cyclical", "ramp", ramp, fix="ramp=0.5")
        if not 1 <= cycles <= num_steps:
            raise ValueError(
                f"Cyclical: expected 1 <= cycles <= num_steps, got cycles={cycles} "
                f"and num_steps={num_steps}. "
                f"Fix: {fix}."
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

    def has_ended(self) -> bool:  # noqa: D102
        return int(self.step) >= self.num_steps

    def extra_repr(self) -> str:
        """The settings."""
        return f"{self.num_steps}, cycles={self.cycles}, ramp={self.ramp:g}"


def check_values(by_site: nn.ModuleDict) -> None:
    """Refuse a schedule whose value is now no weight of a cost; one host read.

    Args:
        by_site: site → schedule.

    Raises:
        TypeError: for what is no 0-dim tensor.
        ValueError: for a value under which a cost would be rewarded, or the loss be infinite.
    """
    if not by_site:
        return
    values = []
    for name, schedule in by_site.items():
        value = schedule()
        if not isinstance(value, Tensor) or value.dim() > 0:
            got = tuple(value.shape) if isinstance(value, Tensor) else value
            raise TypeError(
                f"beta of '{name}': expected a 0-dim tensor from {type(schedule).__name__}, got {got!r}. "
                "Fix: def forward(self): return torch.tensor(…), one number."
            )
        values.append(value.detach().double())
    for name, value in zip(by_site, torch.stack(values).tolist(), strict=True):
        if not 0 <= value < inf:
            raise ValueError(
                f"beta of '{name}': expected a finite value >= 0 from {type(by_site[name]).__name__}, got "
                f"{value:g}, which would reward a cost. Fix: {FIX}."
            )
