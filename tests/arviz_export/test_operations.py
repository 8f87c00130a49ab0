"""Twelve operations of ArviZ on an export: of latents that all data share, and of a VAE, in 0.23 and 1.x."""

from __future__ import annotations

from types import SimpleNamespace

import arviz
import arviz_operations as az
import matplotlib.pyplot as plt
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray
from toys import GlobalMean, GlobalMeanGuide, linear_gaussian

import pyro_dgm as dgm

A, B, N, NUM = 2.0, 1.0, 40, 2000
ON_BOTH = pytest.mark.filterwarnings(
    "ignore:.*alias_mapping:DeprecationWarning"
)  # 0.23, Matplotlib
NO_COPY = pytest.mark.filterwarnings("ignore:The (inplace|copy) keyword:DeprecationWarning")  # 0.23
pytestmark = [ON_BOTH, NO_COPY]


# -- counts with one rate: the posterior and leave-one-out densities are known ---------------------------
def counts(x):
    r"""$\lambda \sim \mathrm{Gamma}(a, b)$, $x_i \sim \mathrm{Poisson}(\lambda)$."""
    rate = pyro.sample("rate", dist.Gamma(A, B))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Poisson(rate), obs=x)


def exact_guide(x):
    pyro.sample("rate", dist.Gamma(A + x.sum(), B + len(x)))


def leave_one_out(x):
    """log p(x_i | all others), a negative binomial."""
    shape, rate = A + x.sum() - x, B + len(x) - 1
    return dist.NegativeBinomial(shape, logits=-torch.log(rate * torch.ones(()))).log_prob(x)


def of_globals():
    x = torch.poisson(torch.full((N,), 3.0))
    return SimpleNamespace(x=x, found=dgm.to_arviz(counts, exact_guide, x, num=NUM))


def of_locals():
    """A VAE of grey levels 0 to 7, not trained."""
    vae = dgm.VAE(
        dgm.StandardNormal(2),
        dgm.DiscretizedLogistic(dgm.mlp(2, 6), levels=8),
        dgm.Conditional(dist.Normal, dgm.mlp(3, 4)),
    )
    x = torch.randint(0, 8, (5, 3)).double()
    found = dgm.to_arviz(vae.model, vae.guide, x, num=200, dims={"z": ["latent"], "x": ["pixel"]})
    return SimpleNamespace(x=x, found=found)


@pytest.fixture(params=[of_globals, of_locals], ids=["globals", "locals"])
def export(request):
    yield request.param()
    plt.close("all")


@pytest.fixture
def shared():
    yield of_globals()
    plt.close("all")


@pytest.fixture
def local():
    yield of_locals()
    plt.close("all")


# -- the twelve ---------------------------------------------------------------------------------------
def test_summary_has_every_number_and_a_finite_rhat(export):
    table = az.summary(export.found)
    (values,) = az.as_tree(export.found)["posterior"].data_vars.values()
    assert len(table) == values[0, 0].size
    assert (table["r_hat"] < 1.1).all()
    assert (table["ess_bulk"] > 100).all()


def test_summary_has_the_moments_of_the_exact_posterior(shared):
    row = az.summary(shared.found).iloc[0]
    law = torch.distributions.Gamma(A + shared.x.sum(), B + N)
    assert abs(row["mean"] - law.mean) < 5 * (law.variance / NUM) ** 0.5
    assert row["sd"] == pytest.approx(law.stddev.item(), rel=5 / (2 * NUM) ** 0.5)


@pytest.mark.parametrize("operation", ["forest", "trace", "pair"])
def test_pictures_of_the_posterior(export, operation):
    posterior = export.found.posterior
    options = {"var_names": ["z"], "coords": {"datum": [0]}}
    if "rate" in posterior:
        posterior["log_rate"] = np.log(posterior["rate"])
        options = {"var_names": ["rate", "log_rate"]}
    assert az.num_drawn(az.plot(operation, export.found, **options)) > 0


