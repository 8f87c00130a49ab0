"""The InferenceData schema point by point: our export beside those of ArviZ's own converters, of the same model."""

from __future__ import annotations

from datetime import datetime

import arviz
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray
from arviz_operations import LEGACY, as_tree
from pyro.infer import MCMC, NUTS, Predictive

import pyro_dgm as dgm

N, STEPS = 5, 3
NAMES = {"x": ["time", "datum"], "shift": ["time"]}  # the plates, for the converters
OF_GROUP = {"created_at", "inference_library", "inference_library_version"}
OF_GENERATION = {"arviz_version"} if LEGACY else {"creation_library", "creation_library_version"}
CONVERTED = ("posterior", "log_likelihood", "observed_data", "posterior_predictive", "prior")


def model(x):
    r"""$\mu \sim N(0, 1)$ and a shift of each step, $x_{it} \sim \mathrm{Poisson}(e^{\mu + s_t})$ in two plates."""
    steps = pyro.plate("time", STEPS, dim=-2)
    mean = pyro.sample("mean", dist.Normal(torch.zeros(()), 1.0))
    with steps:
        shift = pyro.sample("shift", dist.Normal(torch.zeros(()), 0.3))
    with pyro.plate("data", N, dim=-1), steps:
        pyro.sample("x", dist.Poisson((mean + shift).exp()), obs=x.T)


def guide(x):
    pyro.sample("mean", dist.Normal(x.mean().log(), 0.2))
    with pyro.plate("time", STEPS, dim=-2):
        pyro.sample("shift", dist.Normal(torch.zeros(()), 0.2))


def counts():
    return torch.poisson(torch.full((N, STEPS), 4.0))


def assert_every_dim_has_coordinates(tree):
    for name, group in tree.children.items():
        assert set(group.dims) <= set(group.coords), name


# -- by itself ----------------------------------------------------------------------------------------
def test_every_group_has_what_the_schema_asks_for():
    found = as_tree(dgm.to_arviz(model, guide, counts(), num=40))
    assert set(found.children) == {
        *("posterior", "posterior_predictive", "log_likelihood", "log_prior", "sample_stats"),
        *("prior", "prior_predictive", "observed_data", "per_datum"),
    }
    assert_every_dim_has_coordinates(found)
    for name, group in found.children.items():
        assert set(group.attrs) >= OF_GROUP | OF_GENERATION, name
        assert datetime.fromisoformat(group.attrs["created_at"]).tzinfo is not None
        assert not set(group.data_vars) & set(group.dims), "a variable has the name of a dim"
        for variable, array in group.data_vars.items():
            if "draw" in array.dims:
                assert array.dims[:2] == ("chain", "draw"), f"{name}.{variable}"
                assert array.shape[:2] == (4, 10), f"{name}.{variable}"
    for name, of in (
        ("log_likelihood", "observed_data"),
        ("posterior_predictive", "observed_data"),
        ("log_prior", "posterior"),
        ("prior", "posterior"),
        ("prior_predictive", "observed_data"),
    ):
        assert set(found[name].data_vars) == set(found[of].data_vars)
        if name != "log_prior":
            for variable, array in found[name].data_vars.items():
                assert [d for d in array.dims if d in found[of][variable].dims] == [
                    d for d in found[of][variable].dims if d in array.dims
                ]
    assert found["log_likelihood"]["x"].dims == ("chain", "draw", "time", "datum")
    assert found["log_prior"]["shift"].dims == ("chain", "draw", "time")


def test_further_groups_have_an_origin_too():
    history = dgm.results.History([{"epoch": 1, "loss": 3.5}])
    extra = {"training": dgm.training.training_dataset(history)}
    found = dgm.to_arviz(model, guide, counts(), num=8, prior=False, extra=extra)
    assert set(found["training"].attrs) >= OF_GROUP
    assert "created_at" not in extra["training"].attrs


def test_log_densities_sum_to_the_joint():
    found = dgm.to_arviz(model, guide, counts(), num=20, prior=False)
    prior, likelihood = found.log_prior, found.log_likelihood["x"]
    lp = prior["mean"] + prior["shift"].sum("time") + likelihood.sum(("time", "datum"))
    np.testing.assert_allclose(lp, found.sample_stats["lp"])


