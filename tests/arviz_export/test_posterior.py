import warnings

import arviz
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray
from arviz_operations import LEGACY, as_tree, one_chain
from cases import PAIRS, over
from toys import (
    ExactGuide,
    LinearGaussian,
    Series,
    SeriesGuide,
    linear_gaussian,
    toy_vae,
)

import pyro_dgm as dgm
from pyro_dgm.inference.process.states import fork_rng

SITES = {"posterior", "posterior_predictive", "prior", "prior_predictive", "observed_data"}
CONDITIONAL = "conditional_log_likelihood"
GROUPS = SITES | {"log_likelihood", CONDITIONAL, "log_prior", "sample_stats", "per_datum"}


@pytest.mark.parametrize(**over(PAIRS))
def test_every_pair_is_exported(build):
    case = build()
    batch = case.batch(4)
    found = dgm.to_arviz(case.model, case.guide, *batch, num=3)
    of_latents = {"posterior", "prior", "log_prior", CONDITIONAL}  # none without latent sites
    context = {"constant_data"} if len(batch) > 1 else set()
    assert set(as_tree(found).children) - of_latents == (GROUPS | context) - of_latents
    assert found.observed_data["x"].shape == batch[0].shape
    assert found.observed_data["x"].dims[0] == "datum"
    assert found.posterior_predictive["x"].shape == (1, 3, *batch[0].shape)
    for name in ("lp", "log_q", "log_weight"):
        assert found.sample_stats[name].shape == (1, 3, 4)
    latents = list(dgm.draw(case.model, case.guide, *batch, num=1).values)
    likelihood = found[CONDITIONAL if latents else "log_likelihood"]
    assert likelihood["x"].dims == ("chain", "draw", "datum")
    assert (CONDITIONAL in as_tree(found).children) == bool(latents)
    assert found.prior_predictive["x"].dims == found.posterior_predictive["x"].dims
    assert found.prior_predictive["x"].shape == found.posterior_predictive["x"].shape
    for name in latents:
        assert found.posterior[name].dims[:3] == ("chain", "draw", "datum")
        assert found.prior[name].dims == found.posterior[name].dims
        assert found.prior[name].shape == found.posterior[name].shape


def test_the_values_are_those_of_draw_under_the_seed():
    model, guide, x = linear_gaussian()
    found = dgm.to_arviz(model, guide, x, num=20, seed=3)
    with fork_rng(seed=3), torch.no_grad():
        particles = dgm.draw(model, guide, x, num=20)
    stats = found.sample_stats
    assert found.posterior["z"].shape == (4, 5, 6, 2)
    np.testing.assert_array_equal(one_chain(found.posterior["z"]), particles.values["z"])
    np.testing.assert_array_equal(one_chain(stats["log_weight"]), particles.log_weight)
    np.testing.assert_array_equal(one_chain(stats["lp"]), particles.log_joint)
    np.testing.assert_array_equal(one_chain(stats["log_q"]), particles.log_guide)
    np.testing.assert_array_equal(one_chain(found[CONDITIONAL]["x"]), particles.log_p["x"])
    np.testing.assert_array_equal(one_chain(found.log_prior["z"]), particles.log_p["z"])
    np.testing.assert_array_equal(found.observed_data["x"], x)


def test_the_log_weights_are_the_evidence_under_the_exact_posterior():
    model, guide, x = linear_gaussian()
    found = dgm.to_arviz(model, guide, x, num=5)
    exact = np.broadcast_to(model.log_evidence(x), (1, 5, 6))
    np.testing.assert_allclose(found.sample_stats["log_weight"], exact, rtol=0, atol=1e-5)


def test_predictions_are_draws_of_the_likelihood_at_each_posterior_draw():
    """Predictive mean of 5,000 draws against E[Wz + b | x]."""
    model, guide, x = linear_gaussian()
    export = dgm.to_arviz(model, guide, x, num=5000, chunk=10**6)
    found = torch.as_tensor(one_chain(export.posterior_predictive["x"]))
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
    np.testing.assert_allclose(found[CONDITIONAL]["x"][0], expected)


