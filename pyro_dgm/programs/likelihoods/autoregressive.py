"""Zeros and ones one after the other: a masked network's density of them, with a code or without one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from pyro.distributions import constraints
from torch import Tensor, nn

from ...densities.binary import Bernoulli
from ...densities.precision import network_output
from ...display.representation import SettingsFirst
from ..distributions.autoregressive import AutoregressiveDistribution
from ..flows.autoregressive import MADE
from ..networks.dense import cast
from ..requirements import describe, require_network


class AutoregressiveBernoulli(SettingsFirst):
    r"""$p(x \mid c) = \prod_i \mathrm{Bern}(x_i;\ \sigma(\mathrm{made}_i(x_{<i}, c) + \mathrm{net}_i(c)))$. Exact.

    As a likelihood it models how the columns of a binary table depend on each other beside what the code says of
    all of them; the masked network is 0 at the start, where it is `Bernoulli(net)`. Without a context it is a density
    with no latent, for `DensityModel`. A density takes one pass of the masked network, a draw D passes.

    Args:
        made: a `MADE` of one parameter per coordinate; one with a context reads c, one without reads x alone.
        net: maps contexts to logits `(*batch, D)`, which are added; none by default.
        embed: maps the contexts to the one vector that `made` and `net` take; needed for several contexts alone.
        scale: maps x to what the masked network reads, each coordinate by itself, such as `Rescale(0, 1)`, or a
            dropout, which keeps the columns from explaining what z should.

    Shape:
        c: `(*batch, C)` or nothing  ->  batch_shape `(*batch)`, event_shape `(D,)`, values 0 and 1.

    Raises:
        TypeError: if `made` is no `MADE`, or another part is no network.
        ValueError: for a `MADE` of several parameters per coordinate; in the call for a number of contexts that the
            parts do not take.

    References:
        Germain et al. 2015, *MADE: masked autoencoder for distribution estimation*, arXiv:1502.03509; Chen et al.
        2017, *Variational lossy autoencoder*, arXiv:1611.02731.

    Example:
        >>> from pyro_dgm import mlp
        >>> columns = AutoregressiveBernoulli(MADE(9, num_params=1), net=mlp(2, 9))
        >>> columns(torch.zeros(5, 2)).sample().shape
        torch.Size([5, 9])
    """

    def __init__(
        self,
        made: MADE,
        net: nn.Module | None = None,
        embed: nn.Module | None = None,
        scale: nn.Module | None = None,
    ):
        super().__init__()
        _require_made(made)
        for part in (net, embed, scale):
            if part is not None:
                require_network("AutoregressiveBernoulli", part)
        self.made = made
        self.net = net
        self.embed = embed
        self.scale = nn.Identity() if scale is None else scale

    def forward(self, *contexts: Tensor) -> AutoregressiveBits:
        if self.embed is not None:
            contexts = (network_output(self.embed(*contexts)),)
        self._check_contexts(contexts)
        logits = None if self.net is None else network_output(self.net(*contexts))
        context = contexts if self.made.context else ()
        batch_shape = torch.Size() if not contexts else contexts[0].shape[:-1]
        return AutoregressiveBits(self, batch_shape, logits, *context)

    def extra_repr(self) -> str:
        return ""

    def logits_given(
        self, x: Tensor, logits: Tensor | None, *context: Tensor, coordinate: int | None = None
    ) -> Tensor:
        """Logits `(*batch, D)` of every coordinate given the earlier ones of x, or `(*batch, 1)` of one of them.

        Args:
            x: zeros and ones `(*batch, D)` of any dtype.
            logits: those that are added.
            context: of the masked network, one tensor or none.
            coordinate: of the one that is wanted; all by default.
        """
        inputs = self.scale(cast(x, self.made))
        raw = network_output(self.made(inputs, *context, coordinate=coordinate)).squeeze(-2)
        if logits is None:
            return raw
        return raw + (logits if coordinate is None else logits[..., coordinate, None])

    def _check_contexts(self, contexts: Sequence[Tensor]) -> None:
        takes_one = self.net is not None or self.made.context > 0
        if len(contexts) != takes_one:
            raise ValueError(
                f"AutoregressiveBernoulli: expected {'one context' if takes_one else 'no context'}, got "
                f"{len(contexts)}. Fix: embed=Concat(mlp(…)), which joins several; "
                "AutoregressiveBernoulli(MADE(D, num_params=1)) for a density without any."
            )


def _require_made(made: Any) -> None:
    """Refuse what is no masked network of one logit per coordinate."""
    fix = "Fix: AutoregressiveBernoulli(MADE(D, num_params=1))."
    if not isinstance(made, MADE):
        raise TypeError(f"AutoregressiveBernoulli: expected a MADE, got {describe(made)}. {fix}")
    if made.num_params != 1:
        raise ValueError(
            "AutoregressiveBernoulli: expected a MADE of one logit per coordinate, got "
            f"num_params={made.num_params}. {fix}"
        )


class AutoregressiveBits(AutoregressiveDistribution):
    r"""$\log p(x \mid c) = \sum_i \log \mathrm{Bern}(x_i; p_i(x_{<i}, c))$. Exact, in nats.

    It has neither a mean nor `rsample`.

    Args:
        module: the networks.
        batch_shape: of the contexts.
        logits: of the context alone `(*batch, D)`, or none.
        context: of the masked network, one tensor `(*batch, C)`, or none.

    Shape:
        batch_shape `(*batch)`, `()` without a context; event_shape `(D,)`.
    """

    support = constraints.independent(constraints.boolean, 1)

    def __init__(
        self,
        module: AutoregressiveBernoulli,
        batch_shape: Sequence[int] = (),
        logits: Tensor | None = None,
        *context: Tensor,
        validate_args: bool | None = None,
    ):
        self.logits = logits
        super().__init__(
            "AutoregressiveBernoulli",
            module,
            context,
            batch_shape,
            (module.made.dim,),
            validate_args=validate_args,
        )

    def expand(self, batch_shape: Any, _instance: Any = None) -> Self:
        new = super().expand(batch_shape, _instance)
        new.logits = self.logits
        return new

    def _log_prob(self, value: Tensor) -> Tensor:
        logits = self.module.logits_given(value, self.logits, *self.contexts)
        return Bernoulli(logits=logits, validate_args=False).log_prob(value).sum(-1)

    def _draw(self, shape: torch.Size) -> Tensor:
        made = self.module.made
        x = made.last.bias.new_zeros(shape)
        for step in range(made.dim):
            i = made.dim - 1 - step if made.reverse else step
            raw = self.module.logits_given(x, self.logits, *self.contexts, coordinate=i)
            x[..., i] = raw[..., 0].sigmoid().expand(x.shape[:-1]).bernoulli()
        return x
