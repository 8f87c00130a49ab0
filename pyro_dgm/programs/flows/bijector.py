"""The flow core: what a bijector is, its inverse, and a stack of several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from numbers import Integral
from typing import Any

import torch
from torch import Size, Tensor, nn
from torch.distributions import Transform, constraints

from ...display.representation import SettingsFirst
from .elementwise import Elementwise
from .transform import FlowTransform

ValueAndLogDet = tuple[Tensor, Tensor]
ALTERNATIVE = "realnvp, spline_coupling or maf, which go both ways"


class Bijector(SettingsFirst):
    r"""$y = f_c(x)$ with $\log|\det \partial y / \partial x|$ from the same pass; abstract.

    A bijector holds parameters and buffers and no other state. `transform(c)` lends it to a distribution. A subclass
    of your own gives `forward` and `inverse`; `assert_bijector` holds it to the laws of this library.

    Shape:
        value: `(*batch, D)`; context: `(*batch, C)` or `None`, batch dims broadcast;
        returns `(value (*batch, D), log-det (*batch))`. Images: `(*batch, C, H, W)`, then the sets have `event_dim` 3.

    Attributes:
        domain: the set of x; its `event_dim` says how many dims an event has.
        codomain: the set of y.
        num_forward: network calls, one after the other, of `forward`; `None` where it can't be computed.
        num_inverse: the same of `inverse`.
        context: size C of the context that it needs, 0 for none.
    """

    domain: constraints.Constraint = constraints.real_vector
    codomain: constraints.Constraint = constraints.real_vector
    num_forward: int | None = 1
    num_inverse: int | None = 1
    context: int = 0

    def forward(self, x: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        r"""$(f_c(x),\ \log|\det \partial f_c / \partial x|)$."""
        raise NotImplementedError(
            f"{type(self).__name__} has no forward pass. "
            f"Fix: {ALTERNATIVE}, or define forward(x, context)."
        )

    def inverse(self, y: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        r"""$(f_c^{-1}(y),\ \log|\det \partial f_c^{-1} / \partial y|)$."""
        raise NotImplementedError(
            f"{type(self).__name__} has no inverse. "
            f"Fix: {ALTERNATIVE}, or define inverse(y, context)."
        )

    def push_score(
        self, x: Tensor, score: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        r"""$(y, \log|\det|, \partial_y \log p(y))$ from $\partial_x \log p(x)$: a score beside a draw.

        $\partial_y \log p(y) = J^{-\top} (\partial_x \log p(x) - \partial_x \log|\det J|)$ with
        $J = \partial y / \partial x$. The score is a plain number: no gradient flows through it. This one takes a
        pass of `inverse`; couplings and autoregressive layers take none.

        Args:
            x: `(*batch, D)`; it needs a gradient of its own, `requires_grad`.
            score: $\partial_x \log p(x)$ `(*batch, D)`.
            context: as in `forward`.

        References:
            Vaitl, Winkler, Richter, Kessel 2024, *Fast and unified path gradient estimators for normalizing
            flows*, arXiv:2403.15881.
        """
        y, log_det = self(x, context)
        with torch.enable_grad():
            given = y.detach().requires_grad_()
            found, inverse_log_det = self.inverse(given, context)
            log_p = (found * score).sum() + inverse_log_det.sum()
            (pushed,) = torch.autograd.grad(log_p, given)
        return y, log_det, pushed

    def _check_context(self, context: Tensor | None) -> None:
        check_context(type(self).__name__, context, self.context)

    def forward_shape(self, shape: Sequence[int]) -> Size:
        """The shape of y for an x of this shape, batch dims included."""
        return Size(shape)

    def inverse_shape(self, shape: Sequence[int]) -> Size:
        """The shape of x for a y of this shape."""
        return Size(shape)

    def transform(self, context: Tensor | None = None) -> FlowTransform:
        """A fresh flyweight `Transform` at this context."""
        return FlowTransform(self, context)


class Inverse(Bijector):
    r"""$f^{-1}$: the same layer the other way round, so the cost of its two directions changes places.

    Example:
        >>> import torch
        >>> from pyro_dgm import iaf
        >>> layer, x = iaf(3, layers=1), torch.randn(5, 3)
        >>> bool(torch.equal(Inverse(layer).inverse(x)[0], layer(x)[0]))
        True
    """

    def __init__(self, bijector: Bijector):
        super().__init__()
        check_bijector("Inverse", bijector)
        self.bijector = bijector
        self.domain = bijector.codomain
        self.codomain = bijector.domain
        self.num_forward = bijector.num_inverse
        self.num_inverse = bijector.num_forward

    def forward(self, x: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        return self.bijector.inverse(x, context)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        return self.bijector(y, context)

    def forward_shape(self, shape: Sequence[int]) -> Size:
        return self.bijector.inverse_shape(shape)

    def inverse_shape(self, shape: Sequence[int]) -> Size:
        return self.bijector.forward_shape(shape)


class Stack(Bijector):
    r"""$f_L \circ \dots \circ f_1$, with $\log|\det| = \sum_i \log|\det J_i|$; reads like a list of bijectors.

    Args:
        bijectors: applied first to last; one alone is a stack of one.

    Raises:
        TypeError: for anything but bijectors.
        ValueError: for none, or if one layer's events are not those of the next.

    Example:
        >>> from pyro_dgm.flows import Permutation
        >>> len(Stack([Permutation(3), Permutation(3)]))
        2
    """

    def __init__(self, bijectors: Sequence[Bijector] | Bijector):
        super().__init__()
        layers = as_layers("Stack", bijectors)
        _check_events(layers)
        self.layers = nn.ModuleList(layers)
        self.domain = layers[0].domain
        self.codomain = layers[-1].codomain
        self.num_forward = _total_calls([layer.num_forward for layer in layers])
        self.num_inverse = _total_calls([layer.num_inverse for layer in layers])

    def forward(self, x: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        total = x.new_zeros(())
        for layer in self:
            x, log_det = layer(x, context)
            total = total + log_det
        return x, total

    def inverse(self, y: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        total = y.new_zeros(())
        for layer in reversed(list(self)):
            y, log_det = layer.inverse(y, context)
            total = total + log_det
        return y, total

    def push_score(
        self, x: Tensor, score: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        total = x.new_zeros(())
        for layer in self:
            x, log_det, score = layer.push_score(x, score, context)
            total = total + log_det
        return x, total, score

    def forward_shape(self, shape: Sequence[int]) -> Size:
        for layer in self:
            shape = layer.forward_shape(shape)
        return Size(shape)

    def inverse_shape(self, shape: Sequence[int]) -> Size:
        for layer in reversed(list(self)):
            shape = layer.inverse_shape(shape)
        return Size(shape)

    def __iter__(self) -> Iterator[Bijector]:
        return iter(self.layers)  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, index: int) -> Bijector:
        return self.layers[index]  # type: ignore[return-value]


def _total_calls(calls: Sequence[int | None]) -> int | None:
    """The sum of the calls; `None` if one of the layers can't be computed."""
    total = 0
    for num in calls:
        if num is None:
            return None
        total += num
    return total


