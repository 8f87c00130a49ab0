"""Laws for the bijectors of users: one call in a test of theirs holds a layer to what this library promises."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import product
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Independent, Normal, TransformedDistribution, transform_to

from .programs.flows.bijector import Bijector, ValueAndLogDet

TOLERANCE = {
    torch.float64: 1e-8,
    torch.float32: 2e-2,
}  # relative and absolute; float32 after steep layers is coarse
BATCHES = ((), (4,), (2, 3, 4))
Shape = int | Sequence[int]


def assert_bijector(
    bijector: Bijector, dim: Shape, context: Shape = 0, scale: float = 0.3, seed: int = 0
) -> None:
    r"""$f^{-1}(f(x)) = x$, $\log|\det| = \log|\det J|$, and every other law of a bijector, on a copy of it.

    The parameters of the copy are moved by `scale` random numbers first: at the identity any law would hold. Checked
    are, for x and context of any leading dims: shapes and dtypes; the round trip and both log-dets; the log-det against
    the autograd Jacobian; broadcasting; gradients that are finite; scoring through a distribution without a stale
    value after an update; `deepcopy` after use; `state_dict`; `vmap`; tracing into one graph; float64 and float32.
    A bijector with `num_inverse = None` is held to the laws of its forward direction.

    Args:
        bijector: the layer; it is left as it is.
        dim: size D of the event that enters `forward`, or its shape: `(C, H, W)` for images.
        context: size C of its context, or its shape; 0 for none.
        scale: of the random move of every parameter; matrices are moved by as much per row.
        seed: of all random numbers; the state outside stays as it is.

    Raises:
        AssertionError: with the name of the law that fails.

    Example:
        >>> from pyro_dgm.flows import Coupling
        >>> assert_bijector(Coupling(3, context=2), dim=3, context=2)
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for dtype in (torch.float64, torch.float32):
            case = _Case(_moved(bijector, scale, dtype), dim, context, dtype)
            for distribution in LAWS:
                try:
                    distribution(case)
                except Exception as error:
                    name = distribution.__name__.strip("_").replace("_", " ")
                    raise AssertionError(
                        f"{type(bijector).__name__}, {dtype}, law '{name}': {error}"
                    ) from error


def _moved(bijector: Bijector, scale: float, dtype: torch.dtype) -> Bijector:
    twin = copy.deepcopy(bijector).to(dtype)
    with torch.no_grad():
        for parameter in twin.parameters():
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 1
            parameter.add_(scale * torch.randn_like(parameter) / fan_in**0.5)
    return twin


class _Way(NamedTuple):
    """One direction: the function, the set that its points come from, and the event shapes of both sides."""

    function: Callable[..., ValueAndLogDet]
    domain: Any
    event: tuple[int, ...]
    out: tuple[int, ...]


class _Case:
    """A bijector with random points of its domains and contexts."""

    def __init__(self, bijector: Bijector, dim: Shape, context: Shape, dtype: torch.dtype):
        self.bijector, self.dtype = bijector, dtype
        self.event, self.context = _shape(dim), _shape(context) if context else ()
        self.both_ways = bijector.num_inverse is not None

    @property
    def ways(self) -> list[_Way]:
        """Every direction that exists."""
        out, both = tuple(self.bijector.forward_shape(self.event)), self.bijector
        ways = [
            _Way(both.forward, both.domain, self.event, out),
            _Way(both.inverse, both.codomain, out, self.event),
        ]
        return ways if self.both_ways else ways[:1]

    def point(self, way: _Way, *batch: int) -> Tensor:
        return transform_to(way.domain)(torch.randn(*batch, *way.event, dtype=self.dtype))

    def at(self, *batch: int) -> Tensor | None:
        return torch.randn(*batch, *self.context, dtype=self.dtype) if self.context else None

    def close(self, got: Any, expected: Any) -> None:
        torch.testing.assert_close(
            got, expected, rtol=TOLERANCE[self.dtype], atol=TOLERANCE[self.dtype]
        )

    def log_prob(self, bijector: Bijector, x: Tensor, context: Tensor | None) -> Tensor:
        """Of points given to the distribution, or of its own draws where there is no inverse."""
        if not self.both_ways:
            return bijector(x, context)[1]
        base = Normal(torch.zeros(self.bijector.inverse_shape(x.shape), dtype=x.dtype), 1.0)
        distribution = TransformedDistribution(
            Independent(base, len(self.event)), [bijector.transform(context)], validate_args=False
        )
        return distribution.log_prob(x)


def _shape(size: Shape) -> tuple[int, ...]:
    return (size,) if isinstance(size, int) else tuple(size)


