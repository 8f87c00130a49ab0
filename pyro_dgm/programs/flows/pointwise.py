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
        ValueError: for a transform of matrices, or one that changes the size of its event.
        NotImplementedError: in the direction that the transform lacks.

    Example:
        >>> y, log_det = Pointwise(torch.distributions.SigmoidTransform())(torch.zeros(5, 3))
        >>> y[0].tolist(), round(log_det[0].item(), 4)
        ([0.5, 0.5, 0.5], -4.1589)
    """

    def __init__(self, transform: Transform | dist.ConditionalTransform):
        super().__init__()
        self.wrapped = transform
        self.learned = transform if isinstance(transform, nn.Module) else None
        if isinstance(transform, Transform):
            self.domain, self.codomain = (
                _on_vectors(transform.domain),
                _on_vectors(transform.codomain),
            )
            if self.learned is None:
                self.num_forward = self.num_inverse = 0

    def forward(self, x: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        x, transform = self._at(x, context)
        try:
            y = transform(x)
            if y.shape != x.shape:
                raise ValueError(
                    f"Pointwise: expected a transform that keeps the size of its event, got one from {tuple(x.shape)} "
                    f"to {tuple(y.shape)}."
                )
            return y, _summed(transform.log_abs_det_jacobian(x, y), x)
        finally:
            _forget(transform)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> ValueAndLogDet:
        y, transform = self._at(y, context)
        try:
            x = transform.inv(y)
            return x, -_summed(transform.log_abs_det_jacobian(x, y), y)
        except (
            KeyError
        ) as error:  # what Pyro's transforms without an inverse raise for a foreign point
            raise NotImplementedError(
                f"{type(transform).__name__} has no inverse: {error}"
            ) from error
        finally:
            _forget(transform)

    def _at(self, value: Tensor, context: Tensor | None) -> tuple[Tensor, Transform]:
        """The transform at the context; leading dims are made equal, since Pyro's networks don't broadcast them."""
        if not isinstance(self.wrapped, dist.ConditionalTransform):
            return value, self.wrapped
        if context is None:
            raise ValueError(
                f"{type(self.wrapped).__name__}: expected a context, got none. Fix: bijector(x, context)."
            )
        batch = torch.broadcast_shapes(value.shape[:-1], context.shape[:-1])
        return value.expand(*batch, -1), self.wrapped.condition(context.expand(*batch, -1))


def _on_vectors(constraint: constraints.Constraint) -> constraints.Constraint:
    if constraint.event_dim > 1:
        raise ValueError(
            f"Pointwise: expected a transform of numbers or vectors, got one on {constraint}."
        )
    return constraint if constraint.event_dim == 1 else constraints.independent(constraint, 1)


def _summed(log_det: Tensor, value: Tensor) -> Tensor:
    """Over the coordinates, if the transform counted them one by one; one for every vector."""
    return (log_det.sum(-1) if log_det.dim() == value.dim() else log_det).expand(value.shape[:-1])


def _forget(transform: Transform) -> None:
    """Clear what transforms keep of their last call, and those that they are made of."""
    for part in _parts(transform):
        for name, kept in vars(part).items():
            if name == "_cached_x_y":
                part._cached_x_y = None, None
            elif name.startswith("_cache") and isinstance(
                kept, torch.Tensor
            ):  # splines say _cache_log_detJ
                setattr(part, name, None)


def _parts(transform: Any) -> Iterator[Any]:
    yield transform
    if isinstance(transform, nn.Module):
        yield from transform.modules()  # a spline coupling holds a spline that is no `part`
    for part in (
        *getattr(transform, "parts", ()),
        *filter(None, [getattr(transform, "base_transform", None)]),
    ):
        yield from _parts(part)
