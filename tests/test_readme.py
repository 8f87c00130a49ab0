"""The README is one page that reads on a small screen, and its code and commands print what it shows."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from shown import NUMBER, blocks, shape_of

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def cells() -> list[str]:
    rows = [line for line in README.splitlines() if line.startswith("|")]
    return [cell.strip() for row in rows for cell in row.strip("|").split("|")]


def numbers_in(text: str) -> list[float]:
    return [float(found.replace(",", "")) for found in NUMBER.findall(text)]


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, *command], cwd=cwd, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_it_is_one_page_of_short_lines_and_narrow_tables():
    assert len(README.splitlines()) <= 120
    assert max(len(line) for line in README.splitlines()) <= 160
    assert max(len(cell) for cell in cells()) <= 100


def test_every_relative_link_and_the_picture_lead_to_a_file():
    links = re.findall(r"\]\(([^)]+)\)", README)
    inner = [link for link in links if "://" not in link]
    assert len(inner) >= 10
    assert [link for link in inner if not (ROOT / link.partition("#")[0]).is_file()] == []
    assert 10_000 < (ROOT / "tutorials/_static/results.png").stat().st_size < 100_000


def test_the_command_of_the_tests_is_there_for_ci():
    assert re.search(r'^pip install .* && pytest -n 2 -m "not slow"$', README, flags=re.MULTILINE)


@pytest.mark.slow
def test_its_python_prints_what_stands_below_it(tmp_path):
    """On another machine training may end a little elsewhere: by less than a nat in each term."""
    program = tmp_path / "readme.py"
    program.write_text("\n".join(blocks(README, "python")))
    printed, shown = run(program, cwd=tmp_path), blocks(README, "text")[1]
    assert shape_of(printed) == shape_of(shown)
    assert numbers_in(printed) == pytest.approx(numbers_in(shown), abs=1.0)


@pytest.mark.slow
def test_its_first_command_prints_the_table_that_stands_below_it(tmp_path):
    """Seconds, and how many weights are heavy, are of the machine; the likelihoods are the same to a nat."""
    printed, shown = run("-m", "pyro_dgm", "fit", cwd=tmp_path), blocks(README, "text")[0]
    printed = re.sub(r"(?m)^Run directory: .*$", "Run directory: runs/20261130-110404", printed)
    assert shape_of(printed) == shape_of(shown)
    here, there = printed.splitlines(), shown.splitlines()
    for row in ("-ELBO", "NLL ", "KL(q | p)", "test data", "parameters"):
        (ours,) = (line for line in here if line.startswith(row))
        (theirs,) = (line for line in there if line.startswith(row))
        assert numbers_in(ours) == pytest.approx(numbers_in(theirs), abs=1.0)
