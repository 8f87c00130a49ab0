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
from torch.distributions.constraints import Constraint

from .flows.bijector import Bijector, ValueAndLogDet

# Relative and absolute; float32 after steep layers is coarse.
TOLERANCE = {torch.float64: 1e-8, torch.float32: 2e-2}
BATCHES: tuple[tuple[int, ...], ...] = ((), (4,), (2, 3, 4))
Shape = int | Sequence[int]
Inputs = tuple[Tensor, Tensor | None]
BijectorFunction = Callable[[Tensor, Tensor | None], ValueAndLogDet]


def assert_bijector(
    bijector: Bijector, dim: Shape, context: Shape = 0, scale: float = 0.3, seed: int = 0
) -> None:
    r"""$f^{-1}(f(x)) = x$, $\log|\det| = \log|\det J|$, and every other law of a bijector, on a copy of it.

    The parameters of the copy are moved by `scale` random numbers first: at the identity any law would hold. Checked
    are, for x and context of any leading dims: shapes and dtypes; the round trip and both log-dets; the log-det against
    the autograd Jacobian; broadcasting; gradients that are finite; scoring through a distribution without a stale
    value after an update; `deepcopy` after use; `state_dict`; `vmap`; tracing into one graph. All hold in float64 and
    in float32, but for the Jacobian, which float64 decides.
    A bijector with `num_inverse = None` is held to the laws of its forward direction.

    Args:
        bijector: the layer; it is left as it is.
        dim: size D of the event that enters `forward`, or its shape: `(C, H, W)` for images.
        context: size C of its context, or its shape; 0 for none.
        scale: of the random move of every parameter; matrices are moved by as much per row.
        seed: of all random numbers; the state outside stays as it is.

    Raises:
        AssertionError: with the name of the law that fails, and the fix.

    Example:
        >>> from pyro_dgm.flows import Coupling
        >>> assert_bijector(Coupling(3, context=2), dim=3, context=2)
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for dtype in (torch.float64, torch.float32):
            case = _Case(_perturbed_copy(bijector, scale, dtype), dim, context, dtype)
            for law, fix in LAWS.items():
                _assert_law(law, case, fix)


def _assert_law(law: Callable[[_Case], None], case: _Case, fix: str) -> None:
    try:
        law(case)
    except Exception as error:
        layer = type(case.bijector).__name__
        name = law.__name__.strip("_").replace("_", " ")
        raise AssertionError(
            f"{layer}, {case.dtype}, law '{name}': {error}\nFix: {fix}."
        ) from error


def _perturbed_copy(bijector: Bijector, scale: float, dtype: torch.dtype) -> Bijector:
    twin = copy.deepcopy(bijector).to(dtype)
    with torch.no_grad():
        for parameter in twin.parameters():
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 1
            parameter.add_(scale * torch.randn_like(parameter) / fan_in**0.5)
    return twin


class _Direction(NamedTuple):
    """Forward or inverse: the function, the set that its points come from, and the event shapes of both sides."""

    function: BijectorFunction
    domain: Constraint
    event: tuple[int, ...]
    out: tuple[int, ...]


class _Case:
    """A bijector with random points of its domains and contexts."""

    def __init__(self, bijector: Bijector, dim: Shape, context: Shape, dtype: torch.dtype):
        self.bijector = bijector
        self.dtype = dtype
        self.event = _as_shape(dim)
        self.context = _as_shape(context) if context else ()
        self.both_ways = bijector.num_inverse is not None

    @property
    def directions(self) -> list[_Direction]:
        """Every direction that exists, forward first."""
        layer = self.bijector
        out = tuple(layer.forward_shape(self.event))
        directions = [_Direction(layer.forward, layer.domain, self.event, out)]
        if self.both_ways:
            directions.append(_Direction(layer.inverse, layer.codomain, out, self.event))
        return directions

    def random_inputs(self, direction: _Direction, *batch: int) -> Inputs:
        """Points of the direction's domain, and contexts."""
        raw = torch.randn(*batch, *direction.event, dtype=self.dtype)
        x = transform_to(direction.domain)(raw)
        if not self.context:
            return x, None
        return x, torch.randn(*batch, *self.context, dtype=self.dtype)

    def assert_close(self, got: Any, expected: Any) -> None:
        tolerance = TOLERANCE[self.dtype]
        torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)

    def log_prob(self, bijector: Bijector, x: Tensor, context: Tensor | None) -> Tensor:
        """Of points given to the distribution, or the log-det of a draw where there is no inverse."""
        if not self.both_ways:
            return bijector(x, context)[1]
        loc = torch.zeros(self.bijector.inverse_shape(x.shape), dtype=x.dtype)
        base = Independent(Normal(loc, 1.0), len(self.event))
        transform = bijector.transform(context)
        return TransformedDistribution(base, transform, validate_args=False).log_prob(x)


