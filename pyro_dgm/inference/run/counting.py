"""As many data out as in: how many rows the arguments have, and how many data a plate makes of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample

from ...contract import DATA, Site
from ..data.tensors import Batch, extreme_batch, has_rows
from ..process.states import fork_rng


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


def data_frame(site: Site | dict[str, Any]) -> Any:
    """The data plate around a site, or `None`."""
    for frame in site["cond_indep_stack"]:
        if frame.name == DATA and frame.vectorized:
            return frame
    return None


def refuse_count(name: str, expected: int, frame: Any) -> None:
    """Refuse a plate over other data than those that went in.

    Raises:
        ValueError: always.
    """
    got = f"a plate of {frame.size}"
    if frame.full_size not in (None, frame.size):
        got = f"a plate that takes {frame.size} of {frame.full_size}"
    raise ValueError(
        f"site '{name}': expected the plate '{DATA}' over {expected} data, as many as the rows of the first argument, "
        f"got {got}. Fix: `with data_plate(x):`, whose size is that of x, a row per datum (x.T where the data are "
        "columns), and minibatches x[index] as arguments in place of a plate that subsamples."
    )


def takes_all_data(run: Callable[[Batch], dict[str, Site]], batch: Batch) -> bool:
    """Whether programs run on all data and on no fewer, as those with a plate of a fixed size do.

    Args:
        run: the sites of a run on some data.
        batch: all data.
    """
    few = extreme_batch(batch)
    return _count(run, few) != len(few[0]) and _count(run, batch) == len(batch[0])


def _count(run: Callable[[Batch], dict[str, Site]], batch: Batch) -> int | None:
    """Number of data of a run; `None` if it fails."""
    with fork_rng(*batch):
        try:
            sites = run(batch)
        except Exception:  # whatever a user's program raises
            return None
    frames = [data_frame(site) for site in sites.values()]
    return next((frame.size for frame in frames if frame is not None), None)
