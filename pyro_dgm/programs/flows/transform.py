"""A bijector at one context, as a `Transform` of torch that remembers its last evaluation."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Size, Tensor
from torch.distributions import Distribution, Transform, constraints

from ...densities.precision import network_output, without_autocast
from ..weights import Weights

if TYPE_CHECKING:
    from .bijector import Bijector

DIRECTIONS = {"forward": "drawing (forward)", "inverse": "scoring a given point (inverse)"}


def tensor_state(value: Tensor) -> tuple[int, bool]:
    """What changes when a tensor is written in place or asked for its gradient."""
    version = 0 if value.is_inference() else value._version
    return version, value.requires_grad


class Evaluation:
    """One evaluated pair y = f(x) with its log-det, the state of both, and whether gradients were recorded."""

    def __init__(self, x: Tensor, y: Tensor, log_det: Tensor):
        self.x = x
        self.y = y
        self.log_det = log_det
        self.states = tensor_state(x), tensor_state(y)
        self.with_grad = torch.is_grad_enabled()

    def fits(self, *, x: Tensor | None = None, y: Tensor | None = None) -> bool:
        """Whether this is the evaluation of these very tensors, unchanged since."""
        if x is not None and x is not self.x:
            return False
        if y is not None and y is not self.y:
            return False
        if self.states != (tensor_state(self.x), tensor_state(self.y)):
            return False
        # A value drawn under no_grad is evaluated again once gradients are wanted; else they would silently
        # be lost.
        return self.with_grad or not torch.is_grad_enabled()


class ScoredDraw(NamedTuple):
    r"""Draws y `(K, *batch, D)`, their $\log q$ `(K, *batch)`, and $\partial_y \log q(y)$, a plain number."""

    y: Tensor
    log_q: Tensor
    score: Tensor

    @property
    def path_log_prob(self) -> Tensor:
        r"""$\log q(y)$ `(K, *batch)`, whose gradient goes through y alone."""
        return self.log_q.detach() + along_path(self.y, self.score)


def along_path(y: Tensor, score: Tensor) -> Tensor:
    r"""0, with the gradient $\partial_y \log q(y)\, \mathrm dy$; events are vectors."""
    moved = (score * y).sum(-1)
    return moved - moved.detach()


def gradient_of(output: Tensor, at: Tensor) -> Tensor:
    r"""$\partial\,\mathrm{output} / \partial\,\mathrm{at}$ with the graph kept; 0 where it does not depend."""
    if not output.requires_grad:
        return torch.zeros_like(at)
    (gradient,) = torch.autograd.grad(
        output, at, retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return gradient


class DirectionWarning(UserWarning):
    """A training loop takes the slow direction of a flow."""

    def __init__(self, direction: str, num: int, num_other: int):
        super().__init__(
            f"a flow is trained through its slow direction: {DIRECTIONS[direction]} takes "
            f"{num} network calls one after the other, {num_other} the other way. "
            "Fix: maf to score given points (prior, density), iaf to sample (posterior), "
            "coupling layers for both; or keep it, at this price."
        )


class FlowTransform(Transform):
    r"""A bijector at one context, as a `torch.distributions.Transform`; it lives as long as one distribution.

    It keeps its last evaluation, so that a distribution scores its own draw without a second pass through the networks
    and without a sequential inversion. Nothing is kept on the bijector: modules stay deep-copyable, and an update of
    the weights can't leave a stale density behind; a distribution kept over it is refused.

    It computes in float32 or better, whatever autocast stands around it: a rounded map is no bijection.

    Args:
        bijector: the module that computes.
        context: `(*batch, C)` or `None`.

    Raises:
        ValueError: where it is to compute with other weights than those at its making.
    """

    bijective = True

    def __init__(self, bijector: Bijector, context: Tensor | None = None):
        super().__init__(cache_size=1)
        self.bijector = bijector
        self.context = network_output(context)
        self._weights = Weights("Flow", bijector)
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
        # A reference both ways would keep the tensors until Python next looks for cycles.
        self._inv = None
        return inverse

    def __call__(self, x: Tensor) -> Tensor:
        return self._evaluate(x).y

    def _inv_call(self, y: Tensor) -> Tensor:
        self._weights.require_unchanged()
        if self._last is None or not self._last.fits(y=y):
            self._warn_if_slow("inverse", self.bijector.num_inverse, self.bijector.num_forward)
            with without_autocast():
                x, log_det = self.bijector.inverse(network_output(y), self.context)
            self._last = Evaluation(x, y, -log_det)
        return self._last.x

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        if self._last is not None and self._last.fits(x=x, y=y):
            return self._last.log_det
        return self._evaluate(x).log_det

    def _evaluate(self, x: Tensor) -> Evaluation:
        self._weights.require_unchanged()
        if self._last is None or not self._last.fits(x=x):
            self._warn_if_slow("forward", self.bijector.num_forward, self.bijector.num_inverse)
            with without_autocast():
                y, log_det = self.bijector(network_output(x), self.context)
            self._last = Evaluation(x, y, log_det)
        return self._last

    def draw_with_score(self, base: Distribution, num: int) -> ScoredDraw:
        """K draws, their log density and their score, from one pass of the layers."""
        x = base.rsample((num,))
        x, score, log_p = _score_base(base, x)
        with without_autocast():
            y, log_det, score = self.bijector.push_score(x, score, self.context)
        return ScoredDraw(y, log_p - log_det, score)

    def score_of(self, base: Distribution, y: Tensor) -> Tensor:
        r"""$\partial_y \log q(y)$ of the last draw y, by one more pass forward; a plain number."""
        with torch.enable_grad():
            x, score, _ = _score_base(base, self._inv_call(y).detach())
            with without_autocast():
                return self.bijector.push_score(x, score, self.context)[2].detach()

    def _warn_if_slow(self, direction: str, num: int | None, num_other: int | None) -> None:
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


def _score_base(base: Distribution, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""The noise, fit to be differentiated by, with $\partial_x \log p(x)$ and $\log p(x)$."""
    given = x.detach().requires_grad_()
    (score,) = torch.autograd.grad(base.log_prob(given).sum(), given)
    if not x.requires_grad:
        x = x.requires_grad_()
    return x, score, base.log_prob(x)