# What is handed over -------------------------------------------------------------------------------------------------


def as_layers(owner: str, bijectors: Sequence[Bijector] | Bijector) -> list[Bijector]:
    """The bijectors as a list, one alone as a list of one; anything else raises with its fix."""
    if isinstance(bijectors, Bijector):
        return [bijectors]
    if not isinstance(bijectors, Sequence | nn.ModuleList):
        check_bijector(owner, bijectors)
    layers = list(bijectors)
    if not layers:
        raise ValueError(
            f"{owner}: expected at least one bijector, got none. "
            "Fix: use the base distribution alone, or layers=2."
        )
    for layer in layers:
        check_bijector(owner, layer)
    return layers


def check_bijector(owner: str, value: Any) -> None:
    """Raise unless the value is a bijector, with the bijector that was probably meant."""
    if isinstance(value, Bijector):
        return
    name = type(value).__name__
    got = f"a {name}"
    fix = "maf(8, layers=2), or a subclass of Bijector"
    if isinstance(value, type):
        got = f"the class {value.__name__}"
        fix = f"an instance, {value.__name__}(…)"
        if issubclass(value, Elementwise):
            fix = f"Coupling(dim, transformer={value.__name__}())"
    elif isinstance(value, Elementwise):
        got = f"the elementwise transformer {name}"
        fix = f"Coupling(dim, transformer={name}())"
    elif isinstance(value, Transform):
        got = f"the transform {name} of torch"
        fix = f"Pointwise({name}(…))"
    raise TypeError(f"{owner}: expected bijectors, got {got}. Fix: {fix}.")


def check_context(owner: str, context: Tensor | None, size: int) -> None:
    """Raise unless the context has the size that the layer was built for."""
    got = 0 if context is None else context.shape[-1]
    if got == size:
        return
    fix = f"context={got} in the stack"
    if size:
        fix = f"Flow(…, embed=net) with {size} outputs, or {fix}"
    raise ValueError(
        f"{owner}: expected a context of size {size}, got {got or 'none'}. Fix: {fix}."
    )


def check_sizes(owner: str, *, context: int = 0, **sizes: int) -> None:
    """Raise unless sizes and counts are positive integers and the context's size is not negative."""
    for name, size in {**sizes, "context": context}.items():
        least = 0 if name == "context" else 1
        if not isinstance(size, Integral) or size < least:
            raise ValueError(
                f"{owner} ({name}): expected an integer >= {least}, got {size!r}. "
                f"Fix: {owner}(…, {name}={2 * least})."
            )


def check_hidden(owner: str, hidden: Any) -> None:
    """Raise if the sizes of the hidden layers are one number in place of a sequence."""
    if isinstance(hidden, Integral):
        raise TypeError(
            f"{owner} (hidden): expected the sizes of the hidden layers, got the number {hidden}. "
            f"Fix: hidden=({hidden},)."
        )


def _check_events(layers: Sequence[Bijector]) -> None:
    """Log-dets of vectors and of images would add up to a wrong one without a word, since they broadcast."""
    for first, second in pairwise(layers):
        out = first.codomain.event_dim
        into = second.domain.event_dim
        if out != into:
            raise ValueError(
                "Stack: expected layers over events of one kind, "
                f"got {type(first).__name__} onto events with {out} dims, "
                f"then {type(second).__name__} on events with {into}. "
                f"Fix: event_dim={out} in the second, or layers of images alone."
            )
