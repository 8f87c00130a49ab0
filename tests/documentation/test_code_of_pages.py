"""The Python of every page runs as written and prints what the page shows.

The blocks of a page, joined in order, are one program. A block of `text` right behind a block of `python` is the output
of that block. Its numbers may be others on another machine; its words, names and shapes are those that are printed.
"""

from __future__ import annotations

import os
import runpy
import sys
import warnings
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from shown import examples, is_printed

TUTORIALS = Path(__file__).parents[2] / "tutorials"
END = "--- end of a block of the page ---"


def run(program: Path) -> None:
    """Run a page's program in this process, which is one of its own, and keep what it prints and what it says."""
    os.chdir(program.parent)
    os.dup2(os.open("printed.txt", os.O_WRONLY | os.O_CREAT), 1)
    os.dup2(os.open("said.txt", os.O_WRONLY | os.O_CREAT), 2)
    warnings.resetwarnings()
    torch.set_num_threads(1)
    runpy.run_path(program.name, run_name="__main__")
    sys.stdout.flush()


PAGES = [path for path in sorted(TUTORIALS.rglob("*.md")) if examples(path.read_text())]


def test_there_are_pages_with_code_and_outputs():
    assert TUTORIALS / "index.md" in PAGES
    assert any(shown for path in PAGES for _, shown in examples(path.read_text()))


@pytest.mark.slow
@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(TUTORIALS)))
def test_the_code_of_a_page_prints_what_the_page_shows(path, tmp_path):
    codes, outputs = zip(*examples(path.read_text()), strict=True)
    program = tmp_path / "page.py"
    program.write_text("".join(f"{code}\nprint({END!r}, flush=True)\n" for code in codes))
    processes = get_context("forkserver")
    processes.set_forkserver_preload(["pyro_dgm"])  # imported once for all pages
    page = processes.Process(target=run, args=(program,))
    page.start()
    page.join(timeout=300)
    is_late = page.is_alive()
    page.kill()
    assert not is_late
    assert page.exitcode == 0, (tmp_path / "said.txt").read_text()[-2000:]
    printed = (tmp_path / "printed.txt").read_text().split(END + "\n")[:-1]
    pairs = zip(outputs, printed, strict=True)
    others = [f"shown:\n{a}\nprinted:\n{b}" for a, b in pairs if a and not is_printed(a, b)]
    assert not others, "\n".join(others)


@pytest.mark.parametrize(
    ("shown", "printed", "expected"),
    [
        ("NLL 3.10 ± 0.20 nats\n", "NLL  12.9 ± 1.4 nats\n", True),
        ("bias 2.8e-07\n", "bias 0.0001\n", True),
        ("3 of 8 modes\n…\nall: 1,000\n", "8 of 8 modes\nprecision 0.9\nall: 20\n", True),
        ("NLL 3.10 ± 0.20 nats\n", "NLL 3.10 ± 0.20 bits\n", False),
        ("a 1\nb 2\n", "a 1\nb 2\nc 3\n", False),
        ("a 1\nb 2\nc 3\n", "a 1\nb 2\n", False),
        ("a 1\n…\nd 4\n", "a 1\nb 2\n", False),
        ("torch.Size([4, 50])\n", "torch.Size([50, 4])\n", False),
        ("(4, 50)\n", "(4, 60)\n", False),
        ("{'chain': 1, 'draw': 200}\n", "{'chain': 4, 'draw': 50}\n", False),
        ("{'epoch': 2, 'loss': 3.1}\n", "{'epoch': 2, 'loss': 3.7}\n", True),
    ],
)
def test_an_output_is_shown_by_its_words_names_and_shapes(shown, printed, expected):
    assert is_printed(shown, printed) == expected


def test_the_output_of_a_block_stands_right_behind_it():
    page = (
        "```python\na\n```\n\n```text\n1\n```\n\n```python\nb\n```\n\nWords.\n\n```text\n2\n```\n"
    )
    assert examples(page) == [("a\n", "1\n"), ("b\n", "")]
