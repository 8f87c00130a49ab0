"""Running means of named costs, read on the host only when asked."""

from __future__ import annotations

import torch
from torch import Tensor

from .distributed import summed
from .history import Row


class Running:
    """Sums of terms over data, kept on the device; each datum counts once, whatever the size of its batch."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.total: Tensor | None = None
        self.num_data, self.num_added = 0, 0

    def add(self, terms: dict[str, Tensor], num: int) -> None:
        """Take in the mean terms of a batch of `num` data; an empty dict is a skipped step."""
        self.num_added += 1
        if not terms:
            return
        values = torch.stack([v.detach() for v in terms.values()]).double() * num
        self.names = list(terms)
        self.total = values if self.total is None else self.total + values
        self.num_data += num

    def means(self) -> Row:
        """The means per datum, over all ranks.

        Raises:
            ValueError: if nothing was added.
        """
        if self.total is None:
            raise ValueError(
                "data: expected at least one batch, got none (an empty loader, or every step was skipped)."
            )
        *sums, num = summed(torch.cat([self.total, self.total.new_tensor([self.num_data])])).tolist()
        return {name: value / num for name, value in zip(self.names, sums, strict=True)}

    def refuse_non_finite(self, step: int) -> None:
        """One host synchronisation: raise if any term was not finite.

        Raises:
            ValueError: with the names of the sites.
        """
        if self.total is not None:
            refuse_non_finite(dict(zip(self.names, self.total, strict=True)), step)


def refuse_non_finite(terms: dict[str, Tensor], step: int) -> None:
    """Raise if a term is not finite, and name the sites."""
    values = torch.stack(list(terms.values())).tolist()
    bad = [name for name, value in zip(terms, values, strict=True) if not abs(value) < float("inf")]
    if bad:
        sites = [name for name in bad if "[" in name] or bad
        raise ValueError(
            f"fit: expected finite losses, got non-finite {', '.join(sites)} at or shortly before step {step}. "
            "Fix: a lower lr, SVITrainer(clip=1.0), bounded scales at that site, or fit(max_skips=…) to pass over it."
        )
