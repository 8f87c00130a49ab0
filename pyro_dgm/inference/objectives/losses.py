"""What a step differentiates: named costs of a batch, and losses made of them, each for the parameters of a part."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Loss:
    r"""$\ell$, and the part whose parameters θ get $\nabla_\theta \ell$; no other parameter gets a gradient of it.

    Attributes:
        part: whose parameters minimize it.
        of: reads the loss, 0-dim, from the terms of a batch.
    """

    part: nn.Module
    of: Callable[[dict[str, Tensor]], Tensor]


class Costs(nn.Module):
    """Named costs of a batch, and the losses that are minimized; abstract: a subclass gives `terms` and `losses`."""

    @property
    def losses(self) -> tuple[Loss, ...]:
        """What is minimized by which part; no parameter stands in two of them."""
        raise NotImplementedError(
            f"{type(self).__name__} has no losses. "
            "Fix: return (Loss(self, itemgetter('loss')),), in the subclass."
        )

    def terms(self, *batch: Any) -> dict[str, Tensor]:
        """Named 0-dim costs, lower is better."""
        raise NotImplementedError(
            f"{type(self).__name__} has no terms. "
            "Fix: def terms(self, *batch): return {'loss': …}, in the subclass; or ELBO."
        )

    def reading_parameters(self) -> AbstractContextManager[Any]:
        """Where the terms are made a graph of: every parameter is read from this module, and from nowhere else."""
        return nullcontext()

    def refuse_graph(self, *batch: Any) -> None:
        """Refuse to become a graph where a preflight has found why the terms of such a batch are none.

        Raises:
            ValueError: with what was found.
        """
