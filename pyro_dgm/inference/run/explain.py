"""Why a pair of programs fails on a batch, and what mends it: each fix is tried before it is named."""

from __future__ import annotations

import re
from collections.abc import Callable
from math import prod
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from ...contract import PyroProgram, noise_name
from ..data.tensors import Batch, has_rows
from ..process.states import fork_rng
from ..vectorization.counting import CountError, refuse_plates
from .traces import PairTrace, latent_sites, run_pair, sites_of

TABLE = "Trace Shapes:"  # the title of the table of sites that Pyro hangs on the error of a program
OF_INTEGERS = (  # how torch refuses real numbers where labels belong
    "'indices' to have one of the following scalar types: Long",
    "one_hot is only applicable to index tensor",
    "tensors used as indices must be long",
)
OF_SIZES = re.compile(r"shapes cannot be multiplied \(\d+x(\d+) and (\d+)x\d+\)")
DTYPES = {"Double": torch.float64, "Float": torch.float32, "BFloat16": torch.bfloat16}


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
        raise explanation(error, run, batch, model=model, guide=guide, given=given) from error


def explanation(
    error: Exception,
    run: Callable[[Batch], Any],
    batch: Batch,
    *,
    model: PyroProgram | None,
    guide: PyroProgram | None = None,
    given: Batch | None = None,
) -> ValueError:
    """The error that says on which shapes a run failed, why, and how it is mended.

    Args:
        error: what the run raised.
        run: what failed, as a function of the batch: repairs are tried on it.
        batch: its arguments.
        model: the model, whose own draws tell the shape of the data; `None` if there is none.
        guide: its guide; `None` if there is none.
        given: the data of which the batch is a part.
    """
    try:
        with fork_rng(*batch):
            refuse_plates(run, given or batch)
    except CountError as error_of_count:
        return error_of_count
    shapes = []
    for value in given or batch:
        shapes.append(tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__)
    fix = fix_by_words(error, batch) or _fix_by_shape(model, batch)
    fix = fix or _fix_by_sizes(model, guide, batch) or _fix_by_latents(model, error, batch)
    fix = fix or _fix_by_trial(run, batch, given or batch) or _fix_of_event(error, batch)
    cause = cause_of(error)
    if not fix and "Fix:" not in cause:
        fix = _fix_of_arguments(batch)
    said = f"{cause.rstrip('.')};\n{fix}" if fix else cause
    table = str(error).partition(TABLE)[2]
    listing = f"\n\n{TABLE}{table}" if table else ""
    return ValueError(f"the programs fail on a batch of shapes {shapes}: {said}{listing}")


def cause_of(error: Exception) -> str:
    """What an error says, without the table of sites that Pyro hangs on it."""
    return str(error).partition(TABLE)[0].strip()


def fix_by_words(error: Exception, batch: Batch) -> str:
    """The fix where the error's own words tell it."""
    words = str(error)
    if "positional argument" in words:
        return (
            f"expected as many arguments as the programs take, got {len(batch)}. "
            "Fix: drop the labels, or take them in both programs, Concat(net)."
        )
    if any(phrase in words for phrase in OF_INTEGERS):
        return "expected integers, got real numbers. Fix: labels as integers, labels.long()."
    if "same dtype" in words:
        named = re.findall("Double|BFloat16|Float", words)
        dtype = DTYPES[named[-1]] if named else torch.get_default_dtype()
        return (
            f"expected data of the networks' dtype, got {_dtype_of(batch)}. "
            f"Fix: data of the networks' dtype, {fix_of_dtype(dtype)}{_fix_of_bytes(batch, dtype)}."
        )
    if "Inference tensors cannot be saved" in words:
        return (
            "expected modules built outside torch.inference_mode(), got some built inside. "
            "Fix: build model and guide outside of it."
        )
    if "Multiple sample sites named" in words:
        return (
            "expected a name of its own for each site, got one name twice. "
            "Fix: pyro.sample('z2', …) for the second."
        )
    return ""


def _fix_of_arguments(batch: Batch) -> str:
    shape = tuple(batch[0].shape[1:]) if batch and has_rows(batch[0]) else ()
    return (
        "expected the arguments that both programs take, got others. "
        f"Fix: networks for {shape}, or every context that the programs take after x."
    )


def _dtype_of(batch: Batch) -> Any:
    return batch[0].dtype if batch and isinstance(batch[0], Tensor) else "another"


def _fix_of_bytes(batch: Batch, dtype: torch.dtype) -> str:
    """For integers: floats batch by batch, which keeps the set as small as it is."""
    is_integer = batch and isinstance(batch[0], Tensor) and not batch[0].is_floating_point()
    names = {torch.float32: "float", torch.float64: "double"}
    if not is_integer or dtype not in names:
        return ""
    return f"; batch by batch, Batches(x, transform=torch.Tensor.{names[dtype]})"


def fix_of_dtype(dtype: torch.dtype) -> str:
    """Data of a dtype, as code."""
    words = {torch.float32: "x.float()", torch.float64: "x.double()"}
    return words.get(dtype, f"x.to({dtype})")


