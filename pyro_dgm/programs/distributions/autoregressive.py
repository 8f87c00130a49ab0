"""What distributions share whose coordinates are drawn one after the other by a module's weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor, nn

from ..weights import Weights


class AutoregressiveDistribution(dist.TorchDistribution):
    r"""$\log p(x \mid c) = \sum_i \log p(x_i \mid x_{<i}, c)$, computed by a module. Abstract; no mean, no `rsample`.

    Args:
        owner: name of the conditional that makes it, for messages.
        module: the networks, whose weights must stay as they are.
        contexts: what the module takes beside x, each with the batch's dims first.
        batch_shape: of the distribution.
        event_shape: of one x.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    has_rsample = False

    def __init__(
        self,
        owner: str,
        module: nn.Module,
        contexts: Sequence[Tensor],
        batch_shape: Sequence[int],
        event_shape: Sequence[int],
        validate_args: bool | None = None,  # noqa: FBT001
    ):
        self.module: Any = module
        self.contexts = tuple(contexts)
        self.weights = Weights(owner, module)
        super().__init__(
            torch.Size(batch_shape), torch.Size(event_shape), validate_args=validate_args
        )

    def expand(self, batch_shape: Any, _instance: Any = None) -> Self:
        new = self._get_checked_instance(type(self), _instance)
        new.module, new.contexts, new.weights = self.module, self.contexts, self.weights
        shape = torch.Size(batch_shape)
        dist.TorchDistribution.__init__(new, shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        self.weights.require_unchanged()
        log_p = self._log_prob(value)
        return log_p.expand(torch.broadcast_shapes(log_p.shape, self.batch_shape))

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        """One x per entry of the batch, each coordinate drawn given the earlier ones."""
        self.weights.require_unchanged()
        return self._draw(self._extended_shape(sample_shape))

    def _log_prob(self, value: Tensor) -> Tensor:
        r"""$\log p(x \mid c)$, of the batch dims of x and of the contexts."""
        raise NotImplementedError

    def _draw(self, shape: torch.Size) -> Tensor:
        """Draws of the given shape, batch and event dims."""
        raise NotImplementedError
