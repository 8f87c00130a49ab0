"""The group log_likelihood of local latents, which says by itself why `az.loo` can't have what it asks for."""

from __future__ import annotations

from typing import Any

import xarray

from .datatree import NOT_FOR_LOO, REFUSAL


class RefusingDataset(xarray.Dataset):
    """A dataset whose missing variables are refused with the reason, as the group of `arviz.InferenceData`."""

    __slots__ = ()

    def __getitem__(self, key: Any) -> Any:
        """A variable that it has.

        Raises:
            TypeError: for any other, as ArviZ does: a `KeyError` would be replaced by words of its own.
        """
        try:
            return super().__getitem__(key)
        except KeyError as error:
            raise TypeError(REFUSAL) from error


class RefusingTree(xarray.DataTree):
    """The same as a node of `xarray.DataTree`."""

    def __getitem__(self, key: str) -> Any:
        """A variable that it has.

        Raises:
            TypeError: for any other.
        """
        try:
            return super().__getitem__(key)
        except KeyError as error:
            raise TypeError(REFUSAL) from error


def is_refused(found: xarray.Dataset | xarray.DataTree) -> bool:
    """Whether a group holds the reason in the place of log-likelihoods, in memory or read from a file."""
    return set(found.data_vars) == set(NOT_FOR_LOO)
