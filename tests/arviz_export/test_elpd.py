"""The comparison by ArviZ, in 0.23 with the other tests and in 1.x by itself: see `test_datatree.py`."""

import importlib.util
from pathlib import Path

import arviz
import numpy as np
import pytest

LEGACY = arviz.__version__.startswith("0.")
ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location(
    "elpd", ROOT / "pyro_dgm" / "arviz_export" / "elpd.py"
)
elpd = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(elpd)


def log_densities(offset=0.0):
    """Three models of 200 data: b predicts some data better than a though worse in sum, c is worse throughout."""
    random = np.random.default_rng(1)
    a = offset + random.normal(size=200)
    return {
        "a": a,
        "b": a - 0.2 + random.normal(size=200),
        "c": a - 3 + 0.1 * random.normal(size=200),
    }


def objects(log_p, khat=0.3):
    pointwise = elpd.pointwise_elpd(log_p)
    return {
        n: elpd.elpd_object(v, pointwise[n], np.full(len(v), khat), 500, 0.63)
        for n, v in log_p.items()
    }


def test_the_comparison_imports_neither_torch_nor_pyro():
    lines = Path(elpd.__file__).read_text().splitlines()
    found = {line.split()[1] for line in lines if line.startswith(("import ", "from "))}
    assert found <= {"__future__", "collections.abc", "typing", "numpy"}


def test_the_table_has_sums_and_paired_errors():
    log_p = log_densities()
    table = elpd.comparison_table(objects(log_p))
    assert list(table.columns) == ["rank", "elpd", "se", "elpd_diff", "dse", "weight", "warning"]
    order = sorted(log_p, key=lambda name: -log_p[name].sum())
    assert list(table.index) == order
    assert list(table["rank"]) == [0, 1, 2]
    for name, row in table.iterrows():
        difference = log_p[name] - log_p[order[0]]
        np.testing.assert_allclose(row["elpd"], log_p[name].sum(), rtol=1e-12)
        np.testing.assert_allclose(row["se"], (200 * log_p[name].var()) ** 0.5, rtol=1e-12)
        np.testing.assert_allclose(row["elpd_diff"], difference.sum(), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(
            row["dse"], (200 * difference.var()) ** 0.5, rtol=1e-9, atol=1e-9
        )


def test_the_weights_are_those_of_the_mixture_that_predicts_best():
    """Against a search over the mixtures of two models in steps of 1e-4."""
    log_p = {name: values for name, values in log_densities().items() if name != "c"}
    table = elpd.comparison_table(objects(log_p))
    w = np.linspace(0, 1, 10_001)[:, None]
    score = np.log(w * np.exp(log_p["a"]) + (1 - w) * np.exp(log_p["b"])).sum(1)
    assert table.loc["a", "weight"] == pytest.approx(w[score.argmax(), 0], abs=2e-3)
    assert table["weight"].sum() == pytest.approx(1)


def test_thousands_of_nats_per_datum_do_not_underflow():
    near, far = (elpd.comparison_table(objects(log_densities(offset))) for offset in (0.0, -3000.0))
    for column in ("elpd_diff", "dse", "weight"):
        np.testing.assert_allclose(far[column], near[column], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(far["elpd"], near["elpd"] - 200 * 3000, rtol=1e-12)


def test_a_large_khat_is_a_warning():
    assert not elpd.comparison_table(objects(log_densities()))["warning"].any()
    assert elpd.comparison_table(objects(log_densities(), khat=0.8))["warning"].all()


def test_the_object_prints():
    text = str(objects(log_densities())["a"])
    assert f"{log_densities()['a'].sum():.2f}" in text


def test_arviz_plots_its_own_table():
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    mpl.use("agg")
    arviz.plot_compare(arviz.compare(objects(log_densities())), backend="matplotlib")
    names = {label.get_text() for axis in plt.gcf().axes for label in axis.get_yticklabels()}
    plt.close("all")
    assert set("abc") <= names
