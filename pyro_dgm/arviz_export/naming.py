"""Names of sites, dims, coordinates and groups: refusals of those that are unknown, taken, or mean something else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .datatree import DATUM, Arrays


def check_names(
    groups: Mapping[str, Arrays],
    dims: Mapping[str, Sequence[str]],
    coords: Mapping[str, Sequence[Any]],
    extra: Mapping[str, Any],
) -> None:
    """Refuse names of sites, dims and groups that are unknown or taken."""
    sites = [*groups["posterior"], *groups["observed_data"], *groups.get("constant_data", ())]
    _check_known("dims of sites", dims, sites)
    known_dims: set[str] = set()
    for arrays in groups.values():
        for names, _ in arrays.values():
            known_dims |= set(names)
    _check_known("coords of dims", coords, known_dims)
    for arrays in groups.values():
        _check_variables(arrays)
        _check_lengths(arrays, coords)
    taken = sorted(set(extra) & set(groups))
    if taken:
        raise ValueError(
            f"to_arviz: expected extra groups of names other than {sorted(groups)}, got {taken}. "
            f"Fix: extra={{'my_{taken[0]}': …}}."
        )
    for name, group in extra.items():
        if not hasattr(group, "data_vars"):
            raise TypeError(
                f"to_arviz: expected extra['{name}'] to be an xarray.Dataset, got {type(group).__name__}. "
                f"Fix: extra={{'{name}': xarray.Dataset(…)}}."
            )


def _check_variables(arrays: Arrays) -> None:
    """Refuse what xarray and ArviZ take for something else: a variable named as a dim, a dim that is there twice."""
    dims: set[str] = set()
    for names, _ in arrays.values():
        dims |= set(names)
    for name, (names, _) in arrays.items():
        if name in dims or "/" in name:
            raise ValueError(
                f"to_arviz: expected names of sites and arguments other than those of dims, {sorted(dims)}, and "
                f"without '/', got '{name}'. Fix: pyro.sample('my_{name.replace('/', '_')}', …) in both programs, "
                "or other names in dims=."
            )
        if len(set(names)) < len(names):
            twice = next(dim for dim in names if names.count(dim) > 1)
            raise ValueError(
                f"to_arviz: site '{name}': expected a name of its own for each dim, got {list(names)}. "
                f"Fix: another name than '{twice}' in pyro.plate(…) or dims=."
            )


def _check_lengths(arrays: Arrays, coords: Mapping[str, Sequence[Any]]) -> None:
    """Refuse a dim of several lengths, and coordinates of another length; those of the data are of all of them."""
    lengths = {dim: len(values) for dim, values in coords.items() if dim != DATUM}
    for name, (names, values) in arrays.items():
        for dim, length in zip(names, values.shape, strict=True):
            expected = lengths.setdefault(dim, length)
            if expected != length:
                raise ValueError(
                    f"to_arviz: site '{name}': expected {expected} coordinates along '{dim}', as elsewhere, got "
                    f"{length}. Fix: a dim of another name, or coords={{'{dim}': range({length})}}."
                )


def _check_known(what: str, given: Iterable[str], names: Iterable[str]) -> None:
    known, unknown = sorted(set(names)), sorted(set(given) - set(names))
    if unknown:
        raise ValueError(
            f"to_arviz: expected {what} among {known}, got {unknown}. Fix: one of {known}."
        )


def check_index(index: Sequence[Any], num: int) -> None:
    """Refuse names of data that are not as many as the data."""
    if len(index) != num:
        raise ValueError(
            f"to_arviz: expected coords['{DATUM}'] with a name for each of all {num} data, got {len(index)}. "
            f"Fix: coords={{'{DATUM}': range({num})}}."
        )
