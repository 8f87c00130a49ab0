"""Laws for the bijectors of users: one call in a test of theirs holds a layer to what this library promises."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Normal, TransformedDistribution, transform_to

from .programs.flows.bijector import Bijector, ValueAndLogDet

TOLERANCE = {torch.float64: 1e-8, torch.float32: 2e-2}  # relative and absolute; float32 after steep layers is coarse
BATCHES = ((), (4,), (2, 3, 4))


def assert_bijector(bijector: Bijector, dim: int, context: int = 0, scale: float = 0.3, seed: int = 0) -> None:
    r"""$f^{-1}(f(x)) = x$, $\log|\det| = \log|\det J|$, and every other law of a bijector, on a copy of it.

    The parameters of the copy are moved by `scale` random numbers first: at the identity any law would hold. Checked
    are, for x and context of any leading dims: shapes and dtypes; the round trip and both log-dets; the log-det against
    the autograd Jacobian; broadcasting; gradients that are finite; scoring through a distribution without a stale
    value after an update; `deepcopy` after use; `state_dict`; `vmap`; tracing into one graph; float64 and float32.
    A bijector with `num_inverse = None` is held to the laws of its forward direction.

    Args:
        bijector: the layer; it is left as it is.
        dim: size D of its event.
        context: size C of its context, 0 for none.
        scale: of the random move of every parameter; matrices are moved by as much per row.
        seed: of all random numbers; the state outside stays as it is.

    Raises:
        AssertionError: with the name of the law that fails.

    Example:
        >>> from pyro_dgm import Coupling
        >>> assert_bijector(Coupling(3, context=2), dim=3, context=2)
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for dtype in (torch.float64, torch.float32):
            case = _Case(_moved(bijector, scale, dtype), dim, context, dtype)
            for law in LAWS:
                try:
                    law(case)
                except Exception as error:
                    name = law.__name__.strip("_").replace("_", " ")
                    raise AssertionError(f"{type(bijector).__name__}, {dtype}, law '{name}': {error}") from error


def _moved(bijector: Bijector, scale: float, dtype: torch.dtype) -> Bijector:
    twin = copy.deepcopy(bijector).to(dtype)
    with torch.no_grad():
        for parameter in twin.parameters():
            fan_in = parameter.shape[-1] if parameter.dim() > 1 else 1
            parameter.add_(scale * torch.randn_like(parameter) / fan_in**0.5)
    return twin


class _Case:
    """A bijector with random points of its domains and contexts."""

    def __init__(self, bijector: Bijector, dim: int, context: int, dtype: torch.dtype):
        self.bijector, self.dim, self.context, self.dtype = bijector, dim, context, dtype
        self.both_ways = bijector.num_inverse is not None

    @property
    def ways(self) -> list[tuple[Callable[..., ValueAndLogDet], Any]]:
        """Every direction that exists, with the set that its points come from."""
        ways: list = [(self.bijector.forward, self.bijector.domain)]
        return ways + ([(self.bijector.inverse, self.bijector.codomain)] if self.both_ways else [])

    def point(self, of: Any, *batch: int) -> Tensor:
        return transform_to(of)(torch.randn(*batch, self.dim, dtype=self.dtype))

    def at(self, *batch: int) -> Tensor | None:
        return torch.randn(*batch, self.context, dtype=self.dtype) if self.context else None

    def close(self, got: Any, expected: Any) -> None:
        torch.testing.assert_close(got, expected, rtol=TOLERANCE[self.dtype], atol=TOLERANCE[self.dtype])

    def log_prob(self, bijector: Bijector, x: Tensor, context: Tensor | None) -> Tensor:
        """Of points given to the distribution, or of its own draws where there is no inverse."""
        base = Normal(torch.zeros_like(x), 1.0)
        law = TransformedDistribution(base, [bijector.transform(context)], validate_args=False)
        return law.log_prob(x) if self.both_ways else bijector(x, context)[1]


def _shapes_and_dtypes(case: _Case) -> None:
    for (f, domain), batch in ((way, batch) for way in case.ways for batch in BATCHES):
        y, log_det = f(case.point(domain, *batch), case.at(*batch))
        got = (tuple(y.shape), tuple(log_det.shape), y.dtype, log_det.dtype)
        expected = ((*batch, case.dim), batch, case.dtype, case.dtype)
        assert got == expected, f"expected value and log-det of shapes and dtypes {expected}, got {got}"
        assert bool(y.isfinite().all() and log_det.isfinite().all()), "a value or log-det is not finite"


def _round_trip(case: _Case) -> None:
    if not case.both_ways:
        return
    (f, domain), (g, codomain) = case.ways
    for first, second, of in ((f, g, domain), (g, f, codomain)):
        x, context = case.point(of, 7), case.at(7)
        y, log_det = first(x, context)
        back, back_log_det = second(y, context)
        case.close((back, back_log_det), (x, -log_det))


def _log_det_is_that_of_the_jacobian(case: _Case) -> None:
    if case.dtype != torch.float64:
        return
    for f, domain in case.ways:
        x, context = case.point(domain), case.at()
        jacobian = torch.autograd.functional.jacobian(lambda x, f=f, c=context: f(x, c)[0], x)
        case.close(f(x, context)[1], jacobian.slogdet().logabsdet)


def _leading_dims_broadcast(case: _Case) -> None:
    for f, domain in case.ways:
        x, context = case.point(domain, 2, 1), case.at(3)
        if context is not None:
            case.close(f(x, context), f(x.expand(2, 3, -1), context.expand(2, 3, -1)))


def _gradients_are_finite(case: _Case) -> None:
    for f, domain in case.ways:
        case.bijector.zero_grad()
        y, log_det = f(case.point(domain, 16), case.at(16))
        if not y.requires_grad and not log_det.requires_grad:
            continue
        (y.square().sum(-1) + log_det).mean().backward()
        bad = [n for n, p in case.bijector.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
        assert not bad, f"expected finite gradients, got others for {bad}"


def _no_stale_value_after_an_update(case: _Case) -> None:
    points, context = [case.point(domain, 5) for _, domain in case.ways], case.at(5)

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
    x, context = case.point(case.bijector.domain, 5), case.at(5)
    before = case.bijector(x, context)
    case.close(copy.deepcopy(case.bijector)(x, context), before)


def _a_state_dict_carries_everything(case: _Case) -> None:
    plain = [n for module in case.bijector.modules() for n, value in vars(module).items() if isinstance(value, Tensor)]
    assert not plain, f"expected parameters and buffers, got plain tensors {plain}. Fix: register_buffer"
    x, context = case.point(case.bijector.domain, 5), case.at(5)
    other = _moved(case.bijector, 1.0, case.dtype)
    other.load_state_dict(case.bijector.state_dict(), strict=True)
    case.close(other(x, context), case.bijector(x, context))


def _vmap_equals_its_own_batch(case: _Case) -> None:
    for f, domain in case.ways:
        x, context = case.point(domain, 5), case.at(5)
        in_dims = (0, None if context is None else 0)
        y, log_det = torch.func.vmap(f, in_dims=in_dims)(x, context)
        expected = f(x, context)
        case.close((y, log_det), (expected[0], expected[1].expand_as(log_det)))


def _traces_into_one_graph(case: _Case) -> None:
    from torch.fx.experimental.proxy_tensor import make_fx  # slow to import

    for f, domain in case.ways:
        graph = make_fx(_function(f))(case.point(domain, 5), case.at(5))
        x, context = case.point(domain, 5), case.at(5)
        case.close(graph(x, context), f(x, context))


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
