"""The Python of every page runs as written: the blocks of a page, joined in order, are one program."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TUTORIALS = Path(__file__).parents[2] / "tutorials"


def blocks_of(path: Path) -> list[str]:
    """The blocks of Python of a page."""
    text = path.read_text()
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


PAGES = [path for path in sorted(TUTORIALS.rglob("*.md")) if blocks_of(path)]


def test_there_are_pages_with_code():
    assert TUTORIALS / "index.md" in PAGES


@pytest.mark.slow
@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(TUTORIALS)))
def test_the_code_of_a_page_runs(path, tmp_path):
    program = tmp_path / "page.py"
    program.write_text("\n".join(blocks_of(path)))
    done = subprocess.run(
        [sys.executable, program.name],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
