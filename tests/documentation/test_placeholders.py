"""No page, notebook or README waits for a word or a number."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TUTORIALS = ROOT / "tutorials"
FILES = [ROOT / "README.md", *sorted(TUTORIALS.rglob("*.md")), *sorted(TUTORIALS.rglob("*.ipynb"))]
WORDS = re.compile(r"\b(?:TODO|FIXME|TBD|PLACEHOLDER|XXX)\b|\?\?\?")
# Four capitals or more where a number is due: behind `:`, `=`, `±` or `≈`, before the end of a clause or a cell.
CAPITALS = re.compile(r"(?<=[:=±≈] )\**[A-Z]{4,}\**(?=\s*(?:[.,;)|]|$))", flags=re.MULTILINE)


def text_of(path: Path) -> str:
    """A page, or the prose and the fenced code of a notebook, without its outputs."""
    if path.suffix != ".ipynb":
        return path.read_text()
    cells = [
        (cell["cell_type"], "".join(cell["source"]))
        for cell in json.loads(path.read_text())["cells"]
    ]
    return "\n\n".join(
        text if kind == "markdown" else f"```python\n{text}\n```" for kind, text in cells
    )


def placeholders(text: str) -> list[str]:
    """Words that stand for what is not written yet: anywhere, and capitals in place of numbers in prose."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    prose = re.sub(r"`[^`]*`|\$[^$]*\$", "", prose)
    return WORDS.findall(text) + CAPITALS.findall(prose)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_placeholder_is_left(path):
    assert placeholders(text_of(path)) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the same −ELBO: 92.99, and the same NLL: NLLPAIR.", ["NLLPAIR"]),
        ("| flow | 85.2 ± STDERR |\n| ELBO | 3 |", ["STDERR"]),
        ("TODO: measure. It takes ??? seconds.", ["TODO", "???"]),
        ("The loss is the ELBO, one of MNIST: `FILE`. Two terms: ELBO and KL.", []),
    ],
)
def test_a_placeholder_is_found(text, expected):
    assert placeholders(text) == expected
