"""What a program takes: the names of its arguments, and whether an item of a stream is one datum or a batch of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from pyro import poutine
from pyro.infer.autoguide import AutoGuide
from pyro.poutine.subsample_messenger import _Subsample
from torch import nn

from ...contract import PyroProgram
from ..adoption.programs import Adopted
from ..process.states import eval_mode, fork_rng
from .tensors import Batch

BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True)
class Arguments:
    """The positional arguments of a program.

    Attributes:
        names: the observation first.
        has_more: whether it takes any number of further ones, `*context`.
    """

    names: tuple[str, ...]
    has_more: bool = False

    @classmethod
    def of(cls, program: PyroProgram) -> Arguments:
        """The arguments of a program."""
        parameters = _signature_of(program).parameters.values()
        names = [one.name for one in parameters if one.kind in BY_POSITION]
        has_more = any(one.kind is inspect.Parameter.VAR_POSITIONAL for one in parameters)
        return cls(tuple(names), has_more)

    def in_order(self, batch: Any) -> Batch:
        """The arguments that a batch holds: a dict has them by name, a tuple in their order.

        Where a program takes `*context`, it is what a dict holds beside the names, in its order. Keys that begin with
        two underscores, as those of WebDataset, are no arguments.

        Raises:
            ValueError: for a dict with other keys, or one that leaves out an argument before the last.
        """
        if not isinstance(batch, Mapping):
            return tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)
        values = {str(key): value for key, value in batch.items() if not str(key).startswith("__")}
        further = [key for key in values if key not in self.names]
        if not self.names and len(values) > 1:
            raise ValueError(
                f"data: expected batches that are tuples, for the program names no arguments, got a dict of "
                f"{sorted(values)}. Fix: (x, context), the observation first, in the dataset or a collate_fn."
            )
        if further and not (self.has_more and set(self.names) <= set(values)):
            raise ValueError(
                f"data: expected a dict batch with keys among the model's arguments {self.names}, got "
                f"{sorted(values)}. Fix: {self._fix_of_keys(further, values)}."
            )
        names = self.names[: len(values)]
        if not set(names) <= set(
            values
        ):  # arguments go by position: none is left out before the last
            raise ValueError(
                f"data: expected a dict batch with the model's first arguments {names}, got {sorted(values)}. "
                "Fix: give every argument before the last one."
            )
        return tuple(values[name] for name in (*names, *further))

    def _fix_of_keys(self, further: list[str], values: Mapping[str, Any]) -> str:
        missing = [name for name in self.names[:1] if name not in values]
        if missing and any("." in key for key in further):
            files = ", ".join(f'"{key}"' for key in sorted(further, key=lambda key: "." not in key))
            return f"the files of a sample as a tuple, .to_tuple({files}) of a WebDataset"
        if missing:
            return (
                "name the keys as the arguments of model.forward, "
                f"data.rename_column('{further[0]}', '{missing[0]}') of a Hugging Face dataset"
            )
        given = [name for name in self.names if name in values]
        return (
            "name the keys as the arguments of model.forward, or drop the others, "
            f"data.select_columns({given}) of a Hugging Face dataset"
        )


def _signature_of(program: Any) -> inspect.Signature:
    """What a program takes; of one that runs another, as an AutoGuide its model, what that one takes."""
    if isinstance(program, AutoGuide):
        return _signature_of(program.model)
    if isinstance(program, Adopted):
        return _signature_of(program.program)
    try:
        return inspect.signature(program.forward if isinstance(program, nn.Module) else program)
    except ValueError:  # inside Pyro's handlers, which are partials of the program
        inner = program.args[-1] if isinstance(program, partial) and program.args else None
        return _signature_of(inner if callable(inner) else _of_any)


def _of_any(*batch: Any) -> None:
    """Takes whatever comes: the signature of a program that shows none."""


def arguments_of(program: PyroProgram) -> list[str]:
    """Names of a program's positional arguments, the observation first."""
    return [*Arguments.of(program).names]


def takes(program: PyroProgram, read: Callable[[], Batch], *, strictly: bool = False) -> bool:
    """Whether a program takes a batch: it runs, has sites, and none with more dims than its plates and its events.

    So it is found out whether an item of a stream is one datum, which is a batch with a dim in front, or a batch
    already: on a batch of batches a site has a dim too many.

    Args:
        program: a model or a guide.
        read: gives its arguments.
        strictly: whether there must be observed values with a dim for each plate around them, which are not repeated.
    """
    try:
        batch = read()
        with fork_rng(*batch), eval_mode(program):
            nodes = poutine.trace(program).get_trace(*batch).nodes
            sites = [site for site in nodes.values() if _is_sample(site)]
    except Exception:  # whatever a user's program or collation raises
        return False
    observed = [site for site in sites if site["is_observed"]]
    if strictly and (not observed or any(_is_repeated(site) for site in observed)):
        return False
    return bool(sites) and not any(_exceeds_its_plates(site) for site in sites)


def _is_sample(site: Any) -> bool:
    return site["type"] == "sample" and not isinstance(site["fn"], _Subsample)


def _exceeds_its_plates(site: Any) -> bool:
    return max(_num_batch(site), len(site["fn"].batch_shape)) > _depth(site)


def _is_repeated(site: Any) -> bool:
    return _num_batch(site) < _depth(site)


def _depth(site: Any) -> int:
    """The number of plates of a site."""
    return max([-frame.dim for frame in site["cond_indep_stack"] if frame.vectorized], default=0)


def _num_batch(site: Any) -> int:
    """The number of dims of a value before those of its event."""
    num: int = site["value"].dim() - len(site["fn"].event_shape)
    return num
