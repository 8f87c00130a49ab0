"""One mistake, one answer: what newcomers get wrong, through every public entry that takes it.

An entry either works, and then gives what the right call gives, or it refuses with what was expected,
what it got, and the same fix as every other entry. A mistake is a line of a table in `mistakes`, an entry
is a line in `entries`; every cell of the product is a test. Entries to which a mistake does no harm, or
that have a better answer of their own, stand in its line by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from house.answers import expect, numbers
from house.entries import GAN, GUIDE_ALONE, MODEL_ALONE, OF_PRIOR, ON_DATA, TRAINED, build, real
from house.mistakes import IN_DATA, IN_PROGRAMS
from house.options import IN_OPTIONS

BUILT = "modules built in inference mode"


# -- what a cell must do --------------------------------------------------------------------------
def cells(entries: Mapping[str, Any], mistakes: Mapping[str, Any]) -> list[Any]:
    """All pairs of an entry and a mistake."""
    found = []
    for mistake in mistakes:
        for entry in entries:
            found.append(pytest.param(entry, mistake, id=f"{entry}-{mistake}"))
    return found


@pytest.mark.parametrize(("entry", "mistake"), cells(ON_DATA, IN_DATA))
def test_a_mistake_in_the_data_has_one_answer(entry, mistake):
    case = IN_DATA[mistake]
    vae = build(case.pair)
    answer = case.answer(entry)
    result = expect(answer, lambda: ON_DATA[entry](vae.model, vae.guide, *case.batch()))
    if answer is not None or case.right is None or entry in TRAINED:
        return  # the noise goes by batches, whose sizes and order are a loader's own
    right = expect(None, lambda: ON_DATA[entry](vae.model, vae.guide, *case.right()))
    torch.testing.assert_close(numbers(result), numbers(right), equal_nan=True)


@pytest.mark.parametrize(("entry", "mistake"), cells(ON_DATA | OF_PRIOR, IN_PROGRAMS))
def test_a_mistake_in_the_programs_has_one_answer(entry, mistake):
    case = IN_PROGRAMS[mistake]
    model, guide = case.programs(build("real"))
    batch = case.batch() if entry in ON_DATA else ()
    if entry in (*MODEL_ALONE, *GUIDE_ALONE, GAN) and not batch and entry in ON_DATA:
        batch = (real(),)  # takes no guide, or the data are the guide
    run = (ON_DATA | OF_PRIOR)[entry]
    expect(case.answer(entry), lambda: run(model, guide, *batch))


OPTION_CELLS = [
    cell for cell in cells(ON_DATA | OF_PRIOR, IN_OPTIONS)
    if cell.values[0] in IN_OPTIONS[cell.values[1]].entries
]  # fmt: skip


@pytest.mark.parametrize(("entry", "mistake"), OPTION_CELLS)
def test_a_mistake_in_an_option_has_one_answer(entry, mistake):
    case, vae = IN_OPTIONS[mistake], build("real")
    batch = (real(),) if entry in ON_DATA else ()
    run = (ON_DATA | OF_PRIOR)[entry]
    expect(case.answer(entry), lambda: run(vae.model, vae.guide, *batch, **case.options))


# -- what is around a call ------------------------------------------------------------------------
@pytest.mark.parametrize(
    "around", [torch.no_grad, torch.inference_mode], ids=["no_grad", "inference_mode"]
)
@pytest.mark.parametrize("entry", list(ON_DATA | OF_PRIOR))
def test_an_entry_gives_the_same_without_gradients_around_it(entry, around):
    run, batch = (ON_DATA | OF_PRIOR)[entry], (real(),) if entry in ON_DATA else ()
    right = run(build("real").model, build("real").guide, *batch)
    vae = build("real")
    with around():
        found = run(vae.model, vae.guide, *batch)
    torch.testing.assert_close(numbers(found), numbers(right), equal_nan=True)


@pytest.mark.parametrize(("entry", "mistake"), cells(ON_DATA | OF_PRIOR, {BUILT: None}))
def test_modules_that_were_built_in_inference_mode_work_or_are_refused(entry, mistake):
    run, batch = (ON_DATA | OF_PRIOR)[entry], (real(),) if entry in ON_DATA else ()
    with torch.inference_mode():
        vae = build("real")
    trained = entry in TRAINED or entry == "draw"
    trained = trained or entry in ("gaps", "ais", "hmc", "bdmc")
    answer = "outside of it" if trained else None
    found = expect(answer, lambda: run(vae.model, vae.guide, *batch))
    if answer is None:
        right = run(build("real").model, build("real").guide, *batch)
        torch.testing.assert_close(numbers(found), numbers(right), equal_nan=True)
