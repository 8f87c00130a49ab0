"""The site, built once for all tests and workers."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def build(folder: Path) -> None:
    """Build the site into a folder, and keep what Sphinx says."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    done = subprocess.run(
        [*command, ROOT / "tutorials", folder / "site"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
    )
    (folder / "said.txt").write_text(f"{done.returncode}\n{done.stderr}")


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> Path:
    """A folder with the site and with `said.txt`, the exit status and the warnings of its build."""
    for package in ("sphinx", "myst_nb", "furo", "sphinx_copybutton", "sphinx_design"):
        pytest.importorskip(package, reason="needs pip install -e '.[docs]'")
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    folder = folder / "documentation"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "said.txt").exists():
            build(folder)
    return folder
