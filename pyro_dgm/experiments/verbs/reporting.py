"""One offline page of a run, or of several side by side."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ...files.writing import write_text
from ..pages.of_comparison import comparison_page
from ..pages.of_run import run_page
from ..runs.processes import find_device
from ..runs.run import Run, load_run
from .comparing import compare

PAGE = "report.html"
PAGE_OF_SEVERAL = "comparison.html"


def report(
    *runs: str | Path | Run,
    out: str | Path | None = None,
    num: int = 500,
    limit: int = 200,
    seed: int = 0,
    device: str | None = None,
    trust: Sequence[str] = (),
) -> Path:
    """Write one offline HTML page of a run, or of several runs side by side: figures, pictures, what to do next.

    Args:
        runs: run directories, or what `dgm.load_run` read.
        out: the file; default: `report.html` in the run directory, and `comparison.html` beside several.
        num: importance draws per test datum of the checks of one run.
        limit: test data that they look at.
        seed: of the draws.
        device: default: the GPU if there is one.
        trust: modules of your own that their configurations name.

    Returns:
        The file.

    Raises:
        ValueError: as `compare`, for several runs.
        FileError: for what is no run, and for a file that can't be written.
    """
    loaded = [r if isinstance(r, Run) else load_run(r, trust, find_device(device)) for r in runs]
    if len(loaded) == 1:
        path = loaded[0].folder / PAGE if out is None else Path(out)
        write_text(path, run_page(loaded[0], num=num, limit=limit, seed=seed))
        return path
    comparison = compare(*loaded)
    if out is None:
        parent = os.path.commonpath([run.folder.resolve().parent for run in loaded])
        out = Path(parent) / PAGE_OF_SEVERAL
    path = Path(out)
    write_text(path, comparison_page(comparison, folder=path.parent, seed=seed))
    return path