def test_a_further_plate_gives_its_name_to_a_dim():
    model, guide, x = Series(), SeriesGuide(), torch.randn(5, 3)
    for chunk in (10_000, 8):
        found = dgm.to_arviz(model, guide, x, num=4, chunk=chunk)
        assert found.posterior["u"].dims == ("chain", "draw", "time", "datum")
        assert found.posterior["z"].dims == ("chain", "draw", "datum")
        assert found.posterior_predictive["x"].dims == ("chain", "draw", "time", "datum")
        assert found.observed_data["x"].dims == ("time", "datum")
        np.testing.assert_array_equal(found.observed_data["x"], x.T)


def test_log_densities_are_pointwise_in_a_further_plate():
    """As those of `az.from_pyro`: log p(x_ti | u_ti) and log p(u_ti | z_i), which sum to lp with log p(z_i)."""
    model, x = Series(), torch.randn(5, 3)
    found = dgm.to_arviz(model, SeriesGuide(), x, num=8, prior=False)
    likelihood, prior = found[CONDITIONAL]["x"], found.log_prior
    assert likelihood.dims == ("chain", "draw", "time", "datum")
    assert prior["u"].dims == likelihood.dims
    assert prior["z"].dims == ("chain", "draw", "datum")
    u, z = (torch.as_tensor(found.posterior[name].values) for name in "uz")
    expected = dist.Normal(0.2 + z.unsqueeze(2), 1.0).log_prob(u)
    np.testing.assert_allclose(prior["u"], expected)
    lp = (likelihood + prior["u"]).sum("time") + prior["z"]
    np.testing.assert_allclose(lp, found.sample_stats["lp"])


def test_one_datum_and_one_draw_keep_their_dims():
    found = dgm.to_arviz(Series(), SeriesGuide(), torch.randn(1, 3), num=1)
    assert found.posterior["z"].shape == (1, 1, 1)
    assert found.posterior["u"].shape == (1, 1, 3, 1)


