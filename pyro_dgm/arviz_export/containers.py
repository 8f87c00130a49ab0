"""The container of the installed ArviZ, in memory and read from a file: one that refuses LOO with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .datatree import container

if TYPE_CHECKING:
    import xarray

GROUP = "log_likelihood"
ENGINES = {".nc": "h5netcdf", ".zarr": "zarr"}


def container_of(datasets: Mapping[str, xarray.Dataset]) -> Any:
    """Named groups as what `to_arviz` returns, with ArviZ 0.x and 1.x."""
    import xarray

    from .refusing import RefusingDataset, RefusingTree, is_refused

    found = container(datasets)
    is_to_refuse = GROUP in datasets and is_refused(datasets[GROUP])
    if isinstance(found, xarray.DataTree):
        if is_to_refuse:
            found[GROUP] = RefusingTree(datasets[GROUP])
        return found
    from .inference_data import InferenceData  # of ArviZ 0.x alone

    groups = dict(found.items())
    if is_to_refuse:
        group = groups[GROUP]
        groups[GROUP] = RefusingDataset(group.data_vars, coords=group.coords, attrs=group.attrs)
    return InferenceData(**groups)


def groups_of(found: Any) -> dict[str, xarray.Dataset]:
    """The groups of either container."""
    import xarray

    if isinstance(found, xarray.DataTree):
        return {name: node.to_dataset() for name, node in found.children.items()}
    return dict(found.items())


def read_posterior(path: str | Path) -> Any:
    """What `to_arviz` returned and a file or a folder holds, in memory: netCDF (`.nc`) or zarr (`.zarr`).

    With ArviZ 0.x and 1.x, whichever of them wrote it. `arviz.from_netcdf` reads the file as well, into a container
    that refuses LOO of local latents with fewer words.

    Args:
        path: of `posterior.nc` in a run directory, of `pyro-dgm export`, or of `.to_netcdf` and `.to_zarr`.

    Returns:
        `arviz.InferenceData` with ArviZ 0.x, `xarray.DataTree` with ArviZ 1.x.

    Raises:
        ValueError: for another suffix.
        FileNotFoundError: if it is not there.
    """
    import xarray

    path = Path(path)
    if path.suffix not in ENGINES:
        raise ValueError(
            f"path: expected a name that ends in {' or '.join(ENGINES)}, got '{path}'. "
            "Fix: read_posterior('posterior.nc')."
        )
    with xarray.open_datatree(path, engine=ENGINES[path.suffix]) as tree:
        return container_of(groups_of(tree.load()))
