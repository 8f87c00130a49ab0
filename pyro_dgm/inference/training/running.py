"""Running means of named costs, read on the host only when asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..process.distributed import all_reduce_sum, gather
from .history import Row
from .soundness import Unsound

Value = TypeVar("Value")


class RunningMeans:
    r"""$\bar\ell = \sum_b n_b \ell_b / \sum_b n_b$ of named terms over batches of $n_b$ data, kept on the device.

    Each datum counts once, whatever the size of its batch; a term that a batch does not have, such as one of a later
    step in time, is 0 there, so that the means of the terms still sum to the bound. Sums are float64. Nothing is read
    on the host but by `means` and `refuse_non_finite`.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self.total: Tensor | None = None
        self.finite: Tensor | None = None
        self.num_data = 0
        self.num_added = 0

    def add(self, terms: dict[str, Tensor], num: int) -> None:
        """Take in the mean terms of a batch of `num` data; an empty dict is a skipped step."""
        self.num_added += 1
        if not terms:
            return
        values = self._aligned(terms).double() * num
        finite = values.isfinite()
        self.num_data += num
        if self.total is None or self.finite is None:
            self.total = values
            self.finite = finite
            return
        self.total = self.total + values
        # Which terms were finite at the first batch with one that was not: the next batches are
        # poisoned altogether, and would no longer tell the site that failed.
        self.finite = torch.where(self.finite.all(), finite, self.finite)

    def _aligned(self, terms: dict[str, Tensor]) -> Tensor:
        """The terms in the order of those before, which get places for new ones."""
        if list(terms) != self.names:
            self._extend([name for name in terms if name not in self.names])
        if len(terms) < len(self.names):
            zero = next(iter(terms.values())).new_zeros(())
            terms = dict.fromkeys(self.names, zero) | terms
        return torch.stack([terms[name].detach() for name in self.names])

    def _extend(self, new: list[str]) -> None:
        self.names = [*self.names, *new]
        if self.total is not None and self.finite is not None:
            self.total = torch.cat([self.total, self.total.new_zeros(len(new))])
            self.finite = torch.cat([self.finite, self.finite.new_ones(len(new))])

    def _agree(self) -> None:
        """Terms in one order on all ranks, whose batches may have had others."""
        names = list(dict.fromkeys([name for names in gather(self.names) for name in names]))
        self._extend([name for name in names if name not in self.names])
        if names != self.names and self.total is not None and self.finite is not None:
            order = [self.names.index(name) for name in names]
            self.names, self.total, self.finite = names, self.total[order], self.finite[order]

    def state_dict(self) -> dict[str, Any]:
        """All of it, for a checkpoint in the middle of an epoch."""
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Take what `state_dict` gave, onto a device."""
        for name, value in state.items():
            setattr(self, name, value.to(device) if isinstance(value, Tensor) else value)

    def means(self) -> Row:
        """The means per datum, over all ranks.

        Raises:
            ValueError: if nothing was added.
        """
        self._agree()
        if any(gather(self.total is None)) or self.total is None:
            raise ValueError(
                "data: expected at least one batch, got none (an empty loader, fewer data than "
                "processes, or every step was skipped). Fix: DataLoader(…, drop_last=False), or a lower lr."
            )
        num_data = self.total.new_tensor([self.num_data])
        sums = all_reduce_sum(torch.cat([self.total, num_data])).tolist()
        num = sums.pop()
        return {name: value / num for name, value in zip(self.names, sums, strict=True)}

    def refuse_non_finite(self, step: int) -> None:
        """One host synchronisation: raise if any term was not finite.

        Raises:
            Unsound: a ValueError, with the names of the sites.
        """
        self._agree()
        if self.finite is None:
            return
        num_bad = all_reduce_sum((~self.finite).float())  # every rank raises, or none does
        if not bool(num_bad.any()):
            return
        names = [name for name, num in zip(self.names, num_bad.tolist(), strict=True) if num]
        raise Unsound(
            f"{describe_non_finite(names, step)} Fix: a lower lr, clip=1.0, bounded scales at that "
            "site, or fit(max_skips=…) to pass over it."
        )


def prefixed(prefix: str, terms: Mapping[str, Value]) -> dict[str, Value]:
    """The same terms under names that say of which data they are."""
    return {f"{prefix}{name}": value for name, value in terms.items()}


def describe_non_finite(names: list[str], step: int) -> str:
    """What was expected and what came, by the names of the sites among the terms that are not finite."""
    sites = [name for name in names if "[" in name] or names
    return (
        f"fit: expected finite losses, got non-finite {_some(sites)} at or shortly before "
        f"step {step}."
    )


def _some(names: list[str], num: int = 8) -> str:
    """Some of the names, and how many more there are: a loop over time has hundreds."""
    shown = ", ".join(names[:num])
    return f"{shown} and {len(names) - num} more" if len(names) > num else shown
