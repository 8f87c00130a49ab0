"""What is looked at in batches that nobody has seen as a whole: each form once, all values for NaN and extremes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .batches import Batch, Batches, LoaderBatches
from .extremes import Extremes
from .tensors import sum_of_extremes

Check = Callable[..., Any]


class StreamCheck:
    """Checks the batches of a loader, or of a `transform`, in every epoch, at the cost of reductions on the device.

    Values are read on the host where `refuse` is called. In the first epoch the programs are checked on each batch of a
    loader, in later ones on each batch of a new form (other shapes than before, or other dtypes), and on the extreme
    rows of each batch whose values go beyond all before: those that a support may not hold. Data in memory were checked
    as a whole, and are passed over.

    Args:
        batches: where the batches come from.
        check: checks the programs on a batch.
        every: whether to check them on every batch of the first epoch.
    """

    def __init__(self, batches: Batches | LoaderBatches, check: Check, *, every: bool):
        self.is_stream = isinstance(batches, LoaderBatches)
        self.has_values = self.is_stream or getattr(batches, "transform", None) is not None
        self.check = check
        self.every = every
        self.forms: set[Any] = set()
        self.totals: list[Tensor] = []
        self.extremes = Extremes()
        self.num_before = 0

    def begin_epoch(self, num_done: int = 0) -> None:
        """Count batches from here on, some of which may be done."""
        self.totals = []
        self.num_before = num_done

    def end_epoch(self) -> None:
        """Look at what is left; from now on new forms and values alone are looked at."""
        self.refuse()
        self.every = False

    def add(self, batch: Batch) -> None:
        """Take in a batch before its step."""
        if not self.has_values:
            return
        if self.is_stream:
            form = tuple(_form(value) for value in batch)
            if self.every or form not in self.forms:
                self.check(*batch)
                self.forms.add(form)
        totals = [sum_of_extremes(value) for value in batch if _is_real(value)]
        if totals:
            self.totals.append(sum(totals[1:], totals[0]))
        self.extremes.add(batch)

    def refuse(self) -> None:
        """Read the values so far on the host.

        Raises:
            ValueError: with the first batch that was not finite; for values that the programs refuse.
        """
        self._refuse_non_finite()
        for rows in self.extremes.beyond():
            if not (self.is_stream and self.every):  # the programs have seen the whole batch
                self.check(*rows)

    def _refuse_non_finite(self) -> None:
        if not self.totals:
            return
        flags = torch.stack(self.totals).isfinite().tolist()
        if not all(flags):
            number = self.num_before + flags.index(False) + 1
            raise ValueError(
                f"data: expected finite values in every epoch, got NaN or infinite ones in batch {number} "
                "of this one. Fix: x = x[x.isfinite().flatten(1).all(1)] in the Dataset or the transform."
            )
        self.num_before += len(flags)
        self.totals = []


def _form(value: Any) -> Any:
    """What a program depends on of an argument, but for the number of data."""
    return (value.shape[1:], value.dtype) if isinstance(value, Tensor) else type(value)


def _is_real(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.numel() > 0
