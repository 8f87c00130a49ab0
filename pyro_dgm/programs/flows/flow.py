"""The flow as a conditional: a `TransformedDistribution` at every context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyro.distributions as dist
from torch import Tensor, nn

from .bijector import Bijector, Stack


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
        sample, density = (
            "impossible" if n is None else f"{n} network calls" for n in (self.sample, self.density)
        )
        return (
            f"a draw, with its own density: {sample}; the density of a given point: {density}.\n"
            "A posterior is trained on draws, a prior or a density on given points."
        )


class Flow(nn.Module):
    r"""$y = f_c(\varepsilon)$ with $\varepsilon \sim \mathrm{base}(c)$.

    $\log p(y) = \log p(\varepsilon) - \log|\det \partial y / \partial \varepsilon|$, exact, in nats.

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
        self.base, self.embed = base, embed
        self.bijector = bijectors if isinstance(bijectors, Stack) else Stack(bijectors)

    def directions(self) -> Directions:
        """The direction report: what a draw and what a density costs.

        Example:
            >>> from pyro_dgm import StandardNormal, iaf
            >>> Flow(StandardNormal(8), iaf(8, layers=2)).directions()
            Directions(sample=2, density=16)
        """
        return Directions(self.bijector.num_forward, self.bijector.num_inverse)

    def forward(self, *contexts: Tensor) -> dist.TransformedDistribution:
        if self.embed is not None and contexts:
            contexts = (self.embed(*contexts),)
        if len(contexts) > 1:
            raise ValueError(
                f"Flow: expected one context, got {len(contexts)}. Fix: embed=Concat(mlp(...)), which joins them."
            )
        return dist.TransformedDistribution(
            self.base(*contexts), [self.bijector.transform(*contexts)]
        )
