"""Running means of named costs, read on the host only when asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from ...display.listing import first_of
from ..process.distributed import all_reduce_sum, gather
from .compiled.graphs import Terms
from .history import Row
from .soundness import Unsound

Value = TypeVar("Value")
OnStep = Callable[[int, Row], None]

MOST_NAMES = 8  # of terms in a message: a loop over time has hundreds
AT_ONCE = 64  # batches whose terms are summed by one call


class Values(NamedTuple):
    """Named terms as one tensor, as a compiled step gives them.

    Attributes:
        names: of the terms.
        values: one for each, `(T,)`.
    """

    names: list[str]
    values: Tensor


class RunningMeans:
    r"""$\bar\ell = \sum_b n_b \ell_b / \sum_b n_b$ of named terms over batches of $n_b$ data, kept on the device.

    Each datum counts once, whatever the size of its batch; a term that a batch does not have, such as one of a later
    step in time, is 0 there, so that the means of the terms still sum to the bound. Sums are float64, one batch after
    the other. Batches are put aside and summed many at once; nothing is read on the host but by `means` and
    `refuse_non_finite`.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self._device = device  # of a rank without a batch, which takes part in the sums
        self.names: list[str] = []
        self.total: Tensor | None = None
        self.finite: Tensor | None = None
        self.num_data = 0
        self.num_added = 0
        self._aside: list[Tensor] = []
        self._nums: list[int] = []
        self._on_step: OnStep | None = None
        self._steps: list[int] = []
        self._num_before = 0

    def hand_over(self, on_step: OnStep | None, num_steps: int) -> RunningMeans:
        """Have each step told of by its number and terms, many at once as they are summed: one host read for all.

        Args:
            on_step: is told; nobody by default.
            num_steps: steps so far, those that are in these means among them.
        """
        self._on_step = on_step
        self._num_before = num_steps - self.num_added
        return self

    def add(self, terms: Terms | Values, num: int) -> None:
        """Take in the mean terms of a batch of `num` data; an empty dict is a skipped step."""
        self.num_added += 1
        if not terms:
            return
        values = self._aligned(terms)
        self.num_data += num
        self._aside.append(values)
        self._nums.append(num)
        if self._on_step is not None:
            self._steps.append(self._num_before + self.num_added)
        if len(self._aside) == AT_ONCE:
            self._sum()

    def _sum(self) -> None:
        """Take what is put aside into the sums, one batch after the other, as if each came alone."""
        if not self._aside:
            return
        rows = torch.stack(self._aside).double()
        self._tell(rows)
        rows *= rows.new_tensor(self._nums)[:, None]
        self._aside, self._nums = [], []
        are_finite = rows.isfinite()
        if self.total is None or self.finite is None:
            self.total = torch.zeros_like(rows[0])
            self.finite = torch.ones_like(are_finite[0])
        self.total = torch.cat([self.total[None], rows]).cumsum(0)[-1]
        # Which terms were finite at the first batch with one that was not: the next batches are
        # poisoned altogether, and would no longer tell the site that failed.
        first = are_finite[(~are_finite.all(1)).to(torch.uint8).argmax()]
        self.finite = torch.where(self.finite.all(), first, self.finite)

    def _tell(self, rows: Tensor) -> None:
        if self._on_step is None:
            return
        steps, self._steps = self._steps, []
        for step, values in zip(steps, rows.tolist(), strict=True):
            self._on_step(step, dict(zip(self.names, values, strict=True)))

    def _aligned(self, terms: Terms | Values) -> Tensor:
        """The terms in the order of those before, which get places for new ones."""
        if isinstance(terms, Values):
            if terms.names == self.names:
                return terms.values
            terms = dict(zip(terms.names, terms.values.unbind(), strict=True))
        if list(terms) != self.names:
            self._extend([name for name in terms if name not in self.names])
        if len(terms) < len(self.names):
            zero = next(iter(terms.values())).new_zeros(())
            terms = dict.fromkeys(self.names, zero) | terms
        return torch.stack([terms[name].detach() for name in self.names])

    def _extend(self, new: list[str]) -> None:
        self._sum()
        self.names = [*self.names, *new]
        if self.total is not None and self.finite is not None:
            self.total = torch.cat([self.total, self.total.new_zeros(len(new))])
            self.finite = torch.cat([self.finite, self.finite.new_ones(len(new))])

    def _agree(self) -> None:
        """Terms in one order on all ranks, whose batches may have had others."""
        self._sum()
        names = list(dict.fromkeys([name for names in gather(self.names) for name in names]))
        self._extend([name for name in names if name not in self.names])
        if names and (self.total is None or self.finite is None):
            self.total = torch.zeros(len(names), dtype=torch.float64, device=self._device)
            self.finite = torch.ones(len(names), dtype=torch.bool, device=self._device)
        if names != self.names and self.total is not None and self.finite is not None:
            order = [self.names.index(name) for name in names]
            self.names, self.total, self.finite = names, self.total[order], self.finite[order]

    def state_dict(self) -> dict[str, Any]:
        """All of it, for a checkpoint in the middle of an epoch."""
        self._sum()
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def take_in(self, other: RunningMeans) -> None:
        """Add the sums of another rank over the same steps."""
        self._sum()
        if other.total is None or other.finite is None:
            return
        self._extend([name for name in other.names if name not in self.names])
        if self.total is None or self.finite is None:
            self.total = torch.zeros_like(other.total)
            self.finite = torch.ones_like(other.finite)
        for place, name in enumerate(other.names):
            self.total[self.names.index(name)] += other.total[place]
            self.finite[self.names.index(name)] &= other.finite[place]
        self.num_data += other.num_data

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
        if self.total is None:
            raise ValueError(
                "data: expected at least one batch, got none (an empty loader, or every step "
                "was skipped). Fix: DataLoader(…, drop_last=False), or a lower lr."
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
        f"fit: expected finite losses, got non-finite {first_of(sites, MOST_NAMES)} at or shortly before "
        f"step {step}."
    )
