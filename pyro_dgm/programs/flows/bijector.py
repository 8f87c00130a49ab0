"""The flow core: fused bijectors, and the flyweight `Transform` that carries one evaluation of them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from itertools import pairwise

import torch
from torch import Size, Tensor, nn
from torch.distributions import Transform, constraints

ValueAndLogDet = tuple[Tensor, Tensor]
ALTERNATIVE = "realnvp, spline_coupling or maf, which go both ways"


class Bijector(nn.Module):
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
        raise NotImplementedError(f"{type(self).__name__} has no forward pass. Fix: {ALTERNATIVE}.")

    def inverse(self, y: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        r"""$(f_c^{-1}(y),\ \log|\det \partial f_c^{-1} / \partial y|)$."""
        raise NotImplementedError(f"{type(self).__name__} has no inverse. Fix: {ALTERNATIVE}.")

    def _check_context(self, context: Tensor | None, size: int) -> None:
        got = 0 if context is None else context.shape[-1]
        if got != size:
            embedded = f", or Flow(…, embed=net) with {size} outputs" if size and got else ""
            raise ValueError(
                f"{type(self).__name__}: expected a context of size {size}, got {got or 'none'}. "
                f"Fix: context={got} in the stack{embedded}."
            )

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
        >>> x = torch.randn(5, 3)
        >>> from pyro_dgm import iaf
        >>> layer = iaf(3, layers=1)
        >>> bool(torch.equal(Inverse(layer).inverse(x)[0], layer(x)[0]))
        True
    """

    def __init__(self, bijector: Bijector):
        super().__init__()
        self.bijector = bijector
        self.domain, self.codomain = bijector.codomain, bijector.domain
        self.num_forward, self.num_inverse = bijector.num_inverse, bijector.num_forward

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

    Example:
        >>> len(Stack([Permutation(3), Permutation(3)]))
        2
    """

    def __init__(self, bijectors: Sequence[Bijector] | Bijector):
        super().__init__()
        layers = [bijectors] if isinstance(bijectors, Bijector) else list(bijectors)
        if not layers:
            raise ValueError(
                "Stack: expected at least one bijector, got none. Fix: use the base distribution alone."
            )
        _check_events(layers)
        self.layers = nn.ModuleList(layers)
        self.domain, self.codomain = layers[0].domain, layers[-1].codomain
        self.num_forward = _total(layer.num_forward for layer in layers)
        self.num_inverse = _total(layer.num_inverse for layer in layers)

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

    def forward_shape(self, shape: Sequence[int]) -> Size:
        return reduce(lambda shape, layer: layer.forward_shape(shape), self, Size(shape))

    def inverse_shape(self, shape: Sequence[int]) -> Size:
        return reduce(
            lambda shape, layer: layer.inverse_shape(shape), reversed(list(self)), Size(shape)
        )

    def __iter__(self) -> Iterator[Bijector]:
        return iter(self.layers)  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, index: int) -> Bijector:
        return self.layers[index]  # type: ignore[return-value]


def _check_events(layers: Sequence[Bijector]) -> None:
    """Log-dets of vectors and of images would add up to a wrong one without a word, since they broadcast."""
    for first, second in pairwise(layers):
        out, into = first.codomain.event_dim, second.domain.event_dim
        if out != into:
            raise ValueError(
                f"Stack: expected layers over events of one kind, got {type(first).__name__} onto events with {out} "
                f"dims, then {type(second).__name__} on events with {into}. Fix: event_dim={out} in the second, or "
                "layers of images alone."
            )


def _total(calls: Iterable[int | None]) -> int | None:
    """The sum of the calls; `None` if one of the layers can't be computed."""
    known = list(calls)
    return None if None in known else sum(n for n in known if n is not None)


def _state(value: Tensor) -> tuple[int, bool]:
    """What changes when a tensor is written in place or asked for its gradient."""
    return 0 if value.is_inference() else value._version, value.requires_grad


class Evaluation:
    """One evaluated pair y = f(x) with its log-det, the state of both, and whether gradients were recorded."""

    def __init__(self, x: Tensor, y: Tensor, log_det: Tensor):
        self.x, self.y, self.log_det = x, y, log_det
        self.states = _state(x), _state(y)
        self.with_grad = torch.is_grad_enabled()

    def fits(self, *, x: Tensor | None = None, y: Tensor | None = None) -> bool:
        same = (
            (x is None or x is self.x)
            and (y is None or y is self.y)
            and self.states == (_state(self.x), _state(self.y))
        )
        # A value drawn under no_grad is evaluated again once gradients are wanted; else they would silently be lost.
        return same and (self.with_grad or not torch.is_grad_enabled())


