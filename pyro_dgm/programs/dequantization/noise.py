"""The noise in the cell of a level: its law, and the guides that draw it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from pyro.distributions.util import sum_rightmost
from torch import Tensor, nn

from ...contract import noise_name
from ..program import Program, data_plate, explain_errors


def within_cell(x: Tensor, u: Tensor) -> Tensor:
    r"""$x + u$, as a number whose floor is x: in float32, 255 + 0.99999998 would be 256.

    Args:
        x: integer levels `(*batch, *event)`, of any dtype.
        u: noise in [0, 1], of a floating dtype.

    Example:
        >>> within_cell(torch.tensor(255), torch.tensor(1 - 2**-24)).floor()
        tensor(255.)
    """
    low = x.to(u.dtype)
    v, high = low + u, low + 1
    return torch.where(v < high, v, torch.nextafter(high, low))


class UnitCube(dist.TorchDistribution):
    r"""$u \sim U[0, 1]^D$, with $\log p(u) = 0$ in the closed cube and $-\infty$ outside.

    Args:
        event_shape: shape of u.
        like: a tensor whose device and dtype the draws take (the default dtype for integers).
        batch_shape: shape of the batch.
        drawn: u itself, where it is known already: what `sample` then returns.
    """

    arg_constraints = {}
    has_rsample = True

    def __init__(
        self,
        event_shape: Sequence[int],
        like: Tensor,
        batch_shape: Sequence[int] = (),
        drawn: Tensor | None = None,
    ):
        self.like, self.drawn = like, drawn
        super().__init__(torch.Size(batch_shape), torch.Size(event_shape), validate_args=False)

    @constraints.dependent_property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.unit_interval, len(self.event_shape))

    def expand(self, batch_shape: Any, _instance: Any = None) -> UnitCube:
        return UnitCube(self.event_shape, self.like, batch_shape, self.drawn)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        if self.drawn is not None:
            return self.drawn if self.drawn.shape == shape else self.drawn.expand(shape)
        dtype = self.like.dtype if self.like.is_floating_point() else torch.get_default_dtype()
        # torch draws multiples of eps / 2. A flow would stretch an exact 0 to where its density is all but none, and
        # one such draw in 16 million would outweigh all others.
        return torch.rand(shape, dtype=dtype, device=self.like.device).clamp(
            min=torch.finfo(dtype).eps / 4
        )

    def log_prob(self, value: Tensor) -> Tensor:
        inside = (value >= 0) & (value <= 1)
        return sum_rightmost(inside.to(value.dtype).log(), len(self.event_shape))


class UnitUniform(nn.Module):
    r"""$q(u \mid x) = U(0, 1)^D$: uniform dequantization, as the dequantizer that learns nothing.

    The base of a flow as well: with a `Sigmoid()` σ, `Flow(UnitUniform(D), [Inverse(σ), *layers, σ], net)` starts at
    uniform noise.

    Args:
        shape: shape of an event: a number D for vectors, `(channels, height, width)` for images; `None` for vectors of
            the size of x.

    Shape:
        x: `(*batch, *event)`, or a context with as many event dims; further contexts are passed over  ->  a
        distribution of batch_shape `(*batch)`.

    References:
        Theis, van den Oord, Bethge 2016, arXiv:1511.01844 (section 3.1).

    Example:
        >>> UnitUniform()(torch.zeros(7, 3)).event_shape
        torch.Size([3])
    """

    def __init__(self, shape: int | Sequence[int] | None = None):
        super().__init__()
        self.shape = (shape,) if isinstance(shape, int) else shape and tuple(shape)

    def forward(self, x: Tensor, *context: Tensor) -> UnitCube:
        shape = self.shape or x.shape[-1:]
        return UnitCube(shape, x, x.shape[: x.dim() - len(shape)])


def sampled_noise(dequantizer: nn.Module, observed: str, x: Tensor, *context: Tensor) -> Tensor:
    r"""$u \sim q(u \mid x, c)$ as the noise site of the discrete site `observed`, inside the data plate."""
    return pyro.sample(noise_name(observed), dequantizer(x, *context))


class NoiseGuide(Program):
    r"""$q(u \mid x, c)$: the guide of a dequantized model with one discrete site and no latents of its own.

    With several sites write the guide as it is: one `pyro.sample(f"{site}_noise", dequantizer(value))` for each.

    Args:
        dequantizer: conditional of the noise, called as `dequantizer(x, *context)`: `UnitUniform()`, or a `Flow` onto
            the unit cube.
        size: number of data in the full set, see `data_plate`.
        observed: name of the discrete site.

    Shape:
        x: `(B, *event)`; context: `(B, …)`; returns u `(B, *event)`.

    Raises:
        TypeError: for a distribution in place of a conditional.
        ValueError: if x is `None`.
    """

    def __init__(self, dequantizer: nn.Module, size: int | None = None, observed: str = "x"):
        super().__init__()
        if isinstance(dequantizer, torch.distributions.Distribution):
            raise TypeError(
                f"NoiseGuide: expected a conditional of the noise, called with x, got the law {dequantizer}. "
                "Fix: NoiseGuide(UnitUniform())."
            )
        self.dequantizer, self.size, self.observed = dequantizer, size, observed

    def forward(self, x: Tensor | None = None, *context: Tensor) -> Tensor:
        x = explain_errors(self, x)
        with data_plate(x, *context, size=self.size):
            return sampled_noise(self.dequantizer, self.observed, x, *context)