# -- beside ArviZ's converters ----------------------------------------------------------------------------
def assert_alike(ours, theirs):
    """The groups of a converter with their variables, dims, coordinates, kinds of numbers and attributes are ours."""
    assert_every_dim_has_coordinates(theirs)
    for name in CONVERTED:
        mine, other = ours[name], theirs[name]
        required = {
            key for key, value in other.attrs.items() if len(value)
        }  # without sample_dims=[]
        assert set(mine.attrs) >= required, name
        for variable, array in other.data_vars.items():
            dims = tuple(str(dim).replace("data", "datum") for dim in array.dims)
            own = mine[variable]
            assert own.dims == dims, f"{name}.{variable}"
            assert own.shape[2 * ("draw" in dims) :] == array.shape[2 * ("draw" in dims) :]
            for dim in set(dims) - {"chain", "draw"}:
                np.testing.assert_array_equal(own[dim], array[dim if dim in array.dims else "data"])
            is_count = name in ("observed_data", "posterior_predictive") and variable == "x"
            assert own.dtype.kind == ("i" if is_count else array.dtype.kind)


@pytest.mark.skipif(not LEGACY, reason="ArviZ 1.x has no from_pyro")
@pytest.mark.filterwarnings("ignore:.*")
def test_it_is_as_az_from_pyro_writes_it():
    x = counts()
    kernel = NUTS(model, jit_compile=False, max_tree_depth=3)
    mcmc = MCMC(kernel, num_samples=20, warmup_steps=20, disable_progbar=True)
    mcmc.run(x)
    draws = mcmc.get_samples()
    unseen = pyro.poutine.uncondition(model)
    predicted = {"x": Predictive(unseen, draws)(x)["x"]}
    prior = {n: v for n, v in Predictive(unseen, num_samples=20)(x).items() if n != "x"}
    prior["shift"] = prior["shift"][..., 0]
    theirs = arviz.from_pyro(mcmc, posterior_predictive=predicted, prior=prior, dims=NAMES)
    if (
        theirs.posterior["shift"].ndim == 4
    ):  # (chain, draw, time, 1): Pyro keeps the dim of no plate
        theirs.posterior = theirs.posterior.isel(shift_dim_1=0, drop=True)
    assert_alike(as_tree(dgm.to_arviz(model, guide, x, num=20)), as_tree(theirs))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*")
def test_it_is_as_az_from_numpyro_writes_it():
    jax, numpyro = pytest.importorskip("jax"), pytest.importorskip("numpyro")

    def same_model(x):
        steps = numpyro.plate("time", STEPS, dim=-2)
        mean = numpyro.sample("mean", numpyro.distributions.Normal(0.0, 1.0))
        with steps:
            shift = numpyro.sample("shift", numpyro.distributions.Normal(0.0, 0.3))
        with numpyro.plate("data", N, dim=-1), steps:
            rate = jax.numpy.exp(mean + shift)
            numpyro.sample("x", numpyro.distributions.Poisson(rate), obs=None if x is None else x.T)

    x = counts()
    observed = x.numpy().astype(np.int32)
    kernel = numpyro.infer.NUTS(same_model, max_tree_depth=3)
    mcmc = numpyro.infer.MCMC(kernel, num_warmup=20, num_samples=20, progress_bar=False)
    mcmc.run(jax.random.PRNGKey(0), observed)
    draws = mcmc.get_samples()
    predicted = numpyro.infer.Predictive(same_model, draws)(jax.random.PRNGKey(1), None)
    prior = numpyro.infer.Predictive(same_model, num_samples=20)(jax.random.PRNGKey(2), None)
    theirs = arviz.from_numpyro(
        mcmc,
        posterior_predictive={"x": predicted["x"]},
        prior={name: value for name, value in prior.items() if name != "x"},
        **({"log_likelihood": True} if not LEGACY else {}),
        dims={"x": NAMES["x"], "shift": ["time", "one"]},
    )
    theirs = as_tree(theirs)
    for name in ("posterior", "prior"):  # NumPyro keeps the dim of no plate
        group = theirs[name].to_dataset()
        theirs[name] = xarray.DataTree(
            group.squeeze("one", drop=True) if "one" in group.dims else group
        )
    assert_alike(as_tree(dgm.to_arviz(model, guide, x, num=20)), theirs)
