"""Exports as netCDF, made in memory: a full disk ends in a named error, and not in half a file."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files.locking import require_room
from ..files.writing import write_file
from ..inference.run.structure import Structure

if TYPE_CHECKING:
    import xarray

NUM_BYTES = 8  # of a number at most
NUM_STATISTICS = 3  # lp, log_q, log_weight


def save_netcdf(found: Any, path: str | Path) -> None:
    """Write what `to_arviz` returns to one netCDF file.

    HDF5 on a full disk leaves half a file and may take the process with it; so the file is made in memory first.

    Args:
        found: an `arviz.InferenceData` or an `xarray.DataTree`.
        path: the file, for `read_posterior`, `arviz.from_netcdf` or `xarray.open_datatree(path, engine="h5netcdf")`.

    Raises:
        FileError: for a disk without room for it, before it is written; if it can't be written for another reason.
            What was there is then as it was.
    """
    path, content = Path(path), netcdf_content(found)
    require_room(path.parent, len(content))
    write_file(path, content)


def netcdf_content(found: Any) -> bytes:
    """The bytes of a netCDF file with the groups of what `to_arviz` returns."""
    import xarray

    tree: xarray.DataTree = found
    if not isinstance(found, xarray.DataTree):
        tree = found.to_datatree()
    return bytes(tree.to_netcdf(engine="h5netcdf"))


def num_bytes_of_draws(structure: Structure, num_data: int, num: int) -> int:
    """About how large the file of `to_arviz` is: twice all numbers of a draw, the prior's among them, and densities.

    Args:
        structure: of the pair.
        num_data: data whose draws are kept.
        num: draws of each.
    """
    num_numbers = 0
    for site in structure.sites:
        num_numbers += 2 * prod(site.event_shape) + 1
    return NUM_BYTES * num_data * num * (num_numbers + NUM_STATISTICS)
