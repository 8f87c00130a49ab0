"""Any torch or Pyro `Transform` as a bijector."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import Transform, constraints

from .bijector import Bijector, ValueAndLogDet


class Pointwise(Bijector):
    r"""$y = t(x)$ for a `Transform` t of torch or Pyro, with $\log|\det|$ summed over the coordinates.

    Transforms of single numbers act on every coordinate; transforms of vectors, Pyro's transform modules among them,
    act as they are. What they cache is cleared after every call: no stale density, no freed graph, and the module can
    be copied. A Pyro `ConditionalTransform` is conditioned on the context.

    Args:
        transform: the transform; its parameters, if it is a module, are the bijector's.

    Raises:
        TypeError: for anything but a transform.
        ValueError: for a transform of matrices, or one that changes the size of its event.
        NotImplementedError: in the direction that the transform lacks.

    Example:
        >>> y, log_det = Pointwise(torch.distributions.SigmoidTransform())(torch.zeros(5, 3))
        >>> y[0].tolist(), round(log_det[0].item(), 4)
        ([0.5, 0.5, 0.5], -4.1589)
    """

    def __init__(self, transform: Transform | dist.ConditionalTransform):
        super().__init__()
        _check_transform(transform)
        self.wrapped = transform
        self.learned = transform if isinstance(transform, nn.Module) else None
        if isinstance(transform, Transform):
            self.domain = _on_vectors(transform.domain)
            self.codomain = _on_vectors(transform.codomain)
            if self.learned is None:
                self.num_forward = self.num_inverse = 0

    def extra_repr(self) -> str:
        return "" if self.learned is not None else f"{self.wrapped}"

    def forward(self, x: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        x, transform = self._at_context(x, context)
        try:
            y = transform(x)
            if y.shape != x.shape:
                raise ValueError(
                    "Pointwise: expected a transform that keeps the size of its event, "
                    f"got one from {tuple(x.shape)} to {tuple(y.shape)}. "
                    "Fix: a subclass of Bijector with forward_shape and inverse_shape."
                )
            return y, _sum_over_event(transform.log_abs_det_jacobian(x, y), x)
        finally:
            _clear_caches(transform)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        y, transform = self._at_context(y, context)
        try:
            x = transform.inv(y)
            return x, -_sum_over_event(transform.log_abs_det_jacobian(x, y), y)
        # What Pyro's transforms without an inverse raise for a foreign point.
        except KeyError as error:
            raise NotImplementedError(
                f"{type(transform).__name__} has no inverse: {error}. "
                "Fix: use it in a guide alone, or spline_coupling, which goes both ways."
            ) from error
        finally:
            _clear_caches(transform)

    def _at_context(self, value: Tensor, context: Tensor | None) -> tuple[Tensor, Transform]:
        """The transform at the context; leading dims are made equal, since Pyro's networks don't broadcast them."""
        if not isinstance(self.wrapped, dist.ConditionalTransform):
            return value, self.wrapped
        if context is None:
            raise ValueError(
                f"{type(self.wrapped).__name__}: expected a context, got none. "
                "Fix: bijector(x, context)."
            )
        batch = torch.broadcast_shapes(value.shape[:-1], context.shape[:-1])
        transform = self.wrapped.condition(context.expand(*batch, -1))
        return value.expand(*batch, -1), transform


def _check_transform(transform: Any) -> None:
    if isinstance(transform, Transform | dist.ConditionalTransform):
        return
    got = f"a {type(transform).__name__}"
    if isinstance(transform, type):
        got = f"the class {transform.__name__}"
    raise TypeError(
        f"Pointwise: expected a Transform of torch or Pyro, got {got}. "
        "Fix: Pointwise(torch.distributions.SigmoidTransform()); bijectors need no Pointwise."
    )


def _on_vectors(constraint: constraints.Constraint) -> constraints.Constraint:
    if constraint.event_dim > 1:
        raise ValueError(
            "Pointwise: expected a transform of numbers or vectors, "
            f"got one on {constraint}. Fix: a subclass of Bijector on events of that kind."
        )
    if constraint.event_dim == 1:
        return constraint
    return constraints.independent(constraint, 1)


def _sum_over_event(log_det: Tensor, value: Tensor) -> Tensor:
    """Over the coordinates, if the transform counted them one by one; one for every vector."""
    if log_det.dim() == value.dim():
        log_det = log_det.sum(-1)
    return log_det.expand(value.shape[:-1])


def _clear_caches(transform: Transform) -> None:
    """Clear what transforms keep of their last call, and those that they are made of."""
    for part in _parts(transform):
        for name, kept in vars(part).items():
            if name == "_cached_x_y":
                part._cached_x_y = None, None
            # Pyro's splines say _cache_log_detJ.
            elif name.startswith("_cache") and isinstance(kept, Tensor):
                setattr(part, name, None)


def _parts(transform: Any) -> Iterator[Any]:
    """The transform and all that it is made of, by any of the ways in which torch and Pyro compose."""
    yield transform
    if isinstance(transform, nn.Module):
        yield from transform.modules()  # a spline coupling holds a spline that is no `part`
    for part in getattr(transform, "parts", ()):
        yield from _parts(part)
    base = getattr(transform, "base_transform", None)
    if base is not None:
        yield from _parts(base)