def test_ppc_draws_bars_of_counts_and_levels(export):
    """ArviZ 0.23 draws steps of integers, and 1.x says which picture is better."""
    assert export.found.posterior_predictive["x"].dtype == np.int64
    assert export.found.observed_data["x"].dtype == np.int64
    if not az.LEGACY:
        with pytest.warns(UserWarning, match="look discrete.*\n.*plot_ppc_rootogram"):
            assert az.num_drawn(az.plot("ppc", export.found)) >= 20
        return
    figure = az.plot("ppc", export.found)
    assert az.num_drawn(figure) >= 20
    lines = [line.get_xdata() for axis in figure.axes for line in axis.lines]
    assert max(len(x) for x in lines) < 60, "a smooth density has hundreds of points"


def test_rootogram(export):
    """Of one pixel where there are some: ArviZ 1.3 counts over a single dim of the data."""
    pixel = {"coords": {"pixel": 0}} if "pixel" in export.found.observed_data.dims else {}
    assert az.num_drawn(az.plot("rootogram", export.found, **pixel)) > 2


def test_the_rootogram_shows_how_often_each_count_was_seen(shared):
    values, numbers = np.unique(shared.x.int().numpy(), return_counts=True)
    drawn = az.counts_drawn(az.plot("rootogram", shared.found))
    unit = N if az.LEGACY else 1
    assert drawn == pytest.approx(dict(zip(values.tolist(), numbers / unit, strict=True)))


def test_loo_of_globals_is_the_exact_leave_one_out_density(shared):
    r"""PSIS of exact draws; $\sum_i \log \hat E[1 / p_i]$ has the error of the mean of $\sum_i w_{ki} / \bar w_i$."""
    exact = leave_one_out(shared.x)
    weight = np.exp(-az.one_chain(shared.found.log_likelihood["x"]))
    error = (weight / weight.mean(0)).sum(1).std() / NUM**0.5
    for options in ({}, {"var_name": "x"}):
        found = arviz.loo(shared.found, pointwise=True, **options)
        assert az.elpd_of(found) == pytest.approx(exact.sum().item(), abs=5 * error)
        each = found["loo_i"] if az.LEGACY else found.elpd_i
        np.testing.assert_allclose(each, exact, atol=0.05)
    assert error < 0.05


def test_compare_prefers_the_better_of_two_models(shared):
    def wide(x):
        rate = pyro.sample("rate", dist.Gamma(A, B))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.NegativeBinomial(1.0, logits=rate.log()), obs=x)

    def guide(x):
        pyro.sample("rate", dist.LogNormal((x.sum() / len(x)).log(), 0.2))

    other = dgm.to_arviz(wide, guide, shared.x, num=NUM, resampled=True)
    table = az.compare({"geometric": other, "Poisson": shared.found})
    assert list(table.index) == ["Poisson", "geometric"]
    assert table.loc["Poisson", "elpd"] == pytest.approx(
        leave_one_out(shared.x).sum().item(), abs=0.3
    )
    assert az.num_drawn(az.plot("compare", arviz.compare({"a": other, "b": shared.found}))) > 0


def test_khat_of_leave_one_out_and_of_the_guide(shared):
    loo = arviz.loo(shared.found, pointwise=True)
    assert (loo.pareto_k < 0.7).all()
    assert az.num_drawn(az.plot("khat", loo)) > 0


def test_khat_of_the_weights_is_that_of_the_export(local):
    weight = local.found.sample_stats["log_weight"]
    np.testing.assert_allclose(az.pareto_khat(weight), local.found.per_datum["khat"], atol=0.06)


def test_to_dataframe_has_a_row_for_each_draw(export):
    for group in ("posterior", "sample_stats", "posterior_predictive", "prior"):
        assert len(az.to_dataframe(export.found, group)) % export.found.posterior["draw"].size == 0
    if az.LEGACY:
        assert (
            len(export.found.to_dataframe())
            == az.one_chain(export.found.sample_stats["lp"]).shape[0]
        )


