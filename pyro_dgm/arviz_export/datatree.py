"""The torch-free side of the export: datasets of named arrays, their tree, and the container of the installed ArviZ.

This module imports neither torch nor Pyro, nor anything that does, so that every ArviZ can test it by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray

    from ..evaluation.likelihood.annealing import AIS
    from ..evaluation.likelihood.results import NLL
    from ..evaluation.posterior.calibration import SBC
    from ..inference.training.history import History

Array = tuple[tuple[str, ...], "np.ndarray[tuple[int, ...], np.dtype[Any]]"]  # dims and values
Arrays = dict[str, Array]
DATUM = "datum"
SAMPLE = ("chain", "draw")
STATISTICS = {
    "elbo": (-1, "nelbo"),
    "log_p": (-1, "per_datum"),
    "log_p_stderr": (1, "monte_carlo"),
    "kl": (1, "kl"),
    "khat": (1, "khat"),
    "ess": (1, "ess"),
}
UNITS = {"khat": "1", "ess": "draws"}
JOINT = "joint density at a point"  # what p measures where the guide is a point mass
OF_A_POINT = {"log_joint": (-1, "per_datum")}
NOT_FOR_LOO = "not_for_loo_or_waic_as_z_is_local"
REFUSAL = (
    "z_i belongs to x_i alone: without x_i its distribution is the prior, and the mean of "
    "1 / p(x_i | z) over z ~ p(z | x_i), "
    "which LOO would take, is the harmonic-mean estimate of 1 / p(x_i), of infinite variance where the data say more "
    "of z than the prior. Fix: dgm.compare_elpd({'a': dgm.nll(...), 'b': dgm.nll(...)}) on held-out data."
)


def dataset(
    arrays: Arrays,
    coords: Mapping[str, Sequence[Any]] | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> xarray.Dataset:
    """A dataset of arrays `name → (dims, values)`.

    Args:
        arrays: the data.
        coords: dim → values; dims that no array has are left out; all others count from 0 unless given.
        attrs: what is to be known of the whole.

    Example:
        >>> dataset({"z": (("chain", "draw"), np.zeros((1, 3)))}, {"datum": "abc"}).sizes["draw"]
        3
    """
    import xarray

    sizes = _sizes(arrays)
    given = dict(coords or {})
    found = {}
    for dim, size in sizes.items():
        found[dim] = list(given.get(dim, range(size)))
    return xarray.Dataset(arrays, coords=found, attrs=dict(attrs or {}))


def _sizes(arrays: Arrays) -> dict[str, int]:
    """Dim → its length."""
    sizes: dict[str, int] = {}
    for dims, values in arrays.values():
        sizes.update(zip(dims, values.shape, strict=True))
    return sizes


def container(datasets: Mapping[str, xarray.Dataset]) -> Any:
    """Named groups as `arviz.InferenceData` with ArviZ 0.x, as `xarray.DataTree` with ArviZ 1.x."""
    import arviz
    import xarray

    tree = xarray.DataTree.from_dict(dict(datasets))
    # ArviZ 1.x warns of the mere name of InferenceData
    return arviz.InferenceData.from_datatree(tree) if arviz.__version__.startswith("0.") else tree


def concat_data(blocks: Sequence[Arrays]) -> Arrays:
    """Blocks of data, one after the other along the datum dim.

    Example:
        >>> block = {"x": (("datum",), np.zeros(2))}
        >>> concat_data([block, block])["x"][1].shape
        (4,)
    """
    if len(blocks) == 1:
        return blocks[0]
    whole = Arrays()
    for name, (dims, _) in blocks[0].items():
        parts = [block[name][1] for block in blocks]
        if (
            DATUM not in dims
        ):  # one value for all data, such as a deterministic one outside the plate
            whole[name] = dims, parts[0]
            continue
        whole[name] = dims, np.concatenate(parts, axis=dims.index(DATUM))
    return whole


def take_draws(arrays: Arrays, index: np.ndarray[tuple[int, ...], np.dtype[Any]]) -> Arrays:
    """Other draws of each datum: draw $j$ of datum $i$ becomes draw `index[j, i]` of the same datum.

    Args:
        arrays: with the dims chain (of length 1), draw and datum among theirs.
        index: `(K, N)`.

    Example:
        >>> z = {"z": (("chain", "draw", "datum"), np.array([[[1, 2], [3, 4]]]))}
        >>> take_draws(z, np.array([[0, 1], [0, 1]]))["z"][1].tolist()
        [[[1, 4], [1, 4]]]
    """
    datum = np.arange(index.shape[1])
    found = Arrays()
    for name, (dims, values) in arrays.items():
        if DATUM not in dims:
            found[name] = dims, values
            continue
        axes = (dims.index("draw"), dims.index(DATUM))
        draws_first = np.moveaxis(values, axes, (0, 1))
        found[name] = dims, np.moveaxis(draws_first[index, datum], (0, 1), axes)
    return found


def refused_to_loo(arrays: Arrays) -> Arrays:
    r"""$\log p(x \mid z)$ that `az.loo` and `az.waic` refuse, with the reason in the name of a further variable.

    ArviZ refuses several variables and names them; the further one is 0 throughout, so that no sum over sites changes.
    """
    sizes = _sizes(arrays)
    zeros = np.zeros([sizes[dim] for dim in SAMPLE])
    return {**arrays, NOT_FOR_LOO: (SAMPLE, zeros)}


def per_datum_dataset(result: NLL | AIS, index: Sequence[Any] | None = None) -> xarray.Dataset:
    r"""What is known of every datum, for `to_arviz(…, extra={"per_datum": …})`.

    `elbo`, `log_p` (estimate of log p(x)), `log_p_stderr` (its Monte Carlo error, NaN where there is none),
    `kl`, `khat`, `ess`, each `(N,)`; of `ais` those that it has. Of a guide that is a point mass there is
    `log_joint`, log p(x, z*), in place of all of them.

    Args:
        result: of `nll` or `ais`.
        index: names of the data; they count from 0 unless given.
    """
    arrays = Arrays()
    statistics = OF_A_POINT if result.measure == JOINT else STATISTICS
    for name, (sign, field) in statistics.items():
        values = getattr(result, field, None)
        if values is not None:
            arrays[name] = (DATUM,), sign * np.asarray(values)
    num = len(result.per_datum)
    about = {
        "unit": "nats; ess in draws",
        "draws": result.num,
        "kind of -log_p": str(result.kind),
        "measure of p": str(result.measure),
        "kept": f"all {num} data",
    }
    found = dataset(arrays, {DATUM: range(num) if index is None else index}, about)
    for variable, array in found.items():
        array.attrs["units"] = UNITS.get(str(variable), "nats")
    return found


def sbc_dataset(result: SBC) -> xarray.Dataset:
    r"""Ranks of the truth, for `to_arviz(…, extra={"prior_sbc": …})` and `az.plot_ecdf_pit` of ArviZ 1.x.

    `pit` `(chain=1, draw=N, statistic=S)`: $(\mathrm{rank} + v) / (L + 1)$ with $v \sim U(0, 1)$, uniform for an exact
    guide; the rank is `floor(pit * (num_draws + 1))`.

    Args:
        result: of `sbc`.
    """
    arrays: Arrays = {"pit": ((*SAMPLE, "statistic"), np.asarray(result.uniform)[None])}
    about = {"num_draws": result.num_draws, "rank": "floor(pit * (num_draws + 1))"}
    return dataset(arrays, {"statistic": result.names}, about)


def training_dataset(history: History) -> xarray.Dataset:
    """What a training run measured, for `to_arviz(…, extra={"training": …})`: one array over epochs per metric.

    NaN stands where an epoch lacks a metric.

    Args:
        history: of a trainer.
    """
    rows = list(history)
    epochs = [int(row.get("epoch", i)) for i, row in enumerate(rows, 1)]
    arrays = Arrays()
    for name in history.names:
        if name != "epoch":
            values = [row.get(name, np.nan) for row in rows]
            arrays[name] = ("epoch",), np.array(values, dtype=np.float64)
    return dataset(arrays, {"epoch": epochs})
