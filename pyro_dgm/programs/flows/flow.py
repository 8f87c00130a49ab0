"""The flow as a conditional: a `TransformedDistribution` at every context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from ...display.representation import SettingsFirst
from .bijector import Bijector, Stack, as_layers
from .transform import ScoredDraw


@dataclass(frozen=True)
class Directions:
    """What a flow costs in network calls of its layers, one after the other; `None`: it can't be computed.

    Attributes:
        sample: calls for a draw and its own density.
        density: calls for the density of a given point.
    """

    sample: int | None
    density: int | None

    def __str__(self) -> str:
        return (
            f"a draw, with its own density: {_cost(self.sample)}; "
            f"the density of a given point: {_cost(self.density)}.\n"
            "A posterior is trained on draws, a prior or a density on given points."
        )


def _cost(calls: int | None) -> str:
    return "impossible" if calls is None else f"{calls} network calls"


class Flow(SettingsFirst):
    r"""$y = f_c(\varepsilon)$ with $\varepsilon \sim \mathrm{base}(c)$.

    $\log p(y) = \log p(\varepsilon) - \log|\det \partial y / \partial \varepsilon|$, exact, in nats per datum.

    One type for the flow prior (choose `maf`: it scores fast), the flow posterior (choose `iaf`: it samples fast; its
    own draws are scored from the forward pass), and a flow likelihood. The other way round works as well and takes D
    network calls per layer, one after the other: `directions()` says what each way costs, and a training loop that
    takes the slow one gets a `DirectionWarning`, once.

    Args:
        base: conditional of the noise, such as `StandardNormal(8)` or `Conditional(dist.Normal, net)`.
        bijectors: a stack such as `maf(8, layers=2)`, or any sequence of bijectors, applied first to last.
        embed: maps the context once; its output goes to the base and to every bijector.

    Shape:
        c: `(*batch, C)` or nothing  ->  a Pyro `TransformedDistribution`, batch_shape `(*batch)`, event_shape `(D,)`.

    Raises:
        TypeError: for a distribution or a class in place of the base, or anything but bijectors.
        ValueError: for no bijector, and in the call for several contexts without `embed`.

    Example:
        >>> from pyro_dgm import StandardNormal, maf
        >>> prior = Flow(StandardNormal(2), maf(2, layers=2))
        >>> prior().log_prob(prior().sample((5,))).shape
        torch.Size([5])
    """

    def __init__(
        self,
        base: nn.Module,
        bijectors: Sequence[Bijector] | Bijector,
        embed: nn.Module | None = None,
    ):
        super().__init__()
        _check_base(base)
        self.base = base
        self.embed = embed
        layers = as_layers("Flow", bijectors)
        self.bijector = bijectors if isinstance(bijectors, Stack) else Stack(layers)

    def directions(self) -> Directions:
        """The network calls that a draw and a density cost.

        Example:
            >>> from pyro_dgm import StandardNormal, iaf
            >>> Flow(StandardNormal(8), iaf(8, layers=2)).directions()
            Directions(sample=2, density=16)
        """
        return Directions(self.bijector.num_forward, self.bijector.num_inverse)

    def draw_with_score(self, num: int, *contexts: Tensor) -> ScoredDraw:
        r"""K draws with $\log q$ and $\partial_y \log q(y)$, all from one pass: fast path gradients.

        The gradient of `draw.path_log_prob` is that of $\log q(y(\varepsilon))$ without the score of the
        parameters, as sticking the landing has it, at no inversion.

        Shape:
            contexts `(*batch, C)`  ->  y `(K, *batch, D)`, log_q `(K, *batch)`, score `(K, *batch, D)`.

        References:
            Vaitl, Winkler, Richter, Kessel 2024, arXiv:2403.15881.
        """
        posterior = self(*contexts)
        (transform,) = posterior.transforms
        with torch.enable_grad():
            return transform.draw_with_score(posterior.base_dist, num)

    def forward(self, *contexts: Tensor) -> dist.TransformedDistribution:
        if self.embed is not None and contexts:
            contexts = (self.embed(*contexts),)
        if len(contexts) > 1:
            raise ValueError(
                f"Flow: expected one context, got {len(contexts)}. "
                "Fix: embed=Concat(mlp(...)), which concatenates them."
            )
        base = self.base(*contexts)
        return dist.TransformedDistribution(base, [self.bijector.transform(*contexts)])


def _check_base(base: Any) -> None:
    """Raise unless the base is a conditional: a callable that returns a distribution."""
    not_a_conditional = Distribution | Bijector | type
    if callable(base) and not isinstance(base, not_a_conditional):
        return
    fix = "Flow(StandardNormal(8), …)"
    if isinstance(base, Distribution):
        got = f"the distribution {type(base).__name__} itself"
        size = prod(base.event_shape or base.batch_shape)
        fix = f"Flow(StandardNormal({size}), …), or a module whose forward() returns it"
    elif isinstance(base, type):
        got = f"the class {base.__name__}"
        if not issubclass(base, Distribution):
            fix = f"an instance, Flow({base.__name__}(…), …)"
    elif isinstance(base, Bijector):
        got = f"the bijector {type(base).__name__}"
        fix = "Flow(base, bijectors): the base first"
    else:
        got = f"a {type(base).__name__}"
    raise TypeError(
        f"Flow (base): expected a conditional of the noise, such as StandardNormal(8), "
        f"got {got}. Fix: {fix}."
    )
