import arviz
import numpy as np
import pytest
import torch
from cases import PAIRS, over
from toys import GlobalMean, GlobalMeanGuide, Series, SeriesGuide, linear_gaussian, toy_vae

import pyro_dgm as dgm
from pyro_dgm.inference.traces import isolated
from pyro_dgm.posterior import datatree

GROUPS = {"posterior", "posterior_predictive", "log_likelihood", "sample_stats", "observed_data"}


@pytest.mark.parametrize(**over(PAIRS))
def test_every_pair_is_exported(build):
    case = build()
    batch = case.batch(4)
    found = dgm.to_arviz(case.model, case.guide, *batch, num=3)
    assert set(found.groups()) - {"posterior"} == GROUPS - {"posterior"}
    assert found.observed_data["x"].shape == batch[0].shape
    assert found.observed_data["x"].dims[0] == "datum"
    assert found.posterior_predictive["x"].shape == (1, 3, *batch[0].shape)
    assert found.log_likelihood["x"].dims == ("chain", "draw", "datum")
    for name in ("lp", "log_q", "log_weight"):
        assert found.sample_stats[name].shape == (1, 3, 4)
    for name in dgm.draw(case.model, case.guide, *batch, num=1).values:
        assert found.posterior[name].dims[:3] == ("chain", "draw", "datum")


def test_the_values_are_those_of_draw_under_the_seed():
    model, guide, x = linear_gaussian()
    found = dgm.to_arviz(model, guide, x, num=5, seed=3)
    with isolated(seed=3), torch.no_grad():
        particles = dgm.draw(model, guide, x, num=5)
    np.testing.assert_array_equal(found.posterior["z"][0], particles.values["z"])
    np.testing.assert_array_equal(found.sample_stats["log_weight"][0], particles.log_weight)
    np.testing.assert_array_equal(found.sample_stats["lp"][0], particles.log_joint)
    np.testing.assert_array_equal(found.sample_stats["log_q"][0], particles.log_guide)
    np.testing.assert_array_equal(found.log_likelihood["x"][0], particles.log_p["x"])
    np.testing.assert_array_equal(found.observed_data["x"], x)


def test_the_log_weights_are_the_evidence_under_the_exact_posterior():
    model, guide, x = linear_gaussian()
    found = dgm.to_arviz(model, guide, x, num=5)
    exact = np.broadcast_to(model.log_evidence(x), (1, 5, 6))
    np.testing.assert_allclose(found.sample_stats["log_weight"], exact, rtol=0, atol=1e-5)


def test_predictions_are_draws_of_the_likelihood_at_each_posterior_draw():
    """Predictive mean of 5,000 draws against E[Wz + b | x]."""
    model, guide, x = linear_gaussian()
    found = torch.as_tensor(dgm.to_arviz(model, guide, x, num=5000, chunk=10**6).posterior_predictive["x"].values[0])
    exact = (((x - guide.bias) @ guide.map.T) @ model.weight.T + model.bias).detach()
    assert ((found.mean(0) - exact).abs() < 5 * found.std(0) / 5000**0.5).all()


def test_blocks_of_data_are_joined_in_order():
    model, guide, x = linear_gaussian()
    whole, parts = (dgm.to_arviz(model, guide, x, num=3, chunk=chunk) for chunk in (10_000, 6))
    for group in GROUPS:
        for name, array in whole[group].items():
            assert parts[group][name].shape == array.shape
            assert parts[group][name].dims == array.dims
    np.testing.assert_array_equal(parts.observed_data["x"], whole.observed_data["x"])
    np.testing.assert_allclose(
        parts.sample_stats["log_weight"], whole.sample_stats["log_weight"], rtol=1e-5
    )  # exact guide
    assert parts.posterior.sizes["datum"] == 6
    assert len(np.unique(parts.posterior["z"])) == 3 * 6 * 2


def test_blocks_keep_the_context_with_its_datum():
    case = PAIRS["vae_labels"]()
    x, c = case.batch(5)
    found = dgm.to_arviz(case.model, case.guide, x, c, num=2, chunk=4)
    z = torch.as_tensor(found.posterior["z"].values[0])
    with torch.no_grad():
        expected = case.model.likelihood(z, c.expand(2, 5, 3)).log_prob(x)
    np.testing.assert_allclose(found.log_likelihood["x"][0], expected)


def test_a_further_plate_gives_its_name_to_a_dim():
    model, guide, x = Series(), SeriesGuide(), torch.randn(5, 3)
    for chunk in (10_000, 8):
        found = dgm.to_arviz(model, guide, x, num=4, chunk=chunk)
        assert found.posterior["u"].dims == ("chain", "draw", "time", "datum")
        assert found.posterior["z"].dims == ("chain", "draw", "datum")
        assert found.posterior_predictive["x"].dims == ("chain", "draw", "time", "datum")
        assert found.observed_data["x"].dims == ("time", "datum")
        assert found.log_likelihood["x"].dims == ("chain", "draw", "datum")
        np.testing.assert_array_equal(found.observed_data["x"], x.T)