def _as_shape(size: Shape) -> tuple[int, ...]:
    return (size,) if isinstance(size, int) else tuple(size)


# The laws, one function each -----------------------------------------------------------------------------------------


def _shapes_and_dtypes(case: _Case) -> None:
    for direction, batch in product(case.directions, BATCHES):
        y, log_det = direction.function(*case.random_inputs(direction, *batch))
        _assert_one("value", y, (*batch, *direction.out), case.dtype)
        _assert_one("log-det", log_det, batch, case.dtype)


def _assert_one(name: str, got: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    expected = f"expected a {name} of shape {shape} and {dtype}"
    assert got.shape == shape, f"{expected}, got shape {tuple(got.shape)}"
    assert got.dtype == dtype, f"{expected}, got {got.dtype}"
    assert bool(got.isfinite().all()), f"expected a finite {name}, got NaN or inf"


def _round_trip(case: _Case) -> None:
    if not case.both_ways:
        return
    forward, inverse = case.directions
    for there, back in ((forward, inverse), (inverse, forward)):
        x, context = case.random_inputs(there, 7)
        y, log_det = there.function(x, context)
        case.assert_close(back.function(y, context), (x, -log_det))


def _log_det_is_that_of_the_jacobian(case: _Case) -> None:
    if case.dtype != torch.float64:
        return
    for direction in case.directions:
        x, context = case.random_inputs(direction)
        jacobian = _jacobian(direction.function, x, context)
        matrix = jacobian.reshape(prod(direction.out), prod(direction.event))
        _, log_det = direction.function(x, context)
        case.assert_close(log_det, matrix.slogdet().logabsdet)


def _jacobian(function: BijectorFunction, x: Tensor, context: Tensor | None) -> Tensor:
    """All rows from one batched backward pass; row by row, an inverse of D network calls would take D² of them."""

    def value(x: Tensor) -> Tensor:
        return function(x, context)[0]

    return torch.autograd.functional.jacobian(value, x, vectorize=True)


def _leading_dims_broadcast(case: _Case) -> None:
    for direction in case.directions:
        x, _ = case.random_inputs(direction, 2, 1)
        _, context = case.random_inputs(direction, 3)
        if context is None:
            continue
        x_of_all = x.expand(2, 3, *direction.event)
        context_of_all = context.expand(2, 3, *case.context)
        expected = direction.function(x_of_all, context_of_all)
        case.assert_close(direction.function(x, context), expected)


def _gradients_are_finite(case: _Case) -> None:
    for direction in case.directions:
        case.bijector.zero_grad()
        y, log_det = direction.function(*case.random_inputs(direction, 16))
        square_norm = y.square().flatten(1).sum(-1)
        loss = (square_norm + log_det).mean()
        if not loss.requires_grad:
            continue
        loss.backward()
        for name, parameter in case.bijector.named_parameters():
            finite = parameter.grad is None or bool(parameter.grad.isfinite().all())
            assert finite, f"expected finite gradients, got others for {name}"


def _a_deep_copy_after_use_computes_alike(case: _Case) -> None:
    x, context = case.random_inputs(case.directions[0], 5)
    before = case.bijector(x, context)
    case.assert_close(copy.deepcopy(case.bijector)(x, context), before)


def _a_state_dict_carries_everything(case: _Case) -> None:
    for module in case.bijector.modules():
        for name, value in vars(module).items():
            plain = isinstance(value, Tensor)
            assert not plain, f"expected parameters and buffers, got the plain tensor {name}"
    x, context = case.random_inputs(case.directions[0], 5)
    other = _perturbed_copy(case.bijector, 1.0, case.dtype)
    other.load_state_dict(case.bijector.state_dict(), strict=True)
    case.assert_close(other(x, context), case.bijector(x, context))


def _vmap_equals_its_own_batch(case: _Case) -> None:
    for direction in case.directions:
        x, context = case.random_inputs(direction, 5)
        in_dims = (0, None if context is None else 0)
        y, log_det = torch.func.vmap(direction.function, in_dims=in_dims)(x, context)
        expected_y, expected_log_det = direction.function(x, context)
        case.assert_close((y, log_det), (expected_y, expected_log_det.expand_as(log_det)))


def _traces_into_one_graph(case: _Case) -> None:
    from torch.fx.experimental.proxy_tensor import make_fx  # slow to import

    for direction in case.directions:
        trace = make_fx(_without_self(direction.function))
        graph = trace(*case.random_inputs(direction, 5))
        others = case.random_inputs(direction, 5)
        case.assert_close(graph(*others), direction.function(*others))


def _without_self(method: BijectorFunction) -> BijectorFunction:
    """A bound method as a function of two arguments, which is what `make_fx` counts."""

    def function(x: Tensor, context: Tensor | None) -> ValueAndLogDet:
        return method(x, context)

    return function


def _no_stale_value_after_an_update(case: _Case) -> None:
    """The layer is used, updated in place to the weights of another, and must then compute as that one does."""
    inputs = [case.random_inputs(direction, 5) for direction in case.directions]
    _compute_all(case, case.bijector, inputs)

    twin = _perturbed_copy(case.bijector, 0.1, case.dtype)
    with torch.no_grad():
        for name, parameter in case.bijector.named_parameters():
            parameter.copy_(twin.get_parameter(name))
    got = _compute_all(case, case.bijector, inputs)
    fresh_inputs = [(x.clone(), context) for x, context in inputs]
    case.assert_close(got, _compute_all(case, twin, fresh_inputs))


def _compute_all(case: _Case, bijector: Bijector, inputs: list[Inputs]) -> list[Any]:
    """Values and log-dets of every direction, and the density of the last points."""
    values: list[Any] = [bijector(*inputs[0])]
    if case.both_ways:
        values.append(bijector.inverse(*inputs[1]))
    values.append(case.log_prob(bijector, *inputs[-1]))
    return values


# Each law with what mends a layer that breaks it.
LAWS: dict[Callable[[_Case], None], str] = {
    _shapes_and_dtypes: "return the value (*batch, *event) and the log-det (*batch), "
    "both in the dtype of the input",
    _round_trip: "let inverse undo forward, datum by datum, and return the negative log-det",
    _log_det_is_that_of_the_jacobian: "sum log |dy_d / dx_d| over the event",
    _leading_dims_broadcast: "torch.broadcast_shapes of the leading dims, as concat_inputs does",
    _gradients_are_finite: "clamp(min=eps) what enters sqrt, log or a division",
    _a_deep_copy_after_use_computes_alike: "keep no result of a call on the module",
    _a_state_dict_carries_everything: "self.register_buffer(name, tensor)",
    _vmap_equals_its_own_batch: "torch.where in place of if, and no statistics of the batch",
    _traces_into_one_graph: "torch.where in place of if; no .item() and no bool(tensor)",
    _no_stale_value_after_an_update: "keep no result of a call on the module",
}