def _shapes_and_dtypes(case: _Case) -> None:
    for way, batch in product(case.ways, BATCHES):
        y, log_det = way.function(case.point(way, *batch), case.at(*batch))
        got = (tuple(y.shape), tuple(log_det.shape), y.dtype, log_det.dtype)
        expected = ((*batch, *way.out), batch, case.dtype, case.dtype)
        assert got == expected, (
            f"expected value and log-det of shapes and dtypes {expected}, got {got}"
        )
        assert bool(y.isfinite().all() and log_det.isfinite().all()), (
            "a value or log-det is not finite"
        )


def _round_trip(case: _Case) -> None:
    if not case.both_ways:
        return
    for way, back_way in (case.ways, case.ways[::-1]):
        x, context = case.point(way, 7), case.at(7)
        y, log_det = way.function(x, context)
        back, back_log_det = back_way.function(y, context)
        case.close((back, back_log_det), (x, -log_det))


def _log_det_is_that_of_the_jacobian(case: _Case) -> None:
    if case.dtype != torch.float64:
        return
    for way in case.ways:
        x, context = case.point(way), case.at()
        jacobian = torch.autograd.functional.jacobian(
            lambda x, f=way.function, c=context: f(x, c)[0], x
        )
        matrix = jacobian.reshape(prod(way.out), prod(way.event))
        case.close(way.function(x, context)[1], matrix.slogdet().logabsdet)


def _leading_dims_broadcast(case: _Case) -> None:
    for way in case.ways:
        x, context = case.point(way, 2, 1), case.at(3)
        if context is not None:
            alike = x.expand(2, 3, *way.event), context.expand(2, 3, *case.context)
            case.close(way.function(x, context), way.function(*alike))


def _gradients_are_finite(case: _Case) -> None:
    for way in case.ways:
        case.bijector.zero_grad()
        y, log_det = way.function(case.point(way, 16), case.at(16))
        if not y.requires_grad and not log_det.requires_grad:
            continue
        (y.square().flatten(1).sum(-1) + log_det).mean().backward()
        bad = [
            n
            for n, p in case.bijector.named_parameters()
            if p.grad is not None and not p.grad.isfinite().all()
        ]
        assert not bad, f"expected finite gradients, got others for {bad}"


def _no_stale_value_after_an_update(case: _Case) -> None:
    points, context = [case.point(way, 5) for way in case.ways], case.at(5)

    def values(bijector: Bijector, points: list[Tensor]) -> list:
        ways = zip((bijector.forward, bijector.inverse), points, strict=False)
        return [*(f(x, context) for f, x in ways), case.log_prob(bijector, points[-1], context)]

    values(case.bijector, points)
    twin = _moved(case.bijector, 0.1, case.dtype)
    with torch.no_grad():
        for mine, other in zip(case.bijector.parameters(), twin.parameters(), strict=True):
            mine.copy_(other)
    case.close(values(case.bijector, points), values(twin, [x.clone() for x in points]))


def _a_deep_copy_after_use_computes_alike(case: _Case) -> None:
    x, context = case.point(case.ways[0], 5), case.at(5)
    before = case.bijector(x, context)
    case.close(copy.deepcopy(case.bijector)(x, context), before)


def _a_state_dict_carries_everything(case: _Case) -> None:
    plain = [
        n
        for module in case.bijector.modules()
        for n, value in vars(module).items()
        if isinstance(value, Tensor)
    ]
    assert not plain, (
        f"expected parameters and buffers, got plain tensors {plain}. Fix: register_buffer"
    )
    x, context = case.point(case.ways[0], 5), case.at(5)
    other = _moved(case.bijector, 1.0, case.dtype)
    other.load_state_dict(case.bijector.state_dict(), strict=True)
    case.close(other(x, context), case.bijector(x, context))


def _vmap_equals_its_own_batch(case: _Case) -> None:
    for way in case.ways:
        x, context = case.point(way, 5), case.at(5)
        in_dims = (0, None if context is None else 0)
        y, log_det = torch.func.vmap(way.function, in_dims=in_dims)(x, context)
        expected = way.function(x, context)
        case.close((y, log_det), (expected[0], expected[1].expand_as(log_det)))


def _traces_into_one_graph(case: _Case) -> None:
    from torch.fx.experimental.proxy_tensor import make_fx  # slow to import

    for way in case.ways:
        graph = make_fx(_function(way.function))(case.point(way, 5), case.at(5))
        x, context = case.point(way, 5), case.at(5)
        case.close(graph(x, context), way.function(x, context))


def _function(f: Callable) -> Callable:
    """A bound method as a function of two arguments, which is what `make_fx` counts."""

    def function(x: Tensor, context: Tensor | None) -> ValueAndLogDet:
        return f(x, context)

    return function


LAWS: tuple[Callable[[_Case], None], ...] = (
    _shapes_and_dtypes,
    _round_trip,
    _log_det_is_that_of_the_jacobian,
    _leading_dims_broadcast,
    _gradients_are_finite,
    _a_deep_copy_after_use_computes_alike,
    _a_state_dict_carries_everything,
    _vmap_equals_its_own_batch,
    _traces_into_one_graph,
    _no_stale_value_after_an_update,
)
