"""The cells of a percent script: `# %%` begins code, `# %% [markdown]` prose in comments."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

TUTORIALS = Path(__file__).resolve().parents[1]
NOTEBOOKS = TUTORIALS / "notebooks"


class Cell(NamedTuple):
    """What stands in one cell of a notebook, as its `cell_type` and `source`."""

    cell_type: str
    source: str


def scripts() -> list[Path]:
    """The tutorials, in order."""
    return sorted(TUTORIALS.glob("[0-9]*.py"))


def notebook_of(script: Path) -> Path:
    """Where the executed notebook of a script is kept."""
    return NOTEBOOKS / f"{script.stem}.ipynb"


def cells_of(text: str) -> list[Cell]:
    """The cells of a script."""
    cells: list[Cell] = []
    for part in re.split(r"^# %%", text, flags=re.MULTILINE)[1:]:
        head, _, body = part.partition("\n")
        if head.strip() == "[markdown]":
            prose = re.sub(r"^# ?", "", body.strip(), flags=re.MULTILINE)
            cells.append(Cell("markdown", prose))
        else:
            cells.append(Cell("code", body.strip()))
    return cells
