"""The decimals in a tutorial's prose are those of its outputs, to the digits that the prose gives.

Where a notebook is of a smaller run than the one the prose reports, there is nothing to compare. A number that is
found among the outputs may still be another figure's: this finds prose that was left behind, and proves no more.
"""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest

SITE = Path(__file__).parents[2] / "tutorials" / "_site"
SPEC = importlib.util.spec_from_file_location("cells_with_numbers", SITE / "cells.py")
cells = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(cells)

DECIMAL = re.compile(r"(?<![\w.])\d[\d,]*\.\d+")
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?")
ELSEWHERE = {  # differences and ratios of outputs, settings, and figures of runs that the prose names
    "02_flow_priors_and_posteriors": {"0.57", "0.70", "0.72", "1.29", "1.8", "2.49", "3.18"},
    "03_discrete_data": {"0.001", "0.0007", "0.0002"},
    "04_elbo_surgery": {"3.3", "6.3"},
    "06_arviz": {"0.23", "2.4"},
    "08_likelihood_is_not_quality": {"3.7"},
}


def prose_of(notebook: dict) -> str:
    """All prose, without code and mathematics."""
    text = "\n\n".join(
        "".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown"
    )
    return re.sub(r"\$[^$]*\$|`[^`]*`", "", text)


def printed_by(notebook: dict) -> str:
    """All text that the cells have printed."""
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    return "\n".join("".join(output.get("text", "")) for output in outputs)


def strangers(prose: str, printed: str) -> set[str]:
    """The decimals of the prose that no printed number rounds to, percentages as shares too."""
    numbers = [float(number.replace(",", "")) for number in NUMBER.findall(printed)]
    numbers += [number / 100 for number in numbers]
    found = set()
    for decimal in DECIMAL.findall(prose):
        half = 0.5000001 * 10.0 ** -len(decimal.partition(".")[2])
        if all(abs(float(decimal.replace(",", "")) - number) > half for number in numbers):
            found.add(decimal)
    return found


@pytest.mark.parametrize("script", cells.scripts(), ids=lambda path: path.stem)
def test_decimals_of_the_prose_are_among_the_outputs(script):
    notebook = json.loads(cells.notebook_of(script).read_text())
    if notebook["metadata"]["run"]["is_smaller"]:
        pytest.skip("the prose reports a larger run than the notebook's")
    found = strangers(prose_of(notebook), printed_by(notebook))
    assert found == ELSEWHERE.get(script.stem, set())


@pytest.mark.parametrize(
    ("prose", "printed", "expected"),
    [
        ("a gain of 1.87 ± 0.19 nats", "gain 2.049 ± 0.231", {"1.87", "0.19"}),
        ("a gain of 2.05 ± 0.23 nats", "gain 2.049 ± 0.231", set()),
        ("recall 0.93, 1,000.5 in all", "recall 93%, 1000.52 in all", set()),
        ("2.0 and −0.002", "2.04, -2.1e-03", set()),
        ("2.00", "2.04", {"2.00"}),
    ],
)
def test_prose_that_was_left_behind_is_found(prose, printed, expected):
    assert strangers(prose, printed) == expected
