"""As many data out as in: how many rows the arguments have, and how many data a plate makes of them."""

from __future__ import annotations

from typing import Any

from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample

from ...contract import DATA, PyroProgram
from ..data.tensors import Batch, has_rows


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
        frame = data_frame(msg)
        if frame is not None and frame.size != self.expected:
            refuse_count(msg["name"], self.expected, frame)


def data_frame(site: Any) -> Any:
    """The data plate around a site, or `None`."""
    for frame in site["cond_indep_stack"]:
        if frame.name == DATA and frame.vectorized:
            return frame
    return None


class CountError(ValueError):
    """A run gives numbers of other data than those that went in."""


def refuse_count(name: str, expected: int, frame: Any) -> None:
    """Refuse a plate over other data than those that went in.

    Raises:
        CountError: always.
    """
    got = f"a plate of {frame.size}"
    if frame.full_size not in (None, frame.size):
        got = f"a plate that takes {frame.size} of {frame.full_size}"
    raise CountError(
        f"site '{name}': expected the plate '{DATA}' over {expected} data, as many as the rows of the first argument, "
        f"got {got}. Fix: `with data_plate(x):`, whose size is that of x, a row per datum (x.T where the data are "
        "columns), and minibatches x[index] as arguments in place of a plate that subsamples."
    )


def data_plates(
    model: PyroProgram | None, guide: PyroProgram | None, batch: Batch
) -> dict[str, Any]:
    """Site → the data plate around it, in one run of the model at the guide's draws; none if a program fails."""
    frames = {}
    trace = None
    try:
        for program in (guide, model):
            if program is None:
                continue
            run = program if trace is None else poutine.replay(program, trace=trace)
            trace = poutine.trace(run).get_trace(*batch)
            for name, site in trace.nodes.items():
                frame = data_frame(site) if site["type"] == "sample" else None
                if frame is not None:
                    frames[name] = frame
    except Exception:  # whatever a user's program raises
        return {}
    return frames


def other_count(frames: dict[str, Any], expected: int) -> str | None:
    """The first site whose data plate is of another size; `None` if there is none."""
    return next((name for name, frame in frames.items() if frame.size != expected), None)
