"""Twelve operations of ArviZ under one name each, in 0.23 and 1.x, where they have other names and signatures.

Nothing here needs torch: `.ci/run` tests the export of numbers under ArviZ 1.x without it.
"""

from __future__ import annotations

import arviz
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import xarray

LEGACY = arviz.__version__.startswith("0.")
mpl.use("agg")


# -- either container ---------------------------------------------------------------------------------
def as_tree(found):
    """What `to_arviz` returns, in ArviZ 0.x an `InferenceData`, as a DataTree."""
    return found if isinstance(found, xarray.DataTree) else found.to_datatree()


def one_chain(array):
    """Values `(K, …)` of an array `(chain, draw, …)`."""
    values = np.asarray(array)
    return values.reshape(-1, *values.shape[2:])


# -- tables -------------------------------------------------------------------------------------------
def summary(found, **options):
    """`az.summary`, as numbers, of a 94 % interval."""
    exact = {"round_to": None if LEGACY else "none"}
    return arviz.summary(found, **exact, **options)


def to_dataframe(found, group):
    """A row for each draw of each number of a group."""
    if LEGACY:
        return found.to_dataframe(groups=[group])
    return as_tree(found)[group].to_dataset().to_dataframe()


def elpd_of(result):
    """The sum of an `ELPDData`."""
    return float(result["elpd_loo"] if LEGACY else result.elpd)


def compare(models):
    """`az.compare`, with the names of 1.x."""
    if LEGACY:
        return arviz.compare(models).rename(columns={"elpd_loo": "elpd"})
    return arviz.compare(models, round_to="none")


def pareto_khat(log_weight):
    """k-hat of log importance weights `(chain, draw, …)`; 0.23 takes weights, 1.x minus them."""
    if LEGACY:
        return arviz.psislw(log_weight.stack(__sample__=("chain", "draw")))[1]
    return (-log_weight).azstats.psislw(dim=["chain", "draw"])[1]


# -- pictures -----------------------------------------------------------------------------------------
NAMES = {  # operation → ArviZ 0.23, ArviZ 1.x
    "forest": ("plot_forest", "plot_forest"),
    "trace": ("plot_trace", "plot_trace_dist"),
    "pair": ("plot_pair", "plot_pair"),
    "ppc": ("plot_ppc", "plot_ppc_dist"),
    "rootogram": ("plot_ppc", "plot_ppc_rootogram"),  # 0.23 has bars of counts, and no rootogram
    "khat": ("plot_khat", "plot_khat"),
    "compare": ("plot_compare", "plot_compare"),
}


def plot(operation, found, **options):
    """The figure that an operation draws."""
    plt.close("all")
    name = NAMES[operation][0 if LEGACY else 1]
    if name == "plot_ppc":
        options = {"random_seed": 0, "num_pp_samples": 20, **options}
    getattr(arviz, name)(found, backend="matplotlib", **options)
    return plt.gcf()


def num_drawn(figure):
    """How many lines, bars, areas and clouds of points a figure has."""
    return sum(len(a.lines) + len(a.patches) + len(a.collections) for a in figure.axes)


def counts_drawn(figure):
    """Value → how often it was seen, as the rootogram shows it: 1.x numbers as points, 0.23 shares as steps."""
    (axis,) = figure.axes
    if not LEGACY:
        return {round(x): y for x, y in axis.collections[-1].get_offsets() if y > 0}
    (line,) = [line for line in axis.lines if line.get_label() == "Observed"]
    left, height = np.asarray(line.get_xdata())[:-1], np.asarray(line.get_ydata())[1:]
    return {round(x): share for x, share in zip(left, height, strict=True) if share > 0}


# -- files --------------------------------------------------------------------------------------------
def through_netcdf(found, folder):
    """Written and read by ArviZ itself."""
    path = str(folder / "posterior.nc")
    found.to_netcdf(path, engine="h5netcdf")
    return arviz.from_netcdf(path, engine="h5netcdf")


def through_zarr(found, folder):
    """Written and read as zarr by ArviZ 1.x, and by xarray where ArviZ 0.x knows no zarr 3."""
    found.to_zarr(folder / "posterior.zarr", zarr_format=2, consolidated=True)
    tree = xarray.open_datatree(folder / "posterior.zarr", engine="zarr").load()
    return arviz.InferenceData.from_datatree(tree) if LEGACY else tree
