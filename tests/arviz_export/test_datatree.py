"""The torch-free adapter, with the other tests and, in ArviZ 1.x, by itself.

`.ci/run` runs this file and `test_elpd.py` in an environment without torch, so the module is loaded by its path.
"""

import importlib.util
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import arviz
import numpy as np
import pytest
import xarray
from arviz_operations import LEGACY, as_tree

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location(
    "datatree", ROOT / "pyro_dgm" / "arviz_export" / "datatree.py"
)
datatree = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(datatree)
DRAWS = ("chain", "draw", "datum")


def tree():
    """What `to_arviz` makes of 4 data of 3 dims with 2 latent ones, 50 draws each."""
    random = np.random.default_rng(0)
    z, x, p = (
        random.normal(size=(1, 50, 4, 2)),
        random.normal(size=(1, 50, 4, 3)),
        random.normal(size=(1, 50, 4)),
    )
    result = SimpleNamespace(
        num=50,
        kind="upper bound in expectation",
        measure="density",
        nelbo=p[0, 0],
        per_datum=p[0, 1],
    )
    result.__dict__.update(
        monte_carlo=p[0, 2], kl=p[0, 3], khat=np.array([0.1, -np.inf, np.inf, 2.0]), ess=p[0, 4]
    )
    ranks = SimpleNamespace(
        uniform=random.uniform(size=(500, 3)), names=("z[0]", "log p(x, z)", "|z|"), num_draws=9
    )
    arrays = {
        "posterior": {"z": ((*DRAWS, "z_dim_0"), z)},
        "posterior_predictive": {"x": ((*DRAWS, "x_dim_0"), x)},
        "log_likelihood": datatree.refused_to_loo(1, 50),
        datatree.CONDITIONAL: {"x": (DRAWS, p)},
        "sample_stats": {"lp": (DRAWS, p), "log_weight": (DRAWS, p)},
        "prior": {"z": ((*DRAWS, "z_dim_0"), z[:, ::-1])},
        "prior_predictive": {"x": ((*DRAWS, "x_dim_0"), x[:, ::-1])},
        "observed_data": {"x": (("datum", "x_dim_0"), x[0, 0])},
        "constant_data": {"label": (("datum",), np.arange(4))},
    }
    coords = {"datum": [0, 3, 6, 9]}
    datasets = {
        name: datatree.dataset(a, coords, {"kept": "4 of 10 data"}) for name, a in arrays.items()
    }
    datasets["per_datum"] = datatree.per_datum_dataset(result)
    datasets["prior_sbc"] = datatree.sbc_dataset(ranks)
    datasets["training"] = datatree.training_dataset(
        history([{"epoch": 2, "loss": 3.5}, {"epoch": 4, "val": 3.0}])
    )
    return datatree.container(datasets)


def history(rows):
    """A history as the trainer's: rows and the names of their columns."""

    class Rows(list):
        names = list(dict.fromkeys(name for row in rows for name in row))

    return Rows(rows)


def assert_same(found, again):
    assert set(found.children) == set(again.children)
    for name, group in found.children.items():
        xarray.testing.assert_equal(group.to_dataset(), again[name].to_dataset())
        assert {k: str(v) for k, v in group.attrs.items()} == {
            k: str(v) for k, v in again[name].attrs.items()
        }


def test_the_adapter_imports_neither_torch_nor_pyro():
    lines = Path(datatree.__file__).read_text().splitlines()
    found = {line.split()[1] for line in lines if line.startswith(("import ", "from "))}
    assert found <= {"__future__", "collections.abc", "typing", "numpy"}
    code = "import runpy, sys; runpy.run_path(sys.argv[1]); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, datatree.__file__]).returncode == 0


def test_the_container_is_that_of_the_installed_arviz():
    assert type(tree()).__name__ == ("InferenceData" if LEGACY else "DataTree")


def test_draws_count_from_zero_and_data_are_named():
    found = tree()
    assert found["posterior"]["z"].dims == (*DRAWS, "z_dim_0")
    assert found["posterior"]["datum"].values.tolist() == [0, 3, 6, 9]
    assert found["posterior"]["draw"].values.tolist() == list(range(50))
    assert found["per_datum"]["datum"].values.tolist() == [0, 1, 2, 3]
    assert found["posterior"].attrs["kept"] == "4 of 10 data"


def test_coordinates_of_dims_that_a_group_lacks_are_left_out():
    found = datatree.dataset({"z": (("chain", "draw"), np.zeros((1, 2)))}, {"datum": range(3)})
    assert list(found.coords) == ["chain", "draw"]


def test_a_netcdf_file_round_trips(tmp_path):
    found = as_tree(tree())
    found.to_netcdf(tmp_path / "posterior.nc", engine="h5netcdf")
    assert_same(found, xarray.open_datatree(tmp_path / "posterior.nc", engine="h5netcdf"))


def test_a_zarr_store_round_trips(tmp_path):
    found = as_tree(tree())
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # zarr 3: names as strings of one length are no part of its specification
        found.to_zarr(tmp_path / "posterior.zarr")
        assert_same(found, xarray.open_datatree(tmp_path / "posterior.zarr", engine="zarr").load())


