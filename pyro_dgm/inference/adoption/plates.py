"""The data plate by what it is: at dim −1, as large as the data are many, whatever its name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample
from torch import nn

from ...contract import DATA, PyroProgram
from ..data.tensors import Batch, take_rows
from ..vectorization.counting import num_rows
from .first_runs import few_of, initialise, run_quietly


class WithDataPlate(nn.Module):
    """A program whose data plate has another name, or no size: handlers outside see the plate `"data"` over the rows.

    Args:
        program: any program.
        plate: name of its data plate.
    """

    def __init__(self, program: PyroProgram, plate: str):
        super().__init__()
        self.program = program
        self.plate = plate

    def forward(self, *batch: Any) -> Any:
        """Run the program; see `PyroProgram`."""
        with _Renaming(self.plate, num_rows(batch)):
            return self.program(*batch)


class _Renaming(Messenger):
    """Right around a program, it shows the frames of one plate as those of the data plate."""

    def __init__(self, plate: str, num: int | None):
        super().__init__()
        self.plate = plate
        self.num = num

    def _pyro_sample(self, msg: Any) -> None:
        if isinstance(msg["fn"], _Subsample):
            if msg["name"] == self.plate:
                msg["name"] = DATA
            return
        frames = []
        for frame in msg["cond_indep_stack"]:
            frames.append(self._renamed(frame) if frame.name == self.plate else frame)
        msg["cond_indep_stack"] = tuple(frames)

    def _renamed(self, frame: Any) -> Any:
        if frame.size == -1 and self.num is not None:  # a plate without a size
            return frame._replace(name=DATA, size=self.num, full_size=None)
        return frame._replace(name=DATA)


@dataclass(frozen=True)
class Naming:
    """How a pair calls its data plate.

    Attributes:
        plate: its name; `None` where it is `"data"` with a size, or where there is none.
    """

    plate: str | None = None

    def adopt(self, program: Any) -> Any:
        """The program as one whose data plate is `"data"`."""
        if self.plate is None or program is None:
            return program
        return WithDataPlate(program, self.plate)


def prepare(model: PyroProgram | None, guide: PyroProgram | None, batch: Batch) -> Naming:
    """Let the programs make their parameters, see `initialise`, and find their data plate, see `naming_of`."""
    return naming_of(model, guide, batch, initialise(model, guide, batch))


def naming_of(
    model: PyroProgram | None,
    guide: PyroProgram | None,
    batch: Batch,
    sites_of_few: list[Any] | None = None,
) -> Naming:
    """Find the data plate in one run of the pair on a few of the data, or on all where it takes no fewer.

    It is at dim −1, and as large as the data are many: its size, its full size where it subsamples, or none at all.
    Of several the one called `"data"` is meant, then the one around an observed site.

    Args:
        model: a Pyro program, or `None`.
        guide: its guide, or `None`.
        batch: their arguments.
        sites_of_few: the sample statements of a run on `few_of` the data, if it is known.
    """
    num = num_rows(batch)
    if num is None:
        return Naming()
    few = few_of(batch)
    for some in (few, batch):
        is_known = some is few and sites_of_few is not None
        sites = sites_of_few if is_known else run_quietly(model, guide, some)
        if sites is not None:
            found = _data_plates(sites, num_rows(some))
            is_unsure = DATA not in found and (some is few or not _subsamples(sites, found))
            if found and is_unsure and num > 1:
                found = _of_other_size(found, model, guide, take_rows(some, slice(1, None)))
            if found:
                name = DATA if DATA in found else max(found, key=lambda name: found[name])
                return Naming() if name == DATA and not _is_sizeless(sites) else Naming(name)
    return Naming()


def _of_other_size(
    found: dict[str, bool], model: PyroProgram | None, guide: PyroProgram | None, batch: Batch
) -> dict[str, bool]:
    """Those plates that are as large as other data are many: not one of as many topics as there were data."""
    sites = run_quietly(model, guide, batch)
    if sites is None:
        return found
    again = _data_plates(sites, num_rows(batch))
    return {name: is_around for name, is_around in found.items() if name in again}


def _data_plates(sites: list[Any], num: int | None) -> dict[str, bool]:
    """The plates that may be that of the data → whether one is around an observed site; the first of equals first."""
    found: dict[str, bool] = {}
    for site in sites:
        if isinstance(site["fn"], _Subsample):
            continue
        for frame in site["cond_indep_stack"]:
            if frame.dim == -1 and (frame.size in (num, -1) or frame.full_size == num):
                found[frame.name] = found.get(frame.name, False) or site["is_observed"]
    return found


def _subsamples(sites: list[Any], plates: dict[str, bool]) -> bool:
    """Whether one of the plates takes a part of its data: which, differs from run to run."""
    frames = [frame for site in sites for frame in site["cond_indep_stack"]]
    return any(f.name in plates and f.full_size not in (None, f.size) for f in frames)


def _is_sizeless(sites: list[Any]) -> bool:
    for site in sites:
        for frame in site["cond_indep_stack"]:
            if frame.name == DATA and frame.size == -1:
                return True
    return False