def test_event_dims_and_coordinates_can_be_named():
    model, guide, x = linear_gaussian()
    found = dgm.to_arviz(
        model,
        guide,
        x,
        num=3,
        dims={"z": ["factor"]},
        coords={"factor": ["a", "b"], "datum": list("uvwxyz")},
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
    with pytest.raises(
        ValueError, match=r"expected 1 names for the event dims of site 'z', got dims=\['a', 'b'\]"
    ):
        dgm.to_arviz(model, guide, x, num=3, dims={"z": ["a", "b"]})


def test_dims_of_an_unknown_site_and_coordinates_of_an_unknown_dim_raise():
    model, guide, x = linear_gaussian()
    with pytest.raises(ValueError, match=r"expected dims of sites among .*got \['w'\]"):
        dgm.to_arviz(model, guide, x, num=3, dims={"w": ["a"]})
    with pytest.raises(ValueError, match=r"expected coords of dims among .*got \['w'\]"):
        dgm.to_arviz(model, guide, x, num=3, coords={"w": ["a"]})


def everything(tmp_path=None):
    """All groups of a pair with labels."""
    case = PAIRS["vae_labels"]()
    x, c = case.batch(4)
    history = dgm.results.History(
        [{"epoch": 1, "train_nelbo": 3.5}, {"epoch": 2, "train_nelbo": 3.25, "val_nelbo": 3.75}]
    )
    ranks = dgm.sbc(case.model, case.guide, c, num_data=20, num_draws=9)
    extra = {
        "training": dgm.training.training_dataset(history),
        "prior_sbc": dgm.diagnostics.sbc_dataset(ranks),
    }
    return dgm.to_arviz(
        case.model, case.guide, x, c, num=3, extra=extra, coords={"datum": list("abcd")}
    )


def assert_same(found, again):
    """Two trees hold the same groups, values, coordinates and attributes."""
    assert (
        set(found.children)
        == set(again.children)
        == GROUPS | {"constant_data", "training", "prior_sbc"}
    )
    for name, group in found.children.items():
        xarray.testing.assert_equal(group.to_dataset(), again[name].to_dataset())
        assert {k: str(v) for k, v in group.attrs.items()} == {
            k: str(v) for k, v in again[name].attrs.items()
        }


def test_a_netcdf_file_round_trips(tmp_path):
    found = everything()
    found.to_netcdf(str(tmp_path / "posterior.nc"), engine="h5netcdf")
    again = arviz.from_netcdf(str(tmp_path / "posterior.nc"), engine="h5netcdf")
    assert_same(as_tree(found), as_tree(again))


def test_a_zarr_store_round_trips(tmp_path):
    tree = as_tree(everything())
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # zarr 3: names as strings of one length are no part of its specification
        tree.to_zarr(tmp_path / "posterior.zarr")
        again = xarray.open_datatree(tmp_path / "posterior.zarr", engine="zarr").load()
    assert_same(tree, again)


def test_arviz_reads_it():
    model, guide, x = linear_gaussian()
    found = dgm.to_arviz(model, guide, x, num=400, chunk=10**6)
    table = arviz.summary(found, kind="stats")
    assert len(table) == 6 * 2
    ess = arviz.ess(found)["z"].values
    assert ess.shape == (6, 2)
    assert (ess > 150).all()  # independent draws


@pytest.mark.filterwarnings(
    "ignore:.*alias_mapping:DeprecationWarning"
)  # of ArviZ 0.23 under Matplotlib 3.11
def test_arviz_plots_it():
    found = dgm.to_arviz(*linear_gaussian(), num=50)
    mpl.use("agg")
    if LEGACY:
        for group in ("posterior", "prior"):
            assert arviz.plot_ppc(found, group=group, random_seed=0).has_data()
        assert arviz.plot_forest(found, var_names="z")[0].has_data()
    else:
        for plot in (arviz.plot_ppc_dist, arviz.plot_prior_posterior, arviz.plot_forest):
            plot(found, backend="matplotlib")
            assert any(axis.has_data() for axis in plt.gcf().axes), plot
    plt.close("all")


def test_arviz_finds_the_posterior_mean():
    model, guide, x = linear_gaussian()
    table = arviz.summary(
        dgm.to_arviz(model, guide, x, num=5000, chunk=10**6), kind="stats", round_to=8
    )
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


def test_the_groups_say_where_their_draws_come_from():
    posterior = dgm.to_arviz(*linear_gaussian(), num=3)
    assert "from the guide q(z | x), unweighted" in posterior.posterior.attrs["draws"]
    assert posterior.sample_stats.attrs["units"] == "nats"


class Shifted(dgm.Program):
    r"""$z_i \sim N(c_i, s^2)$ with s = 0.01, $x_i \sim N(z_i, s^2)$: each datum shows its own context."""

    def forward(self, x=None, shift=None):
        with dgm.data_plate(x, shift):
            z = pyro.sample("z", dist.Normal(shift, 0.01))
            return pyro.sample("x", dist.Normal(z, 0.01), obs=x)


class ShiftedGuide(dgm.Program):
    def forward(self, x=None, shift=None):
        with dgm.data_plate(x, shift):
            pyro.sample("z", dist.Normal((x + shift) / 2, 0.01 / 2**0.5))


def test_prior_draws_are_those_of_the_model():
    """Means and covariances of z ~ N(0, I) and x ~ N(b, W W^T + s^2 I) for each of 6 data, 5,000 draws."""
    model, guide, x = linear_gaussian()
    found = dgm.to_arviz(model, guide, x, num=5000)
    weight, bias = model.weight.detach(), model.bias.detach()
    exact = {
        "prior": ("z", 0 * bias[:2], torch.eye(2)),
        "prior_predictive": ("x", bias, weight @ weight.T),
    }
    exact["prior_predictive"][2].diagonal().add_(model.scale**2)
    for group, (name, mean, covariance) in exact.items():
        draws = torch.as_tensor(one_chain(found[group][name])).movedim(1, 0)  # (N, K, D)
        variance = covariance.diagonal()
        assert ((draws.mean(1) - mean).abs() < 5 * (variance / 5000) ** 0.5).all()
        error = ((variance[:, None] * variance + covariance**2) / 5000) ** 0.5
        assert ((torch.stack([d.T.cov() for d in draws]) - covariance).abs() < 5 * error).all()
    assert len(np.unique(found.prior["z"])) == 6 * 5000 * 2


def test_prior_draws_of_a_datum_are_those_of_its_context():
    c = torch.arange(7.0)
    for chunk in (10_000, 4):
        found = dgm.to_arviz(Shifted(), ShiftedGuide(), c + 0.01, c, num=3, chunk=chunk)
        np.testing.assert_allclose(found.prior["z"][0], c.expand(3, 7), atol=0.06)
        np.testing.assert_allclose(found.prior_predictive["x"][0], c.expand(3, 7), atol=0.09)
        np.testing.assert_array_equal(found.constant_data["shift"], c)
        assert found.constant_data["shift"].dims == ("datum",)


def test_prior_draws_of_a_further_plate_belong_together():
    """Var z = 1, Cov(z, u_t) = 1, Cov(u_s, u_t) = 1 + [s = t], each x_t within 0.5 of its u_t; 4,000 draws."""
    model = Series()
    found = dgm.to_arviz(model, SeriesGuide(), torch.randn(2, 3), num=4000)
    z, u, x = (
        torch.as_tensor(one_chain(found[g][n]))
        for g, n in (("prior", "z"), ("prior", "u"), ("prior_predictive", "x"))
    )
    exact = torch.ones(4, 4) + torch.diag(torch.tensor([0.0, 1.0, 1.0, 1.0]))
    for i in range(2):
        joint = torch.cat([z[:, None, i], u[:, :, i]], 1)
        variance = exact.diagonal()
        error = ((variance[:, None] * variance + exact**2) / 4000) ** 0.5
        assert ((joint.T.cov() - exact).abs() < 5 * error).all()
    assert abs((x - u).std() - 0.5) < 5 * 0.5 / (2 * x.numel()) ** 0.5


def test_the_prior_can_be_left_out():
    found = dgm.to_arviz(*linear_gaussian(), num=3, prior=False)
    assert set(as_tree(found).children) == GROUPS - {"prior", "prior_predictive"}


def test_further_arguments_without_a_name_are_contexts_and_dims_can_be_named():
    case = PAIRS["vae_labels"]()
    x, c = case.batch(4)
    found = dgm.to_arviz(case.model, case.guide, x, c, num=2, dims={"context_0": ["label"]})
    assert found.constant_data["context_0"].dims == ("datum", "label")
    np.testing.assert_array_equal(found.constant_data["context_0"], c)


def test_a_program_inside_a_handler_is_exported():
    c = torch.arange(3.0)
    found = dgm.to_arviz(pyro.poutine.condition(Shifted(), data={}), ShiftedGuide(), c, c, num=2)
    np.testing.assert_array_equal(found.constant_data["context_0"], c)


def test_draws_are_kept_of_at_most_200_data_and_statistics_of_all():
    model = LinearGaussian()
    x = model.data(451)
    found = dgm.to_arviz(model, ExactGuide(model), x, num=2)
    kept = found.posterior["datum"].values.copy()
    assert len(kept) == 200
    assert (kept[0], kept[-1]) == (0, 450)
    assert set(np.diff(kept)) == {2, 3}
    np.testing.assert_array_equal(found.observed_data["x"], x[kept])
    np.testing.assert_allclose(
        found.sample_stats["log_weight"][0, 0], model.log_evidence(x)[kept], rtol=1e-8
    )
    np.testing.assert_array_equal(found.per_datum["datum"], np.arange(451))
    np.testing.assert_allclose(found.per_datum["log_p"], model.log_evidence(x), rtol=1e-8)
    for group in GROUPS - {"per_datum"}:
        assert found[group].attrs["kept"] == "200 of 451 data, evenly spread"
    assert found.per_datum.attrs["kept"] == "all 451 data"


def test_draws_of_all_data_are_kept_when_asked():
    model = LinearGaussian()
    found = dgm.to_arviz(model, ExactGuide(model), model.data(203), num=2, max_data=203)
    assert found.posterior.sizes["datum"] == 203
    assert found.posterior.attrs["kept"] == "all 203 data"


def test_the_statistics_of_each_datum_have_their_closed_forms():
    """log p(x), ELBO = log p(x) - KL(q | p(z | x)) and KL(q | p(z)) of a guide that is moved and too wide."""
    model = LinearGaussian()
    guide, x, num = ExactGuide(model, shift=0.2, spread=1.2), model.data(6), 20_000
    with torch.no_grad():
        found = dgm.to_arviz(model, guide, x, num=num, max_data=1, prior=False).per_datum
        particles = dgm.draw(model, guide, x, num=2000)
    log_p, log_p_error, elbo, kl = (
        torch.tensor(found[n].values) for n in ("log_p", "log_p_stderr", "elbo", "kl")
    )
    mean = ((x - guide.bias) @ guide.map.T).detach()
    q = dist.MultivariateNormal(mean + 0.2, scale_tril=guide.root)
    posterior = dist.MultivariateNormal(mean, scale_tril=guide.root / 1.2)
    divergence, evidence = torch.distributions.kl_divergence, model.log_evidence(x)
    exact_elbo = evidence - divergence(q, posterior)
    exact_kl = divergence(q, dist.MultivariateNormal(torch.zeros(2), torch.eye(2)))
    assert ((log_p - evidence).abs() < 5 * log_p_error).all()
    assert ((elbo - exact_elbo).abs() < 5 * particles.log_weight.std(0) / num**0.5).all()
    assert ((kl - exact_kl).abs() < 5 * particles.kl.std(0) / num**0.5).all()
    assert (found["ess"] < num).all()
    assert (found["khat"] < 0.5).all()
    assert found.attrs["draws"] == num


def test_statistics_that_are_there_are_not_computed_again():
    model, guide, x = linear_gaussian()
    result = dgm.nll(model, ExactGuide(model, shift=1.0), x, num=7)
    found = dgm.to_arviz(
        model,
        guide,
        x,
        num=3,
        extra={"per_datum": dgm.diagnostics.per_datum_dataset(result, list("uvwxyz"))},
    )
    np.testing.assert_array_equal(found.per_datum["log_p"], -result.per_datum)
    assert found.per_datum.attrs["draws"] == 7
    assert list(found.per_datum["datum"].values) == list("uvwxyz")


def test_ranks_and_training_are_further_groups():
    found = everything()
    assert found.training["train_nelbo"].values.tolist() == [3.5, 3.25]
    assert np.isnan(found.training["val_nelbo"].values[0])
    assert list(found.prior_sbc["statistic"].values)[-2:] == ["log p(x, z)", "|z|"]
    assert found.prior_sbc["pit"].shape[:2] == (1, 20)


def test_the_pit_holds_the_ranks():
    model = LinearGaussian()
    result = dgm.sbc(model, ExactGuide(model), num_data=300, num_draws=9)
    found = dgm.diagnostics.sbc_dataset(result)
    np.testing.assert_array_equal(
        np.floor(found["pit"][0] * (found.attrs["num_draws"] + 1)), result.ranks
    )


def test_resampled_draws_keep_their_statistics():
    """Every group is resampled by the same draws: lp, log q and log p(x | z) are those of the z beside them."""
    model = LinearGaussian()
    guide, x = ExactGuide(model, shift=0.3, spread=1.3), model.data(5)
    found = dgm.to_arviz(model, guide, x, num=200, resampled=True)
    z = torch.as_tensor(one_chain(found.posterior["z"]))
    with torch.no_grad():
        log_x = dist.Normal(z @ model.weight.T + model.bias, model.scale).to_event(1).log_prob(x)
        log_z = dist.Normal(torch.zeros(2), 1.0).to_event(1).log_prob(z)
        law = dist.MultivariateNormal(
            (x - guide.bias) @ guide.map.T + guide.shift, scale_tril=guide.root
        )
    np.testing.assert_allclose(one_chain(found[CONDITIONAL]["x"]), log_x)
    np.testing.assert_allclose(one_chain(found.log_prior["z"]), log_z)
    np.testing.assert_allclose(one_chain(found.sample_stats["lp"]), log_x + log_z)
    np.testing.assert_allclose(one_chain(found.sample_stats["log_q"]), law.log_prob(z).detach())
    residual = (
        one_chain(found.posterior_predictive["x"])
        - (z @ model.weight.T + model.bias).detach().numpy()
    )
    assert abs(residual.std() - 0.7) < 0.15
    assert len(np.unique(z[:, 0])) < 2 * 200  # with replacement
    assert "not to be weighted again" in found.posterior.attrs["draws"]


def test_resampling_moves_the_draws_from_the_guide_to_the_posterior():
    model = LinearGaussian()
    guide, exact, x, num = (
        ExactGuide(model, shift=0.3, spread=1.3),
        ExactGuide(model),
        model.data(6),
        20_000,
    )
    raw, found = (
        dgm.to_arviz(model, guide, x, num=num, resampled=r, prior=False) for r in (False, True)
    )
    mean = ((x - exact.bias) @ exact.map.T).detach().numpy()
    draws, guide_draws = found.posterior["z"], raw.posterior["z"]
    error = draws.std(("chain", "draw")) * (1 / num + 1 / found.per_datum["ess"]) ** 0.5
    assert (np.abs(guide_draws.mean(("chain", "draw")) - mean) > 20 * error).all()
    assert (np.abs(draws.mean(("chain", "draw")) - mean) < 5 * error).all()


def test_names_that_are_taken_or_missing_raise():
    model, guide, x = linear_gaussian()
    with pytest.raises(
        ValueError, match=r"expected extra groups of names other than .*got \['posterior'\]"
    ):
        dgm.to_arviz(
            model,
            guide,
            x,
            num=3,
            extra={"posterior": dgm.training.training_dataset(dgm.results.History([{"epoch": 1}]))},
        )
    with pytest.raises(
        ValueError,
        match=r"expected coords\['datum'\] with a name for each of all 6 data, got 2. Fix",
    ):
        dgm.to_arviz(model, guide, x, num=3, coords={"datum": ["a", "b"]})
    with pytest.raises(ValueError, match="max_data: expected at least 1, got 0"):
        dgm.to_arviz(model, guide, x, num=3, max_data=0)


@pytest.mark.filterwarnings("ignore:The (inplace|copy) keyword:DeprecationWarning")
def test_every_dim_has_coordinates_and_every_group_its_origin():
    """What `az.from_pyro` fills in: without coordinates `InferenceData.to_dataframe` fails."""
    vae = dgm.VAE(
        dgm.StandardNormal(2),
        dgm.DiscretizedLogistic(dgm.mlp(2, 6), levels=17),
        dgm.Conditional(dist.Normal, dgm.mlp(3, 4)),
    )
    x = torch.randint(0, 17, (20, 3)).double()
    found = dgm.to_arviz(vae.model, vae.guide, x, num=10, dims={"z": ["latent"]})
    assert set(found.posterior.coords) == {"chain", "draw", "datum", "latent"}
    origin = {"created_at", "arviz_version", "inference_library", "inference_library_version"}
    for name in as_tree(found).children:
        assert origin <= set(found[name].attrs), name
    for group in (CONDITIONAL, "log_prior", "sample_stats"):
        assert {array.attrs["units"] for array in found[group].values()} == {"nats"}
    units = {name: array.attrs["units"] for name, array in found.per_datum.items()}
    assert units.pop("khat") == "1"
    assert units.pop("ess") == "draws"
    assert set(units.values()) == {"nats"}


@pytest.mark.skipif(not LEGACY, reason="a DataTree has no table of all groups")
@pytest.mark.filterwarnings("ignore:The (inplace|copy) keyword:DeprecationWarning")
def test_the_table_of_all_groups_has_a_row_per_draw():
    """Of the groups that have draws: ArviZ 0.x fails on any other, as `per_datum` and `training` are."""
    found = everything()
    table = found.to_dataframe()
    assert len(table) == 20  # draws of the ranks; all others have 3
    groups = {column[0] for column in table.columns if isinstance(column, tuple)}
    assert groups == {
        *("posterior", "posterior_predictive", "log_likelihood", CONDITIONAL, "log_prior"),
        *("sample_stats", "prior", "prior_predictive", "prior_sbc"),
    }
    assert len(found.to_dataframe(groups=["posterior", "sample_stats"])) == 3
    assert len(found.to_dataframe("posterior", var_names="z")) == 3


def test_values_of_discrete_sites_are_integers():
    vae = dgm.VAE(
        dgm.StandardNormal(2),
        dgm.DiscretizedLogistic(dgm.mlp(2, 6), levels=17),
        dgm.Conditional(dist.Normal, dgm.mlp(3, 4)),
    )
    x = torch.randint(0, 17, (5, 3)).double()
    found = dgm.to_arviz(vae.model, vae.guide, x, num=4, prior=True)
    assert found.observed_data["x"].dtype == np.int64
    assert found.posterior_predictive["x"].dtype == np.int64
    assert found.prior_predictive["x"].dtype == np.int64
    assert found.posterior["z"].dtype == np.float64
    assert (found.observed_data["x"].values == x.numpy()).all()


def test_loo_of_a_model_with_globals_is_of_all_data():
    """More data than are kept of a model with local latents, and no word of `max_data`."""

    def model(x):
        mean = pyro.sample("mean", dist.Normal(0.0, 5.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mean, 1.0), obs=x)

    def guide(x):
        precision = len(x) + 1 / 25
        pyro.sample("mean", dist.Normal(x.sum() / precision, precision**-0.5))

    x = torch.randn(250)
    found = dgm.to_arviz(model, guide, x, num=200)
    assert found.posterior.sizes == {"chain": 4, "draw": 50}
    assert arviz.loo(found).n_data_points == 250
