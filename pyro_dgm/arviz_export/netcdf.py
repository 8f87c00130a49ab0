"""Exports as netCDF, made in memory: a full disk ends in a named error, and not in half a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files.writing import write_file

if TYPE_CHECKING:
    import xarray


def save_netcdf(found: Any, path: str | Path) -> None:
    """Write what `to_arviz` returns to one netCDF file.

    HDF5 on a full disk leaves half a file and may take the process with it; so the file is made in memory first.

    Args:
        found: an `arviz.InferenceData` or an `xarray.DataTree`.
        path: the file, for `arviz.from_netcdf(path)` or `xarray.open_datatree(path, engine="h5netcdf")`.

    Raises:
        FileError: if it can't be written; what was there is then as it was.
    """
    write_file(path, netcdf_content(found))


def netcdf_content(found: Any) -> bytes:
    """The bytes of a netCDF file with the groups of what `to_arviz` returns."""
    import xarray

    tree: xarray.DataTree = found
    if not isinstance(found, xarray.DataTree):
        tree = found.to_datatree()
    return bytes(tree.to_netcdf(engine="h5netcdf"))
