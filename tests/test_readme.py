"""The README's code runs as written."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
NAMESPACES = ("flows", "distributions", "nn", "gan", "results", "diagnostics", "training")


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


def test_names_in_the_tables_exist():
    import pyro_dgm

    table = README.read_text().split("## What there is")[1].split("## Command line")[0]
    names = {name.split("(")[0] for name in re.findall(r"`([A-Za-z_]+)[`(]", table)}
    known = set(pyro_dgm.__all__)
    for namespace in NAMESPACES:
        known |= set(getattr(pyro_dgm, namespace).__all__)
    assert names - known == set()
