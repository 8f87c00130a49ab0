"""The kept notebooks are those of the scripts as they are, executed whole."""

from __future__ import annotations

import base64
import importlib.util
import json
import re
from pathlib import Path

import pytest

SITE = Path(__file__).parents[2] / "tutorials" / "_site"
SPEC = importlib.util.spec_from_file_location("cells_of_the_site", SITE / "cells.py")
cells = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(cells)

every_tutorial = pytest.mark.parametrize("script", cells.scripts(), ids=lambda path: path.stem)


def read(script: Path) -> dict:
    command = f"python tutorials/_site/render.py {script.stem}"
    path = cells.notebook_of(script)
    assert path.exists(), f"{script.name}: expected a notebook. Fix: {command}"
    return json.loads(path.read_text())


def outputs(notebook: dict) -> list[dict]:
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return [output for cell in code for output in cell["outputs"]]


def printed(notebook: dict) -> str:
    return "".join("".join(output.get("text", "")) for output in outputs(notebook))


@every_tutorial
def test_a_notebook_has_the_cells_of_its_script(script):
    kept = [(cell["cell_type"], "".join(cell["source"])) for cell in read(script)["cells"]]
    is_current = kept == cells.cells_of(script.read_text())
    assert is_current, (
        f"{script.name}: expected the cells of its notebook, got others. "
        f"Fix: python tutorials/_site/render.py {script.stem}"
    )


@every_tutorial
def test_every_cell_was_executed_in_order_without_an_error(script):
    notebook = read(script)
    counts = [c["execution_count"] for c in notebook["cells"] if c["cell_type"] == "code"]
    assert counts == list(range(1, len(counts) + 1))
    kinds = {output["output_type"] for output in outputs(notebook)}
    assert kinds == {"stream", "display_data"}  # text and pictures, and no error
    assert {output.get("name", "stdout") for output in outputs(notebook)} == {"stdout"}


@every_tutorial
def test_outputs_name_no_machine_and_no_folder_of_it(script):
    text = printed(read(script))
    assert not re.search(r"/(tmp|home|root|work|usr|var)/", text)
    assert "\x1b" not in text
    assert "\r" not in text


@every_tutorial
def test_every_picture_has_an_alternative_text(script):
    for cell in read(script)["cells"]:
        if any("image/png" in output.get("data", {}) for output in cell.get("outputs", [])):
            assert cell["metadata"]["mystnb"]["image"]["alt"]


def test_the_notebooks_are_small():
    sizes = [path.stat().st_size for path in cells.NOTEBOOKS.glob("*.ipynb")]
    assert sum(sizes) < 6e6


def test_there_is_a_notebook_for_each_script_and_no_other():
    kept = {path.stem for path in cells.NOTEBOOKS.iterdir()}
    assert kept == {script.stem for script in cells.scripts()}


def test_the_picture_of_the_first_page_is_an_output_of_a_tutorial():
    page = (cells.TUTORIALS / "index.md").read_text()
    name, tutorial = re.search(
        r"_site/(\w+\.png).*?notebooks/(\w+)\.ipynb", page, re.DOTALL
    ).groups()
    picture = base64.b64encode((SITE / name).read_bytes()).decode()
    found = [
        o["data"]["image/png"]
        for o in outputs(read(cells.TUTORIALS / f"{tutorial}.py"))
        if "data" in o
    ]
    assert picture in ["".join(data).replace("\n", "") for data in found]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# %%\nx = 1\n\n\n# %% [markdown]\n# # Title\n#\n# Text.\n", "code markdown"),
        ("# %% [markdown]\n# a\n\n# %%\ndef f():\n    return 1  # %% no cell\n", "markdown code"),
    ],
)
def test_cells_of_a_script_are_split_where_they_begin(text, expected):
    found = cells.cells_of(text)
    assert " ".join(cell.cell_type for cell in found) == expected
    sources = {cell.cell_type: cell.source for cell in found}
    assert sources["markdown"] in ("# Title\n\nText.", "a")
    assert sources["code"] in ("x = 1", "def f():\n    return 1  # %% no cell")
