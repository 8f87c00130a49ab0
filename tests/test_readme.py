"""The README's code runs as written, and its tables name what there is."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import pyro_dgm

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.slow
def test_python_blocks_run_in_order_as_one_program(tmp_path):
    blocks = re.findall(
        r"^```python\n(.*?)^```", README.read_text(), flags=re.DOTALL | re.MULTILINE
    )
    assert len(blocks) >= 3
    program = tmp_path / "readme.py"
    program.write_text("\n".join(blocks))
    done = subprocess.run(
        [sys.executable, program], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "NLL" in done.stdout


def names_in_the_tables() -> set[str]:
    """The dotted names that the code in the tables begins with, such as `flows.LULinear` of `flows.LULinear(3)`."""
    section = README.read_text().split("## What there is")[1].split("## Command line")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    code = re.findall(r"`([^`]+)`", "\n".join(rows))
    return {re.match(r"[\w.]*", text)[0] for text in code}


def resolve(dotted: str) -> Any:
    """What a name stands for at the top of the package, or in the namespace that it is written with."""
    found = pyro_dgm
    for part in dotted.split("."):
        found = getattr(found, part)
    return found


def test_names_in_the_tables_exist():
    """A name that has moved would warn, which is an error here."""
    missing = []
    for name in sorted(names_in_the_tables()):
        try:
            resolve(name)
        except (AttributeError, DeprecationWarning) as error:
            missing.append(f"{name}: {error}")
    assert not missing


def test_a_name_in_the_tables_without_a_namespace_is_one_of_the_front_door():
    tops = {name.split(".")[0] for name in names_in_the_tables()}
    assert tops - set(pyro_dgm.__all__) == set()


def test_every_public_name_stands_in_the_tables():
    assert set(pyro_dgm.__all__) - names_in_the_tables() == set()