@pytest.mark.parametrize("way", [az.through_netcdf, az.through_zarr])
def test_files_hold_what_was_exported(export, way, tmp_path):
    found, again = az.as_tree(export.found), az.as_tree(way(export.found, tmp_path))
    read = dgm.results.read_posterior(next(tmp_path.iterdir()))
    assert type(read) is type(export.found)
    for tree in (again, az.as_tree(read)):
        assert set(tree.children) == set(found.children)
        for name, group in found.children.items():
            xarray.testing.assert_equal(group.to_dataset(), tree[name].to_dataset())
            for variable, array in group.data_vars.items():
                assert tree[name][variable].dtype == array.dtype
                assert tree[name][variable].attrs == array.attrs
            assert {k: str(v) for k, v in group.attrs.items()} == {
                k: str(v) for k, v in tree[name].attrs.items()
            }
    assert len(az.summary(read)) == len(az.summary(export.found))


def test_a_name_of_another_kind_is_not_read():
    with pytest.raises(
        ValueError, match=r"expected a name that ends in \.nc or \.zarr, got 'a.csv'"
    ):
        dgm.results.read_posterior("a.csv")


# -- LOO of latents of each datum ---------------------------------------------------------------------
REFUSAL = r"got a z_i of each datum.* Fix: dgm\.compare_elpd\(\{'a': dgm\.nll"


def whole_text(error):
    """The messages of an error and of what caused it, as a traceback shows them."""
    texts = []
    while error is not None:
        texts.append(str(error))
        error = error.__cause__
    return " ".join(texts)


def in_memory(found, folder):
    return found


def read_again(found, folder):
    found.to_netcdf(str(folder / "posterior.nc"), engine="h5netcdf")
    return dgm.results.read_posterior(folder / "posterior.nc")


@pytest.mark.parametrize("way", [in_memory, read_again, az.through_netcdf, az.through_zarr])
@pytest.mark.parametrize("operation", ["loo"] + ["waic"] * az.LEGACY)
def test_loo_of_locals_is_refused_with_what_to_do(local, way, operation, tmp_path):
    """From files that ArviZ reads by itself the names of the variables say so, and no log-likelihood has the site's."""
    found = way(local.found, tmp_path)
    with pytest.raises(TypeError, match="LOO has nothing to leave out, as each datum") as error:
        getattr(arviz, operation)(found)
    assert "compare models by dgm.compare_elpd of dgm.nll on held-out data" in str(error.value)
    words = REFUSAL if way in (in_memory, read_again) else "No log likelihood data named x found"
    with pytest.raises(TypeError, match=words):
        getattr(arviz, operation)(found, var_name="x")
    with pytest.raises(TypeError) as refused:
        arviz.compare({"a": found, "b": found})
    assert "dgm.compare_elpd" in whole_text(refused.value)


def test_the_reason_is_true(local):
    """One who insists takes 1 / E[1 / p(x | z)], of weights without a variance."""
    found = dgm.to_arviz(*linear_gaussian(), num=4000, chunk=10**6)
    insisted = xarray.DataTree.from_dict(
        {
            "posterior": found.posterior.to_dataset() if not az.LEGACY else found.posterior,
            "log_likelihood": as_dataset(found["conditional_log_likelihood"]),
        }
    )
    if az.LEGACY:
        insisted = arviz.InferenceData.from_datatree(insisted)
    with pytest.warns(UserWarning, match="shape parameter of Pareto distribution is greater"):
        assert (arviz.loo(insisted, pointwise=True).pareto_k > 0.7).any()


def as_dataset(group):
    return group if az.LEGACY else group.to_dataset()


def test_a_latent_of_a_datum_beside_globals_is_refused_too():
    found = dgm.to_arviz(GlobalMean(), GlobalMeanGuide(), torch.randn(6), num=20, prior=False)
    for options in ({}, {"var_name": "x"}):
        with pytest.raises(TypeError, match="compare_elpd"):
            arviz.loo(found, **options)
    assert "dgm.compare_elpd" in found.log_likelihood.attrs["loo"]
