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
NUM_CHAINS = (4, 3, 2)  # into which independent draws are cut, the first that divides their number
LEAST_PER_CHAIN = 4  # draws, of which diagnostics of chains can be computed
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
CONDITIONAL = "conditional_log_likelihood"  # log p(x | z) of a z that belongs to one datum
NOT_FOR_LOO = (  # what the group log_likelihood holds in its place: a reason and a way, as names of variables
    "LOO has nothing to leave out, as each datum has a z of its own",
    "compare models by dgm.compare_elpd of dgm.nll on held-out data",
)
REFUSAL = (
    "to_arviz: expected latents that all data share for LOO, got a z_i of each datum, without which its z_i is one of "
    "the prior and 1 / p(x_i | z_i) has no finite variance. "
    "Fix: dgm.compare_elpd({'a': dgm.nll(…), 'b': dgm.nll(…)}) on held-out data; log p(x_i | z_i) is in the group "
    f"{CONDITIONAL}."
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


def refused_to_loo(num_chains: int, num: int) -> Arrays:
    r"""What stands in the place of pointwise log-likelihoods that `az.loo` must not take, with the reason as names.

    ArviZ prints the names where it finds several variables, and finds none by the name of an observed site: in memory,
    from netCDF and from zarr, in 0.x and 1.x.
    """
    nothing = np.full((num_chains, num // num_chains), np.nan)
    return dict.fromkeys(NOT_FOR_LOO, (SAMPLE, nothing))


def num_chains_of(num: int) -> int:
    """Into how many chains of one length independent draws are cut: 4, 3 or 2, the first that divides their number.

    Diagnostics of chains need two of at least four draws; others stay one chain.

    Example:
        >>> [num_chains_of(num) for num in (1000, 50, 9, 7)]
        [4, 2, 1, 1]
    """
    for chains in NUM_CHAINS:
        if num % chains == 0 and num >= chains * LEAST_PER_CHAIN:
            return chains
    return 1


def cut_into_chains(arrays: Arrays, num: int) -> Arrays:
    """Independent draws, one chain of them, as some chains of one length; arrays without draws stay as they are.

    Example:
        >>> z = {"z": (SAMPLE, np.arange(8)[None])}
        >>> cut_into_chains(z, 8)["z"][1].tolist()
        [[0, 1, 2, 3], [4, 5, 6, 7]]
    """
    chains = num_chains_of(num)
    found = Arrays()
    for name, (dims, values) in arrays.items():
        if dims[:2] == SAMPLE:
            values = values.reshape(chains, num // chains, *values.shape[2:])
        found[name] = dims, values
    return found


def as_one_chain(found: xarray.Dataset) -> xarray.Dataset:
    """The chains of a dataset one after the other, as one."""
    import xarray

    arrays = {}
    for name, array in found.items():
        values = array.values
        if array.dims[:2] == SAMPLE:
            values = values.reshape(1, -1, *values.shape[2:])
        arrays[name] = (array.dims, values, array.attrs)
    labels = {name: c for name, c in found.coords.items() if name not in SAMPLE}
    whole = xarray.Dataset(arrays, coords=labels, attrs=found.attrs)
    own = {dim: range(whole.sizes[dim]) for dim in SAMPLE if dim in whole.sizes}
    return whole.assign_coords(own)


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
        "units": "nats; ess in draws",
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
    found = dataset(arrays, {"statistic": result.names}, about)
    found["pit"].attrs["units"] = "1"
    return found


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
