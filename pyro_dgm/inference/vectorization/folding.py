"""K·N rows as K particles of N data: tensors, and distributions, folded and unfolded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from pyro.distributions.torch_distribution import ExpandedDistribution
from torch import Size, Tensor
from torch.distributions import Independent

# Families whose parameters say all: rebuilt from folded ones, they are still recognized for what they are.
FAMILIES: tuple[type, ...] = (
    dist.Bernoulli,
    dist.Beta,
    dist.Categorical,
    dist.Dirichlet,
    dist.Exponential,
    dist.Gamma,
    dist.Laplace,
    dist.Normal,
    dist.OneHotCategorical,
    dist.Poisson,
    dist.StudentT,
    dist.Uniform,
)


@dataclass(frozen=True)
class Fold:
    """`(*plates, K N, *event)`, one particle after the other, as `(K, *plates, N, *event)` and back.

    Attributes:
        num: number K of particles.
        rows: number N of data.
        depth: number of plates of the program, the data plate included: the particles are one dim to their left.
    """

    num: int
    rows: int
    depth: int

    @property
    def size(self) -> int:
        """Number of rows, K·N."""
        return self.num * self.rows

    def shape(self, batch_shape: Size) -> Size:
        """The batch shape `(K, *plates, N)` of `(*plates, K N)`."""
        further = batch_shape[:-1]
        missing = self.depth - 1 - len(further)
        return Size((self.num, *[1] * missing, *further, self.rows))

    def fold(self, tensor: Tensor, num_batch: int, num_event: int) -> Tensor:
        """`(*lead, *plates, K N, *event)` as `(*lead, K, *plates, N, *event)`.

        Args:
            tensor: what is folded; one row stands for all of them.
            num_batch: number of its batch dims, the rows the last of them.
            num_event: number of its event dims.
        """
        if num_batch == 0 or tensor.shape[-1 - num_event] != self.size:
            return tensor
        lead = tensor.dim() - num_batch - num_event
        split = tensor.unflatten(-1 - num_event, (self.num, self.rows))
        moved = split.movedim(-2 - num_event, lead)
        missing = [1] * (self.depth - num_batch)
        return moved.reshape(*moved.shape[: lead + 1], *missing, *moved.shape[lead + 1 :])

    def unfold(self, tensor: Tensor, batch_shape: Size, num_event: int) -> Tensor:
        """`(*lead, K, *plates, N, *event)` as `(*lead, *batch_shape, *event)`, of batch_shape `(*plates, K N)`."""
        folded = self.shape(batch_shape)
        split = tensor.dim() - num_event
        lead = tensor.shape[: max(0, split - len(folded))]
        event = tensor.shape[split:]
        tensor = tensor.expand(*lead, *folded, *event)
        rows = tensor.movedim(len(lead), -2 - num_event).flatten(-2 - num_event, -1 - num_event)
        return rows.reshape(*lead, *batch_shape, *event)


class Folded(TorchDistribution):
    """A distribution over `(*plates, K N)` rows as one over `(K, *plates, N)`.

    Args:
        base_dist: the distribution of the rows.
        fold: how rows and particles belong together.
    """

    arg_constraints: dict[str, Any] = {}

    def __init__(self, base_dist: Any, fold: Fold):
        self.base_dist = base_dist
        self.layout = fold
        shape = fold.shape(base_dist.batch_shape)
        super().__init__(shape, base_dist.event_shape, validate_args=False)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]  # noqa: D102
        return bool(self.base_dist.has_rsample)

    @property
    def support(self) -> Any:  # noqa: D102
        return self.base_dist.support

    @property
    def mean(self) -> Tensor:  # noqa: D102
        return self._fold(self.base_dist.mean)

    @property
    def variance(self) -> Tensor:  # noqa: D102
        return self._fold(self.base_dist.variance)

    def sample(self, sample_shape: Any = Size()) -> Tensor:  # noqa: B008, D102
        return self._fold(self.base_dist.sample(sample_shape))

    def rsample(self, sample_shape: Any = Size()) -> Tensor:  # noqa: B008, D102
        return self._fold(self.base_dist.rsample(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:  # noqa: D102
        batch_shape = self.base_dist.batch_shape
        rows = self.layout.unfold(value, batch_shape, len(self.event_shape))
        return self.layout.fold(self.base_dist.log_prob(rows), len(batch_shape), 0)

    def entropy(self) -> Tensor:  # noqa: D102
        entropy = self.base_dist.entropy()
        return self.layout.fold(entropy, len(self.base_dist.batch_shape), 0)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:  # noqa: D102
        return ExpandedDistribution(self, Size(batch_shape))

    def _fold(self, value: Tensor) -> Tensor:
        return self.layout.fold(value, len(self.base_dist.batch_shape), len(self.event_shape))


def folded(distribution: Any, fold: Fold) -> Any:
    """A distribution of rows as one of particles: of the same family where its parameters say all."""
    rebuilt = _rebuilt(distribution, fold, 0)
    return Folded(distribution, fold) if rebuilt is None else rebuilt


def _rebuilt(distribution: Any, fold: Fold, num_event: int) -> Any:
    """The distribution of folded parameters, `None` of an unknown family.

    Args:
        distribution: of batch_shape `(*plates, K N, *event)`.
        fold: of the rows.
        num_event: number of its last batch dims that are dims of an event.
    """
    if isinstance(distribution, Independent):
        num = distribution.reinterpreted_batch_ndims
        base = _rebuilt(distribution.base_dist, fold, num_event + num)
        return None if base is None else base.to_event(num)
    if isinstance(distribution, dist.Delta):
        return _rebuilt_delta(distribution, fold, num_event)
    if type(distribution) not in FAMILIES:
        return None
    num_batch = len(distribution.batch_shape) - num_event
    parameters = {}
    for name in _parameters_of(distribution):
        constraint = distribution.arg_constraints[name]
        num_own = constraint.event_dim
        value = getattr(distribution, name)
        value = value.expand(*distribution.batch_shape, *value.shape[value.dim() - num_own :])
        parameters[name] = fold.fold(value, num_batch, num_event + num_own)
    family: Callable[..., Any] = type(distribution)
    return family(**parameters, validate_args=False)


def _rebuilt_delta(distribution: Any, fold: Fold, num_event: int) -> Any:
    num_batch = len(distribution.batch_shape) - num_event
    own = len(distribution.event_shape)
    v = distribution.v.expand(*distribution.batch_shape, *distribution.event_shape)
    log_density = torch.as_tensor(distribution.log_density).expand(distribution.batch_shape)
    return dist.Delta(
        fold.fold(v, num_batch, num_event + own),
        fold.fold(log_density, num_batch, num_event),
        event_dim=own,
        validate_args=False,
    )


def _parameters_of(distribution: Any) -> list[str]:
    """Names of the parameters that a distribution was built of: one of the logits and probabilities."""
    holder = distribution
    if isinstance(
        distribution, dist.OneHotCategorical
    ):  # its parameters are those of its categories
        holder = distribution._categorical
    names = [name for name in distribution.arg_constraints if name in vars(holder)]
    if "logits" in names and "probs" in names:
        names.remove("probs" if holder._param is holder.logits else "logits")
    return names
