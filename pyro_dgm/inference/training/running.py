"""Running means of named costs, read on the host only when asked."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..run.distributed import all_reduce_sum
from .history import Row


class RunningMeans:
    """Sums of terms over data, kept on the device; each datum counts once, whatever the size of its batch."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.total: Tensor | None = None
        self.finite: Tensor | None = None
        self.num_data, self.num_added = 0, 0

    def add(self, terms: dict[str, Tensor], num: int) -> None:
        """Take in the mean terms of a batch of `num` data; an empty dict is a skipped step."""
        self.num_added += 1
        if not terms:
            return
        values = torch.stack([v.detach() for v in terms.values()]).double() * num
        finite = values.isfinite()
        self.names = list(terms)
        self.total = values if self.total is None else self.total + values
        # Which terms were finite at the first batch that had one that was not: the next ones are poisoned altogether.
        self.finite = (
            finite if self.finite is None else torch.where(self.finite.all(), finite, self.finite)
        )
        self.num_data += num

    def state(self) -> dict[str, Any]:
        """All of it, for a checkpoint in the middle of an epoch."""
        return dict(vars(self))

    @classmethod
    def of(cls, state: dict[str, Any], device: torch.device) -> RunningMeans:
        """The sums that `state` gave."""
        new = cls()
        vars(new).update(
            {n: v.to(device) if isinstance(v, Tensor) else v for n, v in state.items()}
        )
        return new

    def means(self) -> Row:
        """The means per datum, over all ranks.

        Raises:
            ValueError: if nothing was added.
        """
        if self.total is None:
            raise ValueError(
                "data: expected at least one batch, got none (an empty loader, or every step was skipped)."
            )
        *sums, num = all_reduce_sum(
            torch.cat([self.total, self.total.new_tensor([self.num_data])])
        ).tolist()
        return {name: value / num for name, value in zip(self.names, sums, strict=True)}

    def refuse_non_finite(self, step: int) -> None:
        """One host synchronisation: raise if any term was not finite.

        Raises:
            ValueError: with the names of the sites.
        """
        if self.finite is not None and not bool(self.finite.all()):
            raise non_finite(
                [n for n, good in zip(self.names, self.finite.tolist(), strict=True) if not good],
                step,
            )


def non_finite(names: list[str], step: int) -> ValueError:
    """The error that names the sites among the terms that are not finite."""
    sites = [name for name in names if "[" in name] or names
    return ValueError(
        f"fit: expected finite losses, got non-finite {', '.join(sites)} at or shortly before step {step}. "
        "Fix: a lower lr, clip=1.0, bounded scales at that site, or fit(max_skips=…) to pass over it."
    )
