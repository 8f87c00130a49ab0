"""The mixture whose components are built by index: none is built that is not asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log, pi
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor

from ...densities.precision import as_observed, without_autocast
from ..weights import Weights

MAX_ELEMENTS = 2**25


class Mixture(dist.TorchDistribution):
    r"""$p(z \mid c) = \sum_k \pi_k\, p_k(z \mid c)$, joint over the event dims. Exact, in nats.

    A density needs all K components; they are built and summed in chunks, so that `(draws, K, D)` never
    stands in memory at once. A draw builds its own component alone. Draws are not reparameterized.

    Args:
        component: maps indices `(*k)` and contexts to a distribution of batch_shape `(*k)`, broadcast with
            theirs.
        log_weights: $\log \pi$ `(K,)`, normalised.
        contexts: tensors `(*batch, C)`.
        weights: of the modules that `component` computes with; `None` for none.

    Shape:
        batch_shape: that of the contexts; event_shape: that of the components.

    Raises:
        TypeError: if `component` is a distribution or a list of them in place of a function.

    Example:
        >>> component = lambda k: dist.Normal(4.0 * k[..., None], 1.0).to_event(1)
        >>> mixture = Mixture(component, torch.tensor([0.5, 0.5]).log())
        >>> round(mixture.log_prob(torch.tensor([0.0])).exp().item(), 4)
        0.1995
    """

    arg_constraints = {"log_weights": constraints.real_vector}
    has_rsample = False

    def __init__(
        self,
        component: Callable[..., dist.TorchDistribution],
        log_weights: Tensor,
        contexts: Sequence[Tensor] = (),
        validate_args: bool | None = None,  # noqa: FBT001
        weights: Weights | None = None,
    ):
        _require_component(component)
        self.component = component
        self.log_weights = log_weights
        self.contexts = tuple(contexts)
        self.weights = weights
        context_batches = [context.shape[:-1] for context in contexts]
        batch_shape = torch.broadcast_shapes(*context_batches)
        event_shape = self._first_component.event_shape
        super().__init__(batch_shape, event_shape, validate_args=validate_args)

    @constraints.dependent_property
    def support(self) -> constraints.Constraint | None:
        return self._first_component.support

    def expand(self, batch_shape: Any, _instance: Any = None) -> Mixture:
        new = self._get_checked_instance(Mixture, _instance)
        new.component = self.component
        new.log_weights = self.log_weights
        new.contexts = self.contexts
        new.weights = self.weights
        super(Mixture, new).__init__(
            torch.Size(batch_shape),
            self.event_shape,
            validate_args=False,
        )
        new._validate_args = self._validate_args
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        value = as_observed(self, value)
        with without_autocast():
            return self._log_prob(value)

    def _log_prob(self, value: Tensor) -> Tensor:
        indices = torch.arange(len(self.log_weights))
        chunk = max(1, MAX_ELEMENTS // max(1, value.numel()))
        chunk_sums = []
        for k in indices.split(chunk):
            log_p_of_each = _score_under_each(self._components(k), value)
            log_joint = self.log_weights[k] + log_p_of_each
            chunk_sums.append(log_joint.logsumexp(-1))
        log_p = chunk_sums[0]
        if len(chunk_sums) > 1:
            log_p = torch.stack(chunk_sums).logsumexp(0)
        return log_p.expand(torch.broadcast_shapes(log_p.shape, self.batch_shape))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """A component for each draw, then a draw of it."""
        with torch.no_grad():
            shape = torch.Size(sample_shape) + self.batch_shape
            k = dist.Categorical(logits=self.log_weights).sample(shape)
            self._require_unchanged()
            return self.component(k, *self.contexts).sample()

    @property
    def mean(self) -> Tensor:
        r"""$\sum_k \pi_k\, E_k[z]$."""
        indices = torch.arange(len(self.log_weights))
        means = self._components(indices).mean
        num_event_dims = len(self.event_shape)
        ones = [1] * num_event_dims
        weights = self.log_weights.exp().reshape(-1, *ones)
        mean = (weights * means).sum(-1 - num_event_dims)
        return mean.expand(self.batch_shape + self.event_shape)

    @property
    def _first_component(self) -> dist.TorchDistribution:
        """Its event and its support are those of all."""
        return self._components(torch.arange(1))

    def _components(self, k: Tensor) -> dist.TorchDistribution:
        """The components on a last batch dim `(*batch, k)`."""
        self._require_unchanged()
        contexts = [context.unsqueeze(-2) for context in self.contexts]
        return self.component(k.to(self.log_weights.device), *contexts)

    def _require_unchanged(self) -> None:
        if self.weights is not None:
            self.weights.require_unchanged()


def _require_component(component: Any) -> None:
    is_function = callable(component) and not isinstance(
        component, torch.distributions.Distribution
    )
    if not is_function:
        raise TypeError(
            "Mixture: expected component as a function of indices and contexts, "
            f"got {type(component).__name__}. "
            "Fix: Mixture(lambda k: dist.Normal(loc[k], scale[k]).to_event(1), log_weights)."
        )


def _score_under_each(distribution: dist.TorchDistribution, value: Tensor) -> Tensor:
    """Log density of every value `(*draws, *event)` under each of the K components on the last batch dim."""
    base = getattr(distribution, "base_dist", None)
    if type(base) is dist.Normal and base.loc.dim() == 2:
        return _score_under_each_normal(value, base.loc, base.scale)
    num_event_dims = len(distribution.event_shape)
    return distribution.log_prob(value.unsqueeze(-1 - num_event_dims))


def _score_under_each_normal(value: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    r"""$-\frac12 \sum_d (z_d - \mu_{kd})^2 / \sigma_{kd}^2 - \sum_d \log \sigma_{kd} - \frac D2 \log 2\pi$.

    The square is multiplied out, so that matrix products do the work; float64 pays for the cancellation,
    which is below 0.01 nats while $|z_d - \bar\mu_d| / \sigma_{kd} < 10^6$.
    """
    # A common shift changes nothing and keeps the squares small.
    centre = loc.detach().double().mean(0)
    z = value.double() - centre
    mu = loc.double() - centre
    precision = scale.double().square().reciprocal()
    square_of_z = z.square() @ precision.mT
    product = 2 * z @ (mu * precision).mT
    square_of_mu = (mu.square() * precision).sum(-1)
    square = square_of_z - product + square_of_mu
    dim = loc.shape[-1]
    log_norm = scale.double().log().sum(-1) + dim / 2 * log(2 * pi)
    return (-square / 2 - log_norm).to(value.dtype)
