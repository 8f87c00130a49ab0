"""Weights in place of others: their exponential moving average, and those that a run goes on from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..process.numbers import check_number


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
        check_number("Ema", "a decay in [0, 1)", decay, fix="ema=0.999")
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

    def append(self, parameter: nn.Parameter) -> None:
        """Average one more from here on."""
        self.parameters.append(parameter)
        self.average.append(parameter.detach().clone())

    def pop(self) -> None:
        """Undo the last `append`."""
        self.parameters.pop()
        self.average.pop()

    def follow(self) -> None:
        """Go where the weights have gone since: another device, another dtype."""
        pairs = zip(self.average, self.parameters, strict=True)
        self.average = [mean.to(p.device, p.dtype) for mean, p in pairs]

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


def have_equal_values(module: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> bool:
    """Whether a module's tensors hold such weights, in whatever dtype and wherever they are now."""
    if set(module) != set(weights):
        return False  # a part was replaced
    for name, tensor in weights.items():
        here = module[name]
        if here.shape != tensor.shape or not torch.equal(here, tensor.to(here)):
            return False
    return True


@contextmanager
def other_data(module: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Other weights in a module. Its tensors get other data and are not written into: a graph may stand on them."""
    tensors = module.state_dict(keep_vars=True)
    before = {name: tensor.data for name, tensor in tensors.items()}
    try:
        for name, tensor in tensors.items():
            tensor.data = weights[name].to(tensor)
        yield
    finally:
        for name, tensor in tensors.items():
            tensor.data = before[name]