def test_arviz_summarizes_it():
    table = arviz.summary(
        tree(), **({"kind": "stats"} if LEGACY else {"kind": "stats", "round_to": "none"})
    )
    assert len(table) == 4 * 2
    mean = tree()["posterior"]["z"].values[0].mean(0).ravel()
    np.testing.assert_allclose(np.asarray(table["mean"], dtype=float), mean, atol=0.006)


def test_loo_refuses_with_the_reason():
    for refused in ["loo"] + ["waic"] * LEGACY:
        with pytest.raises(TypeError, match="LOO has nothing to leave out.*dgm.compare_elpd"):
            getattr(arviz, refused)(tree())


def test_draws_are_cut_into_chains_of_one_length():
    cut = {num: datatree.num_chains_of(num) for num in (1000, 50, 15, 12, 9, 8, 7, 1)}
    assert cut == {1000: 4, 50: 2, 15: 3, 12: 3, 9: 1, 8: 2, 7: 1, 1: 1}
    values = np.arange(16 * 3).reshape(1, 16, 3)
    arrays = {"z": (DRAWS, values), "x": (("datum",), np.arange(3))}
    found = datatree.cut_into_chains(arrays, 16)
    assert found["z"][1].shape == (4, 4, 3)
    np.testing.assert_array_equal(found["z"][1].reshape(1, 16, 3), values)
    np.testing.assert_array_equal(found["x"][1], np.arange(3))
    again = datatree.as_one_chain(datatree.dataset(found, {"datum": "abc"}))
    np.testing.assert_array_equal(again["z"], values)
    assert again["draw"].values.tolist() == list(range(16))
    assert again["datum"].values.tolist() == list("abc")


@pytest.mark.skipif(LEGACY, reason="ArviZ 0.x has no plot of prior_sbc")
def test_arviz_tests_the_ranks_for_uniformity():
    pit = tree()["prior_sbc"].to_dataset()
    p_values, *_ = pit.azstats.uniformity_test(dim=["chain", "draw"], method="pot_c")
    assert p_values["pit"].sizes == {"statistic": 3}
    assert (p_values["pit"] > 1e-6).all()
    narrow, *_ = (0.5 + 0.7 * (pit - 0.5)).azstats.uniformity_test(
        dim=["chain", "draw"], method="pot_c"
    )
    assert (narrow["pit"] < 1e-6).all()


@pytest.mark.skipif(LEGACY, reason="other names in ArviZ 0.x; test_posterior.py runs them")
def test_arviz_plots_it():
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    mpl.use("agg")
    for plot in (
        arviz.plot_forest,
        arviz.plot_ppc_dist,
        arviz.plot_prior_posterior,
        arviz.plot_ecdf_pit,
    ):
        plot(tree(), backend="matplotlib")
        assert any(axis.has_data() for axis in plt.gcf().axes), plot
        plt.close("all")


def test_statistics_have_the_sign_of_log_p():
    found = tree()["per_datum"]
    z = np.random.default_rng(0)
    z.normal(size=(1, 50, 4, 2)), z.normal(size=(1, 50, 4, 3))
    p = z.normal(size=(1, 50, 4))[0]
    for name, expected in {
        "elbo": -p[0],
        "log_p": -p[1],
        "log_p_stderr": p[2],
        "kl": p[3],
        "ess": p[4],
    }.items():
        np.testing.assert_array_equal(found[name], expected)
    assert found["khat"].values.tolist() == [0.1, -np.inf, np.inf, 2.0]


def test_epochs_without_a_metric_are_nan():
    found = tree()["training"]
    assert found["epoch"].values.tolist() == [2, 4]
    np.testing.assert_array_equal(found["loss"], [3.5, np.nan])
    np.testing.assert_array_equal(found["val"], [np.nan, 3.0])


def test_epochs_count_from_one_where_no_column_names_them():
    found = datatree.training_dataset(history([{"loss": 3.5}, {"loss": 3.0}]))
    assert found["epoch"].values.tolist() == [1, 2]


def test_draws_are_taken_per_datum_whatever_the_place_of_its_dim():
    values = np.arange(1 * 5 * 2 * 3 * 2).reshape(1, 5, 2, 3, 2)
    index = np.array([[4, 0, 1], [4, 4, 1], [0, 2, 1], [3, 3, 3], [2, 1, 0]])
    (dims, found) = datatree.take_draws(
        {"u": (("chain", "draw", "time", "datum", "u_dim_0"), values)}, index
    )["u"]
    assert dims == ("chain", "draw", "time", "datum", "u_dim_0")
    for j in range(5):
        for i in range(3):
            np.testing.assert_array_equal(found[0, j, :, i], values[0, index[j, i], :, i])


def test_blocks_are_joined_along_the_data_wherever_their_dim_is():
    blocks = [{"x": (("time", "datum"), np.full((2, n), n))} for n in (3, 1)]
    np.testing.assert_array_equal(
        datatree.concat_data(blocks)["x"][1], [[3, 3, 3, 1], [3, 3, 3, 1]]
    )
