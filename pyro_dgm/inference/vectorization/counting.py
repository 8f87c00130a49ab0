"""As many data out as in: how many rows the arguments have, and how many data a plate makes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample

from ...contract import DATA, PyroProgram
from ..data.tensors import Batch, has_rows, take_rows


def num_rows(batch: Batch) -> int | None:
    """Number of data in the arguments of a program, or `None` if none of them has rows."""
    for value in batch:
        if has_rows(value):
            return len(value)
    return None


class CountedData(Messenger):
    """Refuses a data plate of another size than the observation that the program is given: its numbers are others'.

    Args:
        batch: the arguments of the program; a model that generates, on `None`, is asked nothing.
    """

    def __init__(self, batch: Batch):
        super().__init__()
        self.expected = num_rows(batch[:1])

    def _pyro_sample(self, msg: Any) -> None:
        if self.expected is None or isinstance(msg["fn"], _Subsample):
            return
        plate = plate_of(msg)
        if plate is not None and plate.size != self.expected:
            refuse_count(self.expected, plate)


@dataclass(frozen=True)
class DataPlate:
    """A data plate: how many data it takes, and of how many; `None` for all of them."""

    size: int
    full_size: int | None = None


def plate_of(msg: Any) -> DataPlate | None:
    """The data plate that a sample statement is in, or whose index it has drawn; `None` if there is none."""
    if isinstance(msg["fn"], _Subsample):
        return DataPlate(len(msg["value"]), msg["fn"].size) if msg["name"] == DATA else None
    for frame in msg["cond_indep_stack"]:
        if frame.name == DATA and frame.vectorized:
            return DataPlate(frame.size, frame.full_size)
    return None


class CountError(ValueError):
    """A run gives numbers of other data than those that went in."""


def refuse_count(num: int, plate: DataPlate, *, is_fixed: bool = False) -> None:
    """Refuse a plate over other data than those that went in.

    Args:
        num: how many rows the first argument has.
        plate: the plate.
        is_fixed: whether its size is the same for fewer rows.

    Raises:
        CountError: always.
    """
    got = f"a plate of size {plate.size}"
    if plate.full_size not in (None, plate.size):
        got = f"a plate that takes {plate.size} of {plate.full_size}"
    elif is_fixed:
        got += " whatever the number of rows"
    if plate.size == num:
        raise CountError(
            f"plate '{DATA}': expected numbers that go with the rows of the first argument, got {got}, and others "
            "where rows change places: a number is that of a place. Fix: a guide whose parameters are a function of x, "
            "AmortizedGuide(Conditional(dist.Normal, net)), in place of one parameter per datum, as AutoDelta has; "
            "a row per datum, x.T, where the data are columns."
        )
    raise CountError(
        f"plate '{DATA}': expected a datum for each of the {num} rows of the first argument, got {got}. "
        "Fix: `with data_plate(x):`, whose size is that of x, a row per datum (x.T where the data are columns), "
        "and minibatches x[index] as arguments in place of a plate that subsamples."
    )


@dataclass
class PlatesOfRun(Messenger):
    """The data plates of a run, as far as it comes.

    Attributes:
        found: the plates, in order.
        failed: whether the run raised an error.
    """

    found: list[DataPlate] = field(default_factory=list)
    failed: bool = False

    @classmethod
    def of(cls, run: Callable[[Batch], Any], batch: Batch) -> PlatesOfRun:
        """The data plates of a run of one or more programs on a batch."""
        plates = cls()
        try:
            with plates:
                run(batch)
        except Exception:  # whatever a user's program raises
            plates.failed = True
        return plates

    def _pyro_post_sample(self, msg: Any) -> None:
        plate = plate_of(msg)
        if plate is not None:
            self.found.append(plate)

    def other_than(self, num: int) -> DataPlate | None:
        """The first plate of another size; `None` if there is none."""
        return next((plate for plate in self.found if plate.size != num), None)


def runs_of(model: PyroProgram | None, guide: PyroProgram | None) -> Callable[[Batch], None]:
    """A run of the guide, and then one of the model at its draws, as a function of their arguments."""

    def run(batch: Batch) -> None:
        if guide is None and model is not None:
            model(*batch)
        if guide is not None:
            drawn = poutine.trace(guide).get_trace(*batch)
            if model is not None:
                poutine.replay(model, trace=drawn)(*batch)

    return run


def refuse_plates(run: Callable[[Batch], Any], batch: Batch) -> None:
    """Refuse a run whose data plate is over other data than the rows of the first argument, if it is.

    Raises:
        CountError: if it is.
    """
    num = num_rows(batch[:1])
    if num is None:
        return
    plate = PlatesOfRun.of(run, batch).other_than(num)
    if plate is not None:
        few = take_rows(batch, torch.arange(1, device=batch[0].device))
        refuse_count(num, plate, is_fixed=plate == PlatesOfRun.of(run, few).other_than(1))
