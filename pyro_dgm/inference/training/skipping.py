"""Steps whose loss or gradient is not finite: passed over a number of times, then an error."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from ..process.distributed import all_reduce_sum, gather
from .running import describe_non_finite


class Skips:
    """How many steps a run may pass over because they are not finite, and how many it has passed over.

    While `limit` is 0 nothing is looked at: a step then reads nothing on the host, and `RunningMeans` finds out later.

    Args:
        limit: steps that may be passed over.
    """

    def __init__(self, limit: int = 0):
        self.limit = limit
        self.num_skipped = 0

    def skip(
        self,
        terms: dict[str, Tensor],
        watched: Iterable[str],
        parameters: Sequence[nn.Parameter],
        step: int,
    ) -> bool:
        """Whether to pass over a step, as its watched terms or its gradients are not finite on any rank.

        Args:
            terms: all costs of the step, for the message; none on a rank without a batch.
            watched: names of the terms that must be finite.
            parameters: those that are about to move, with their gradients.
            step: number of the step, for the message.

        Raises:
            ValueError: once more than `limit` steps would have been passed over.
        """
        if self.limit == 0:
            return False
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        loss = torch.zeros_like(norm)
        if terms:
            loss = torch.stack([terms[name].detach() for name in watched]).sum()
        if bool((norm + all_reduce_sum(loss)).isfinite()):
            return False
        self.num_skipped += 1
        if self.num_skipped > self.limit:
            values = {**terms, "gradient": norm}
            own = [name for name, value in values.items() if not bool(value.isfinite())]
            of_ranks = gather(own)  # all of them raise
            names = list(dict.fromkeys([name for found in of_ranks for name in found]))
            raise ValueError(
                f"{describe_non_finite(names, step)} Fix: a lower lr, clip=1.0, bounded scales at "
                f"that site, or fit(max_skips={10 * self.limit}) to pass over more of them."
            )
        return True