def fix_of_shape(expected: tuple[int, ...], got: tuple[int, ...]) -> str:
    """Data whose rows have the expected event shape, as code; networks for what came where no view does it.

    Args:
        expected: the event shape that the programs take.
        got: the shape of the data without its first dim.
    """
    if prod(expected) == prod(got):
        return "x.flatten(1)" if len(expected) == 1 else f"x.reshape(len(x), *{expected})"
    return f"networks for {got}"


def _fix_by_shape(model: PyroProgram | None, batch: Batch) -> str:
    """The fix where the model generates data of another shape."""
    if model is None:
        return ""
    try:
        event = tuple(_generated(model, batch).shape[1:])
    except Exception:  # whatever a user's program raises: then it can't tell
        return ""
    shape = tuple(batch[0].shape)
    if event == shape[1:]:
        return ""
    fix = fix_of_shape(event, shape[1:])
    if len(shape) == 1:
        fix = "x[None] for one datum, a row per datum for several"
    elif shape[2:] == event:
        fix = "x.flatten(0, 1), or DataLoader(stream, batch_size=None) for a stream of batches"
    return (
        f"expected data of event shape {event}, which the model generates, got {shape[1:]}. "
        f"Fix: {fix}."
    )


def _generated(model: PyroProgram, batch: Batch) -> Tensor:
    """What the model draws last without data; what it returns if that is of another shape, as of several sites."""
    trace = poutine.trace(model).get_trace(None, *batch[1:])
    returned = trace.nodes["_RETURN"]["value"]
    drawn = [site["value"] for site in latent_sites(trace).values()]
    is_one_of_them = any(value is returned for value in drawn)
    if is_one_of_them or not isinstance(returned, Tensor) or returned.shape == drawn[-1].shape:
        return drawn[-1]
    return returned


def _fix_by_sizes(model: PyroProgram | None, guide: PyroProgram | None, batch: Batch) -> str:
    """The fix where the guide draws latents of another size than the model's."""
    if model is None or guide is None:
        return ""
    try:
        drawn = poutine.trace(guide).get_trace(*batch)
        modelled = sites_of(poutine.trace(model).get_trace(None, *batch[1:]))
    except Exception:  # whatever a user's program raises: then it can't tell
        return ""
    for name, site in latent_sites(drawn).items():
        if name not in modelled:
            continue
        expected = tuple(modelled[name]["fn"].event_shape)
        got = tuple(site["fn"].event_shape)
        if expected != got:
            return (
                f"site '{name}': expected event_shape {expected} as in the model, got {got} in the "
                f"guide. Fix: {fix_of_sizes(expected, got)}."
            )
    return ""


def _fix_by_latents(model: PyroProgram | None, error: Exception, batch: Batch) -> str:
    """The fix where a network of the model takes latents of another size than the model draws."""
    found = OF_SIZES.search(str(error))
    if model is None or found is None:
        return ""
    got, expected = int(found[1]), int(found[2])
    with poutine.trace() as tracer:
        try:
            model(None, *batch[1:])
        except Exception as failed:  # whatever a user's program raises
            if OF_SIZES.search(str(failed)) is None:
                return ""
        else:
            return ""
    fix = (
        f"one size for both: a network that takes {got}, mlp({got}, …), or a prior of {expected}, "
        "and an encoder for it"
    )
    if expected > got:
        fix = f"every context that the programs take after x, of {expected - got} dims; or {fix}"
    for name, site in latent_sites(tracer.trace).items():
        if tuple(site["fn"].event_shape) == (got,):
            return (
                f"site '{name}': expected {expected} dims, which the model's network takes, got {got} "
                f"by its prior. Fix: {fix}."
            )
    return ""


def fix_of_sizes(expected: tuple[int, ...], got: tuple[int, ...]) -> str:
    """One size of a latent site in both programs, as code and words."""
    return (
        f"one size for prior and guide: a prior of {got}, or an encoder whose network ends in as "
        f"many outputs as {expected} needs, 2 per dim for a Normal"
    )


def _fix_by_trial(run: Callable[[Batch], Any], batch: Batch, given: Batch) -> str:
    """The first of the common repairs of x with which the run succeeds; one datum is mended as a whole."""
    if not has_rows(batch[0]):
        return ""
    x, *context = given if batch[0].dim() == 1 else batch
    repairs = {
        "x.flatten(1)": x.flatten(1) if x.dim() > 2 else None,
        "x[None] for one datum, a row per datum for several": x[None] if x.dim() < 3 else None,
        "x.float(), of the networks' dtype": x.float(),
        "x[:, None], a column": x[:, None] if x.dim() == 1 else None,
    }
    for fix, repaired in repairs.items():
        if repaired is not None and _succeeds(run, (repaired, *context)):
            return (
                f"expected data that the networks take, got shape {tuple(x.shape)} and {x.dtype}. "
                f"Fix: {fix}."
            )
    return ""


def _fix_of_event(error: Exception, batch: Batch) -> str:
    if "inside plate" in str(error) and has_rows(batch[0]):
        fix = fix_of_event(str(error), batch[0].shape[1:])
        return f"expected one log density per datum, got one per dim. Fix: {fix}."
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
