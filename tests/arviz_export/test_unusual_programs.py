"""The export of programs with unusual names and shapes: right values, or a refusal that says what to rename."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from arviz_operations import as_tree
from toys import toy_vae

import pyro_dgm as dgm

N = 5


def exported(name, **options):
    """A latent of that name in a toy pair, exported."""

    def model(x):
        with dgm.data_plate(x):
            pyro.sample(name, dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    def guide(x):
        with dgm.data_plate(x):
            pyro.sample(name, dist.Normal(torch.zeros(2), 1.0).to_event(1))

    return dgm.to_arviz(model, guide, torch.randn(N), num=8, **options)


@pytest.mark.parametrize("name", ["chain", "draw", "datum", "z/a"])
def test_a_site_named_as_a_dim_or_a_path_is_refused(name):
    with pytest.raises(ValueError, match=rf"without '/', got '{name}'\. Fix: pyro\.sample\('my_"):
        exported(name)


def test_a_dim_named_as_its_site_is_refused():
    with pytest.raises(ValueError, match=r"other than those of dims, .* got 'z'\. Fix"):
        exported("z", dims={"z": ["z"]})


@pytest.mark.parametrize("dim", ["chain", "draw", "datum"])
def test_a_dim_that_is_there_twice_is_refused(dim):
    with pytest.raises(ValueError, match=rf"a name of its own for each dim.* than '{dim}'"):
        exported("z", dims={"z": [dim]})


@pytest.mark.parametrize("plate", ["chain", "draw", "datum"])
def test_a_plate_named_as_a_dim_of_draws_is_refused(plate):
    """Of two chains and a plate of two, xarray would take the same dim twice in silence."""

    def model(x):
        with pyro.plate(plate, 2, dim=-2), dgm.data_plate(x):
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x.T)

    with pytest.raises(ValueError, match=rf"a name of its own for each dim.* than '{plate}'"):
        dgm.to_arviz(model, dgm.EmptyGuide(), torch.randn(N, 2), num=8)


@pytest.mark.parametrize("coords", [{"z_dim_0": ["a"]}, {"draw": range(9)}])
def test_coordinates_of_another_length_are_refused(coords):
    (dim,) = coords
    with pytest.raises(ValueError, match=rf"coordinates along '{dim}', as elsewhere, got .* Fix"):
        exported("z", coords=coords)


def test_a_further_argument_may_be_named_as_a_dim_of_draws():
    def model(x, draw):
        with dgm.data_plate(x):
            pyro.sample("x", dist.Normal(draw, 1.0), obs=x)

    x, shift = torch.randn(N), torch.randn(N)
    found = dgm.to_arviz(model, dgm.EmptyGuide(), x, shift, num=8)
    np.testing.assert_array_equal(found.constant_data["draw"], shift)


def test_a_further_group_that_is_no_dataset_is_refused():
    vae = toy_vae()
    with pytest.raises(TypeError, match=r"extra\['a'\] to be an xarray.Dataset, got int\. Fix"):
        dgm.to_arviz(vae.model, vae.guide, torch.randn(4, 3), num=8, extra={"a": 3})


def test_data_without_a_plate_or_an_event_are_refused():
    """One of them, and one prediction, would be exported as all."""

    def model(x):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(mean, 1.0), obs=x)

    def guide(x):
        pyro.sample("mean", dist.Normal(0.0, 1.0))

    for num in (8, 1):
        with pytest.raises(ValueError, match=r"data of shape \(5,\) .* Fix: `with data_plate"):
            dgm.to_arviz(model, guide, torch.randn(N), num=num)


def test_data_of_one_event_without_a_plate_keep_their_values():
    def model(x):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(mean, 1.0).expand(x.shape).to_event(1), obs=x)

    def guide(x):
        pyro.sample("mean", dist.Normal(0.0, 1.0))

    x = torch.randn(N)
    found = dgm.to_arviz(model, guide, x, num=8)
    np.testing.assert_array_equal(found.observed_data["x"], x)
    mean = torch.tensor(found.posterior["mean"].values)[..., None]
    log_p = dist.Normal(mean, 1.0).log_prob(x).sum(-1)
    np.testing.assert_allclose(as_tree(found)["log_likelihood"].to_dataset()["x"], log_p)
