"""The posterior of a run as a file for ArviZ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...arviz_export.netcdf import save_netcdf
from ...arviz_export.zarr import save_zarr
from ...display.progress import bars
from ...inference.run.sessions import require_positive
from ..runs.processes import find_device
from ..runs.run import Run, load_run

KINDS = {".nc": save_netcdf, ".zarr": save_zarr}


def export(
    run: str | Path | Run,
    *,
    to: str | Path,
    num: int = 500,
    limit: int = 100,
    seed: int = 0,
    device: str | None = None,
    trust: Sequence[str] = (),
    progress: bool = True,
) -> Path:
    """Write posterior draws of a run's first test data for ArviZ: netCDF or zarr, by the suffix; seeds are chains.

    A file or a folder that is whole, or none. `dgm.results.read_posterior(to)` reads either.

    Args:
        run: a run directory, or what `dgm.load_run` read.
        to: FILE.nc, which may be there, or FOLDER.zarr, which may not (`pip install zarr`).
        num: draws of each seed; those of a single seed are cut into four chains.
        limit: how many test data.
        seed: of the draws.
        device: default: the GPU if there is one.
        trust: modules of your own that its configuration names.
        progress: whether to show bars.

    Returns:
        Where it was written.

    Raises:
        ValueError: for another suffix, and for a game, which has no posterior.
        FileError: for a folder that is there, a full disk.
        ImportError: for zarr without zarr.
    """
    path = Path(to)
    require_positive(num=num, limit=limit)
    if path.suffix not in KINDS:
        raise ValueError(
            f"to: expected a name that ends in {' or '.join(KINDS)}, got '{to}'. Fix: --to=posterior.nc."
        )
    if not isinstance(run, Run):
        run = load_run(run, trust, find_device(device))
    if not run.experiment.has_likelihood:
        raise ValueError(
            f"export: expected a model with a guide, which has posterior draws, got {run.folder}, a game. "
            f"Fix: pyro-dgm sample {run.folder}."
        )
    with bars(shown=progress):
        found = run.to_arviz(num, limit, seed)
    KINDS[path.suffix](found, path)
    return path
