"""The Python of every page runs as written: the blocks of a page, joined in order, are one program."""

from __future__ import annotations

import os
import re
import runpy
import warnings
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch

TUTORIALS = Path(__file__).parents[2] / "tutorials"


def blocks_of(path: Path) -> list[str]:
    """The blocks of Python of a page."""
    text = path.read_text()
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def run(program: Path) -> None:
    """Run a page's program in this process, which is one of its own, and keep what it says."""
    os.chdir(program.parent)
    said = os.open("said.txt", os.O_WRONLY | os.O_CREAT)
    os.dup2(said, 1)
    os.dup2(said, 2)
    warnings.resetwarnings()
    torch.set_num_threads(1)
    runpy.run_path(program.name, run_name="__main__")


PAGES = [path for path in sorted(TUTORIALS.rglob("*.md")) if blocks_of(path)]


def test_there_are_pages_with_code():
    assert TUTORIALS / "index.md" in PAGES


@pytest.mark.slow
@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(TUTORIALS)))
def test_the_code_of_a_page_runs(path, tmp_path):
    program = tmp_path / "page.py"
    program.write_text("\n".join(blocks_of(path)))
    processes = get_context("forkserver")
    processes.set_forkserver_preload(["pyro_dgm"])  # imported once for all pages
    page = processes.Process(target=run, args=(program,))
    page.start()
    page.join(timeout=300)
    is_late = page.is_alive()
    page.kill()
    assert not is_late
    assert page.exitcode == 0, (tmp_path / "said.txt").read_text()[-2000:]