VERB = {"forward": "drawing (forward)", "inverse": "scoring a given point (inverse)"}


class DirectionWarning(UserWarning):
    """A training loop takes the slow direction of a flow."""

    def __init__(self, direction: str, num: int, num_other: int):
        super().__init__(
            f"a flow is trained through its slow direction: {VERB[direction]} takes {num} network calls one after the "
            f"other, {num_other} the other way. Fix: maf to score given points (prior, density), iaf to sample "
            "(posterior), coupling layers for both; or keep it, at this price."
        )


class FlowTransform(Transform):
    r"""A bijector at one context, as a `torch.distributions.Transform`; it lives as long as one distribution.

    It keeps its last evaluation, so that a distribution scores its own draw without a second pass through the networks
    and without a sequential inversion. Nothing is kept on the bijector: an update of the weights can't leave a stale
    density behind, and modules stay deep-copyable.

    Args:
        bijector: the module that computes.
        context: `(*batch, C)` or `None`.
    """

    bijective = True

    def __init__(self, bijector: Bijector, context: Tensor | None = None):
        super().__init__(cache_size=1)
        self.bijector, self.context = bijector, context
        self._last: Evaluation | None = None

    @property
    def domain(self) -> constraints.Constraint:  # type: ignore[override]
        return self.bijector.domain

    @property
    def codomain(self) -> constraints.Constraint:  # type: ignore[override]
        return self.bijector.codomain

    @property
    def inv(self) -> Transform:
        inverse = super().inv
        self._inv = (
            None  # a reference both ways would keep the tensors until Python next looks for cycles
        )
        return inverse

    def __call__(self, x: Tensor) -> Tensor:
        return self._forward(x).y

    def _inv_call(self, y: Tensor) -> Tensor:
        if self._last is None or not self._last.fits(y=y):
            self._warn("inverse", self.bijector.num_inverse, self.bijector.num_forward)
            x, log_det = self.bijector.inverse(y, self.context)
            self._last = Evaluation(x, y, -log_det)
        return self._last.x

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        if self._last is not None and self._last.fits(x=x, y=y):
            return self._last.log_det
        return self._forward(x).log_det

    def _forward(self, x: Tensor) -> Evaluation:
        if self._last is None or not self._last.fits(x=x):
            self._warn("forward", self.bijector.num_forward, self.bijector.num_inverse)
            y, log_det = self.bijector(x, self.context)
            self._last = Evaluation(x, y, log_det)
        return self._last

    def _warn(self, direction: str, num: int | None, num_other: int | None) -> None:
        """Say once that a training loop goes the slow way: Python shows an equal warning of one line only once."""
        training = torch.is_grad_enabled() and self.bijector.training
        if training and num is not None and num_other is not None and num > num_other > 0:
            warnings.warn(DirectionWarning(direction, num, num_other), stacklevel=2)

    def forward_shape(self, shape: Sequence[int]) -> Size:
        return self.bijector.forward_shape(shape)

    def inverse_shape(self, shape: Sequence[int]) -> Size:
        return self.bijector.inverse_shape(shape)

    def with_cache(self, cache_size: int = 1) -> FlowTransform:
        return self

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)


class Permutation(Bijector):
    r"""$y_i = x_{\pi(i)}$ with $\log|\det| = 0$; the default reverses the order.

    The permutation is a buffer: it travels in the state dict and is the same on every rank. A context is passed over.

    Args:
        dim: size D of the event.
        order: the permutation π as D indices.

    Example:
        >>> Permutation(3)(torch.tensor([1., 2., 3.]))[0]
        tensor([3., 2., 1.])
    """

    order: Tensor
    inverse_order: Tensor
    num_forward = num_inverse = 0

    def __init__(self, dim: int, order: Sequence[int] | None = None):
        super().__init__()
        indices = torch.arange(dim).flip(0) if order is None else torch.as_tensor(order)
        if not torch.equal(indices.sort().values, torch.arange(dim)):
            raise ValueError(
                f"Permutation: expected a permutation of range({dim}), got {indices.tolist()}."
            )
        self.register_buffer("order", indices)
        self.register_buffer("inverse_order", indices.argsort())

    def forward(self, x: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        return x[..., self.order], x.new_zeros(x.shape[:-1])

    def inverse(self, y: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        return y[..., self.inverse_order], y.new_zeros(y.shape[:-1])