def test_one_datum_and_one_draw_keep_their_dims():
    found = dgm.to_arviz(Series(), SeriesGuide(), torch.randn(1, 3), num=1)
    assert found.posterior["z"].shape == (1, 1, 1)
    assert found.posterior["u"].shape == (1, 1, 3, 1)


def test_event_dims_and_coordinates_can_be_named():
    model, guide, x = linear_gaussian()
    found = dgm.to_arviz(
        model, guide, x, num=3, dims={"z": ["factor"]}, coords={"factor": ["a", "b"], "datum": list("uvwxyz")}
    )
    assert found.posterior["z"].dims == ("chain", "draw", "datum", "factor")
    assert list(found.posterior["factor"].values) == ["a", "b"]
    assert list(found.sample_stats["datum"].values) == list("uvwxyz")
    assert found.observed_data["x"].dims == ("datum", "x_dim_0")


def test_data_count_from_zero():
    model, guide, x = linear_gaussian()
    found = dgm.to_arviz(model, guide, x, num=3)
    assert list(found.posterior["datum"].values) == list(range(6))
    assert list(found.posterior["draw"].values) == [0, 1, 2]
    assert list(found.posterior["chain"].values) == [0]


def test_a_wrong_number_of_dims_raises():
    model, guide, x = linear_gaussian()
    with pytest.raises(ValueError, match=r"expected 1 names for the event dims of site 'z', got dims=\['a', 'b'\]"):
        dgm.to_arviz(model, guide, x, num=3, dims={"z": ["a", "b"]})


def test_dims_of_an_unknown_site_and_coordinates_of_an_unknown_dim_raise():
    model, guide, x = linear_gaussian()
    with pytest.raises(ValueError, match=r"expected dims of sites among .*got \['w'\]"):
        dgm.to_arviz(model, guide, x, num=3, dims={"w": ["a"]})
    with pytest.raises(ValueError, match=r"expected coords of dims among .*got \['w'\]"):
        dgm.to_arviz(model, guide, x, num=3, coords={"w": ["a"]})


def test_a_file_round_trips(tmp_path):
    case = PAIRS["two_latents_bare"]()
    found = dgm.to_arviz(case.model, case.guide, *case.batch(4), num=3)
    found.to_netcdf(str(tmp_path / "posterior.nc"))
    again = arviz.from_netcdf(str(tmp_path / "posterior.nc"))
    for group in GROUPS:
        for name, array in found[group].items():
            assert again[group][name].dims == array.dims
            np.testing.assert_array_equal(again[group][name], array)


def test_arviz_reads_it():
    model, guide, x = linear_gaussian()
    found = dgm.to_arviz(model, guide, x, num=400, chunk=10**6)
    table = arviz.summary(found, kind="stats")
    assert len(table) == 6 * 2
    ess = arviz.ess(found)["z"].values
    assert ess.shape == (6, 2)
    assert (ess > 150).all()  # independent draws


def test_arviz_finds_the_posterior_mean():
    model, guide, x = linear_gaussian()
    table = arviz.summary(dgm.to_arviz(model, guide, x, num=5000, chunk=10**6), kind="stats", round_to=8)
    exact = ((x - guide.bias) @ guide.map.T).detach().numpy().reshape(-1)
    assert (np.abs(table["mean"].values - exact) < 5 * table["sd"].values / 5000**0.5).all()


def test_export_leaves_seed_and_modes_alone():
    vae, x = toy_vae(), torch.randn(4, 3)
    before = torch.get_rng_state()
    first = dgm.to_arviz(vae.model, vae.guide, x, num=3)
    again = dgm.to_arviz(vae.model, vae.guide, x, num=3)
    np.testing.assert_array_equal(first.posterior["z"], again.posterior["z"])
    assert torch.equal(torch.get_rng_state(), before)
    assert vae.model.training


def test_bad_data_raise():
    model, guide, x = linear_gaussian()
    with pytest.raises(ValueError, match="expected finite values"):
        dgm.to_arviz(model, guide, x * torch.nan)
    with pytest.raises(ValueError, match="expected at least one datum"):
        dgm.to_arviz(model, guide, x[:0])


def test_a_global_site_raises():
    with pytest.raises(ValueError, match=r"site 'mu': expected a site inside the plate 'data'"):
        dgm.to_arviz(GlobalMean(), GlobalMeanGuide(), torch.randn(4), num=3)


def test_the_tree_knows_nothing_of_torch():
    tree = datatree({"posterior": {"z": (("chain", "draw", "datum"), np.zeros((1, 2, 3)))}}, {"datum": range(3)})
    assert tree["posterior"]["z"].shape == (1, 2, 3)
    assert list(tree["posterior"].coords) == ["chain", "draw", "datum"]


def test_the_groups_say_where_their_draws_come_from():
    posterior = dgm.to_arviz(*linear_gaussian(), num=3)
    assert "from the guide q(z | x), unweighted" in posterior.posterior.attrs["draws"]
    assert posterior.sample_stats.attrs["unit"] == "nats"
