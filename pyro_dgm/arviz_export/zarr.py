"""Exports as zarr, a folder of many small files: written beside its place, and moved there whole."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files.writing import write_folder

if TYPE_CHECKING:
    import xarray


def save_zarr(found: Any, path: str | Path) -> None:
    """Write what `to_arviz` returns to a zarr folder that was not there before.

    Args:
        found: an `arviz.InferenceData` or an `xarray.DataTree`.
        path: the folder, for `read_posterior` or `xarray.open_datatree(path, engine="zarr")`.

    Raises:
        FileError: for a folder that is there; if it can't be written: nothing is left of it then.
        ImportError: without zarr.
    """
    try:
        import zarr  # noqa: F401 - xarray needs it
    except ImportError as error:
        raise ImportError(
            "export: expected the package zarr, for a zarr folder, got none. "
            "Fix: pip install zarr, or --to=posterior.nc."
        ) from error
    import xarray

    tree: xarray.DataTree = found
    if not isinstance(found, xarray.DataTree):
        tree = found.to_datatree()

    def write(folder: Path) -> None:
        tree.to_zarr(folder, mode="w", zarr_format=2, consolidated=True)  # of 3 it is no standard

    write_folder(path, write)
