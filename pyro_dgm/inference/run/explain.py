"""Why a pair of programs fails on a batch, and what mends it: each fix is tried before it is named."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from torch import Tensor

from ...contract import PyroProgram, noise_name
from .data import Batch, has_rows
from .states import fork_rng
from .traces import PairTrace, run_pair

TABLE = "Trace Shapes:"  # the title of the table of sites that Pyro hangs on the error of a program
OF_INTEGERS = (  # how torch refuses real numbers where labels belong
    "'indices' to have one of the following scalar types: Long",
    "one_hot is only applicable to index tensor",
    "tensors used as indices must be long",
)


def run_or_explain(
    model: PyroProgram, guide: PyroProgram, batch: Batch, given: Batch | None = None
) -> PairTrace:
    """Run the pair once.

    Args:
        model: a Pyro program.
        guide: its guide.
        batch: their arguments.
        given: the data of which the batch is a part, for messages.

    Raises:
        ValueError: if a program fails: on which shapes, why, and what mends it.
    """

    def run(arguments: Batch) -> PairTrace:
        return run_pair(model, guide, arguments)

    try:
        return run(batch)
    except Exception as error:  # whatever a user's program raises
        raise explanation(error, run, batch, model=model, given=given) from error


def explanation(
    error: Exception,
    run: Callable[[Batch], Any],
    batch: Batch,
    *,
    model: PyroProgram | None,
    given: Batch | None = None,
) -> ValueError:
    """The error that says on which shapes a run failed, why, and how it is mended.

    Args:
        error: what the run raised.
        run: what failed, as a function of the batch: repairs are tried on it.
        batch: its arguments.
        model: the model, whose own draws tell the shape of the data; `None` if there is none.
        given: the data of which the batch is a part.
    """
    shapes = []
    for value in given or batch:
        shapes.append(tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__)
    fix = _fix_by_words(error, batch) or _fix_by_shape(model, batch)
    fix = fix or _fix_by_trial(run, batch, given or batch) or _fix_of_event(error, batch)
    table = str(error).partition(TABLE)[2]
    listing = f"\n\n{TABLE}{table}" if table else ""
    return ValueError(
        f"the programs fail on a batch of shapes {shapes}: {cause_of(error)}{fix}{listing}"
    )


def cause_of(error: Exception) -> str:
    """What an error says, without the table of sites that Pyro hangs on it."""
    return str(error).partition(TABLE)[0].strip()


def _fix_by_words(error: Exception, batch: Batch) -> str:
    """The fix where the error's own words tell it."""
    words = str(error)
    if "positional argument" in words:
        return (
            f"\nFix: the batch has {len(batch)} arguments; drop the labels, or take them in both programs, "
            "Concat(net)."
        )
    if any(phrase in words for phrase in OF_INTEGERS):
        return "\nFix: labels as integers, labels.long()."
    if "same dtype" in words:
        return "\nFix: data of the networks' dtype, x.float()."
    return ""


def _fix_by_shape(model: PyroProgram | None, batch: Batch) -> str:
    """The fix where the model generates data of another shape."""
    if model is None:
        return ""
    try:
        generated = model(None, *batch[1:])
        event = tuple(generated.shape[1:])
    except Exception:  # whatever a user's program raises: then it can't tell
        return ""
    shape = tuple(batch[0].shape)
    if event == shape[1:]:
        return ""
    if len(shape) == 1:
        fix = "x[None] for one datum, a row per datum for several"
    elif prod(event) != prod(shape[1:]):
        fix = f"networks for {shape[1:]}"
    elif len(event) > 1:
        fix = f"x.reshape(len(x), *{event})"
    else:
        fix = "x.flatten(1)"
    return f";\nexpected data of event shape {event}, which the model generates, got {shape[1:]}. Fix: {fix}."


def _fix_by_trial(run: Callable[[Batch], Any], batch: Batch, given: Batch) -> str:
    """The first of the common repairs of x with which the run succeeds; one datum is mended as a whole."""
    if not has_rows(batch[0]):
        return ""
    x, *context = given if batch[0].dim() == 1 else batch
    repairs = {
        "x.flatten(1)": x.flatten(1) if x.dim() > 2 else None,
        "x[None] for one datum, a row per datum for several": x[None] if x.dim() < 3 else None,
        "data of the networks' dtype, x.float()": x.float(),
        "x[:, None], a column": x[:, None] if x.dim() == 1 else None,
    }
    for fix, repaired in repairs.items():
        if repaired is not None and _succeeds(run, (repaired, *context)):
            return f"\nFix: {fix}."
    return ""


def _fix_of_event(error: Exception, batch: Batch) -> str:
    if "inside plate" in str(error) and has_rows(batch[0]):
        return f"\nFix: {fix_of_event(str(error), batch[0].shape[1:])}."
    return ""


def fix_of_event(site: str, event: tuple[int, ...]) -> str:
    """The fix of a log density with too many dims."""
    if noise_name("") in site:
        return f"UnitUniform({tuple(event)}), for noise of the shape of the data"
    return ".to_event(1) on the distribution, for the dims that belong to one event"


def _succeeds(run: Callable[[Batch], Any], batch: Batch) -> bool:
    try:
        with fork_rng(*batch):
            run(batch)
    except Exception:  # whatever a user's program raises
        return False
    return True
