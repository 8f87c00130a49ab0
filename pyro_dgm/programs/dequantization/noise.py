"""The noise between a level and the next: its distribution, and the guide that draws it."""

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
from ...display.representation import SettingsFirst
from ..program import Program, data_plate, require_data
from ..requirements import distribution_of, require_conditional, require_sizes

DEQUANTIZER = "UnitUniform()"  # an example, for messages


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
    high = low + 1
    v = low + u
    return torch.where(v < high, v, torch.nextafter(high, low))


class UnitCube(dist.TorchDistribution):
    r"""$u \sim U[0, 1]^D$, with $\log p(u) = 0$ in the closed cube and $-\infty$ outside.

    Args:
        event_shape: shape of u.
        like: a tensor whose device and dtype the draws take (the default dtype for integers).
        batch_shape: shape of the batch.
        known: u itself, where it is known already: what `sample` then returns.
    """

    arg_constraints = {}
    has_rsample = True

    def __init__(
        self,
        event_shape: Sequence[int],
        like: Tensor,
        batch_shape: Sequence[int] = (),
        known: Tensor | None = None,
    ):
        self.like = like
        self.known = known
        super().__init__(torch.Size(batch_shape), torch.Size(event_shape), validate_args=False)

    @constraints.dependent_property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.unit_interval, len(self.event_shape))

    def expand(self, batch_shape: Any, _instance: Any = None) -> UnitCube:
        return UnitCube(self.event_shape, self.like, batch_shape, self.known)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        if self.known is not None:
            return self.known if self.known.shape == shape else self.known.expand(shape)
        dtype = self.like.dtype if self.like.is_floating_point() else torch.get_default_dtype()
        # torch draws multiples of eps / 2. A flow would stretch an exact 0 to where its density is
        # all but none, and one such draw in 16 million would outweigh all others.
        smallest = torch.finfo(dtype).eps / 4
        return torch.rand(shape, dtype=dtype, device=self.like.device).clamp(min=smallest)

    def log_prob(self, value: Tensor) -> Tensor:
        inside = (value >= 0) & (value <= 1)
        return sum_rightmost(inside.to(value.dtype).log(), len(self.event_shape))


class UnitUniform(SettingsFirst):
    r"""$q(u \mid x) = U(0, 1)^D$: uniform dequantization, as the dequantizer that learns nothing.

    The base of a flow as well: with a `Sigmoid()` σ, `Flow(UnitUniform(D), [Inverse(σ), *layers, σ], net)`
    starts at uniform noise.

    Args:
        shape: shape of an event: a number D for vectors, `(channels, height, width)` for images; `None` for
            vectors of the size of x.

    Shape:
        x: `(*batch, *event)`, or a context with as many event dims; further contexts are passed over  ->  a
        distribution of batch_shape `(*batch)`.

    Raises:
        ValueError: for a size below 1.

    References:
        Theis, van den Oord, Bethge 2016, arXiv:1511.01844 (section 3.1).

    Example:
        >>> UnitUniform()(torch.zeros(7, 3)).event_shape
        torch.Size([3])
    """

    def __init__(self, shape: int | Sequence[int] | None = None):
        super().__init__()
        self.shape: tuple[int, ...] | None = None
        if shape is not None:
            require_sizes("UnitUniform", shape=shape)
            self.shape = (shape,) if isinstance(shape, int) else tuple(shape)

    def extra_repr(self) -> str:
        if self.shape is None:
            return ""
        return str(self.shape[0]) if len(self.shape) == 1 else str(self.shape)

    def forward(self, x: Tensor, *context: Tensor) -> UnitCube:
        shape = self.shape or x.shape[-1:]
        batch_shape = x.shape[: x.dim() - len(shape)]
        return UnitCube(shape, x, batch_shape)


def sample_noise(dequantizer: nn.Module, observed: str, x: Tensor, *context: Tensor) -> Tensor:
    r"""$u \sim q(u \mid x, c)$ as the noise site of the discrete site `observed`, inside the data plate."""
    noise = distribution_of("dequantizer", dequantizer, x, *context)
    return pyro.sample(noise_name(observed), noise)


class NoiseGuide(Program):
    r"""$q(u \mid x, c)$: the guide of a dequantized model with one discrete site and no latents of its own.

    With several sites write the guide as it is: one `pyro.sample(f"{site}_noise", dequantizer(value))` for
    each.

    Args:
        dequantizer: conditional of the noise, called as `dequantizer(x, *context)`: `UnitUniform()`, or a
            `Flow` onto the unit cube.
        size: number of data in the full set, see `data_plate`.
        observed: name of the discrete site.

    Shape:
        x: `(B, *event)`; context: `(B, …)`; returns u `(B, *event)`.

    Raises:
        TypeError: for a dequantizer that is no conditional, such as a distribution.
        ValueError: if x is `None`.
    """

    def __init__(self, dequantizer: nn.Module, size: int | None = None, observed: str = "x"):
        super().__init__()
        require_conditional("dequantizer", dequantizer, DEQUANTIZER)
        self.dequantizer = dequantizer
        self.size = size
        self.observed = observed

    def extra_repr(self) -> str:
        return f"size={self.size}, observed={self.observed!r}"

    def forward(self, x: Tensor | None = None, *context: Tensor) -> Tensor:
        x = require_data(self, x)
        with data_plate(x, *context, size=self.size):
            return sample_noise(self.dequantizer, self.observed, x, *context)
