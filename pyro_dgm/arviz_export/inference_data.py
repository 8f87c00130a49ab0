"""The container of ArviZ 0.x, as a table also where it holds groups without draws; ArviZ is imported with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import arviz

if TYPE_CHECKING:
    import pandas

DRAWS = {"chain", "draw"}


class InferenceData(arviz.InferenceData):
    """`arviz.InferenceData`, some of whose groups describe data, epochs or ranks, and have no draws.

    ArviZ makes one row per draw of all groups and fails on those; its own groups of data are passed over by name.
    A file that is read by `arviz.from_netcdf` is of ArviZ's own class: name groups there, or `read_posterior` it.
    """

    def to_dataframe(
        self, groups: Any = None, filter_groups: Any = None, *args: Any, **options: Any
    ) -> pandas.DataFrame:
        """One row per draw, as `arviz.InferenceData.to_dataframe`; default: of all groups that have draws.

        Args:
            groups: names of groups or of groups of groups.
            filter_groups: how they are to be read.
            args: as ArviZ has them.
            options: the same by name.
        """
        if groups is None and filter_groups is None:
            groups = [name for name in self.groups() if set(self[name].sizes) >= DRAWS]
        return super().to_dataframe(groups, filter_groups, *args, **options)

    def to_zarr(self, store: Any = None, **options: Any) -> Any:
        """Write a zarr store by xarray, as the tree of ArviZ 1.x does: ArviZ 0.x knows no zarr 3.

        Args:
            store: path of a folder, or a store.
            options: of `xarray.DataTree.to_zarr`.
        """
        kept = {"zarr_format": 2, "consolidated": True}  # zarr 3 has no standard for strings
        return self.to_datatree().to_zarr(store, **{**kept, **options})
