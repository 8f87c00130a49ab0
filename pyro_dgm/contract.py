"""What a program and its reader share: the names of plates and noise, and the types that signatures teach by."""

from __future__ import annotations

from typing import Any, Protocol, TypedDict, runtime_checkable

from pyro.distributions import TorchDistribution
from torch import Tensor, nn

DATA = "data"
PARTICLES = "particles"


@runtime_checkable
class PyroProgram(Protocol):
    """A model or a guide: any callable that draws its sites by `pyro.sample`.

    Its first argument is the observation, which a model takes as `None` to generate; the rest is context. Data are
    read from the site that observes it, `obs=x`, whatever a program returns. A `pyro.factor` of a model is part of the
    joint density, one of a guide of the training loss alone; a `pyro.deterministic` is a named value without a
    density; a `poutine.scale` is seen by losses, by no estimate. Where a model's factor weighs its draws unequally,
    what needs draws of the model refuses it.
    """

    def __call__(self, *batch: Any) -> Any:
        """Run the program on a batch of data."""


@runtime_checkable
class ConditionalDistribution(Protocol):
    """A prior p(z), a likelihood p(x | z), an encoder q(z | x): a context in, a distribution out, nothing drawn."""

    def __call__(self, *context: Tensor) -> TorchDistribution:
        """The distribution, given the context."""


@runtime_checkable
class ScoresItsDraws(Protocol):
    """A transform that knows the score of what it has just drawn, without an inversion: that of a `Flow`."""

    def score_of(self, base: Any, y: Tensor) -> Tensor:
        r"""$\partial_y \log q(y)$ `(*batch, D)` of its last draw y, with noise of `base`; a plain number."""


class Site(TypedDict):
    """One sample statement of a Pyro trace.

    Attributes:
        name: by which model and guide agree.
        type: `"sample"`, or `"param"`.
        fn: the distribution.
        value: what was drawn or observed, `(*plates, *event)`.
        is_observed: whether the value is data.
        args, kwargs: of the distribution's call.
        scale: of subsampling plates, N/B, and of `poutine.scale`; estimates see neither.
        mask: of `poutine.mask`; `None` for none.
        infer: what the program says of its inference.
        cond_indep_stack: the plates around it, as Pyro's frames.
    """

    name: str
    type: str
    fn: Any
    value: Tensor
    is_observed: bool
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    scale: float | Tensor
    mask: bool | Tensor | None
    infer: dict[str, Any]
    cond_indep_stack: tuple[Any, ...]


def noise_name(site: str) -> str:
    """Name of the dequantization noise of a discrete site.

    Example:
        >>> noise_name("x")
        'x_noise'
    """
    return f"{site}_noise"


def last_layer(net: nn.Module) -> nn.Module | None:
    """The last layer that does something, inside any nesting of `nn.Sequential`."""
    last: nn.Module | None = net
    while isinstance(last, nn.Sequential):
        layers = [m for m in last if not isinstance(m, (nn.Flatten, nn.Identity))]
        last = layers[-1] if layers else None
    return last
