"""The export of pairs whose data share a draw: no datum dim, weights of all data, and LOO where it means something."""

import arviz
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from arviz_operations import LEGACY, as_tree, elpd_of
from pyro.infer.autoguide import AutoMultivariateNormal
from toys import GlobalMean, GlobalMeanGuide

import pyro_dgm as dgm

NUM, N = 120, 30


@pytest.fixture(autouse=True)
def clean_store():
    yield
    pyro.clear_param_store()


def regression(c, y):
    w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    pyro.deterministic("total", w.sum(-1), event_dim=0)
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal((c * w).sum(-1), 0.5), obs=y)


def matrix_regression(c, y):
    """The same, for one draw at a time."""
    w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    pyro.deterministic("total", w.sum())
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(c @ w, 0.5), obs=y)


def posterior_of(c, y):
    """Mean and covariance of w."""
    covariance = (torch.eye(2) + c.T @ c / 0.25).inverse()
    return covariance @ (c.T @ y) / 0.25, covariance


def wide_guide(c, y):
    """The posterior, 1.2 times as wide."""
    mean, covariance = posterior_of(c, y)
    pyro.sample("w", dist.MultivariateNormal(mean, 1.2**2 * covariance))


def data():
    c = torch.randn(N, 2)
    return c, c @ torch.tensor([1.0, -0.5]) + 0.5 * torch.randn(N)


def test_globals_have_no_datum_dim_and_weights_are_of_all_data():
    x, guide = torch.randn(6), GlobalMeanGuide()
    found = dgm.to_arviz(GlobalMean(), guide, x, num=20, max_data=4)
    assert set(as_tree(found).children) == {
        *("posterior", "posterior_predictive", "log_likelihood", "log_prior", "sample_stats"),
        "conditional_log_likelihood",
        *("prior", "prior_predictive", "observed_data", "per_datum"),
    }
    assert found.posterior["mu"].dims == ("chain", "draw")
    assert found.posterior["z"].dims == ("chain", "draw", "datum")
    assert dict(found.posterior.sizes) == {"chain": 4, "draw": 5, "datum": 4}
    assert dict(found.prior.sizes) == dict(found.posterior.sizes)
    kept = found.posterior["datum"].values.copy()
    np.testing.assert_array_equal(found.observed_data["x"], x.numpy()[kept])
    mu = torch.tensor(found.posterior["mu"].values)
    z = torch.tensor(found.posterior["z"].values)
    log_prior = dist.Normal(0.0, 1.0).log_prob(mu)
    np.testing.assert_allclose(found.log_prior["mu"], log_prior)
    np.testing.assert_allclose(found.log_prior["z"], dist.Normal(mu[..., None], 1.0).log_prob(z))
    log_p = dist.Normal(z, 0.5).log_prob(x[torch.tensor(kept)])
    np.testing.assert_allclose(found["conditional_log_likelihood"]["x"], log_p)
    stats = found.sample_stats
    assert stats["log_weight"].dims == ("chain", "draw")
    np.testing.assert_allclose(stats["lp"] - stats["log_q"], stats["log_weight"])
    whole = dgm.to_arviz(GlobalMean(), guide, x, num=20)
    of_data = whole.log_prior["z"] + whole["conditional_log_likelihood"]["x"]
    lp = whole.log_prior["mu"] + of_data.sum("datum")
    np.testing.assert_allclose(whole.sample_stats["lp"], lp)
    evidence = dgm.evidence(GlobalMean(), guide, x, num=20).value
    log_w = torch.tensor(whole.sample_stats["log_weight"].values).flatten()
    assert (log_w.logsumexp(0) - np.log(20)).item() == pytest.approx(evidence)


def test_resampled_draws_are_joint_and_come_from_the_posterior():
    c, y = data()
    mean, covariance = posterior_of(c, y)
    for resampled, width in ((False, 1.2), (True, 1.0)):
        found = dgm.to_arviz(
            regression, wide_guide, c, y, num=4000, resampled=resampled, prior=False
        )
        w = torch.tensor(found.posterior["w"].values).flatten(0, 1)
        deviation = w.std(0) / covariance.diagonal().sqrt()
        assert (deviation / width - 1).abs().max() < 0.08
        assert ((w.mean(0) - mean).abs() < 0.1 * covariance.diagonal().sqrt()).all()
        total = torch.tensor(found.posterior["total"].values).flatten()
        torch.testing.assert_close(total, w.sum(-1))
        density = dist.Normal(w @ c.T, 0.5).log_prob(y)
        log_p = found.log_likelihood["y"].values.reshape(-1, N)
        np.testing.assert_allclose(log_p, density, rtol=1e-5)


def test_loo_of_a_regression_is_its_leave_one_out_density():
    c, y = data()
    exact = 0.0
    for i in range(N):
        rest = torch.arange(N) != i
        mean, covariance = posterior_of(c[rest], y[rest])
        scale = (c[i] @ covariance @ c[i] + 0.25).sqrt()
        exact += dist.Normal(c[i] @ mean, scale).log_prob(y[i]).item()
    found = dgm.to_arviz(regression, wide_guide, c, y, num=4000, resampled=True, prior=False)
    assert elpd_of(arviz.loo(found)) == pytest.approx(exact, abs=0.3)
    assert elpd_of(arviz.loo(found, var_name="y")) == pytest.approx(exact, abs=0.3)
    assert "loo" not in found.log_likelihood.attrs
    table = arviz.compare({"a": found, "b": found})
    assert len(table) == 2
    summary = arviz.summary(found, var_names=["w", "total"])
    assert summary.shape[0] == 3
    if LEGACY:
        assert np.isfinite(arviz.psens(found, component="prior", var_names=["w"]).values).all()


@pytest.mark.parametrize("model", [regression, matrix_regression])
def test_draws_of_the_prior_are_data_sets_that_share_the_global(model):
    c, y = data()
    found = dgm.to_arviz(model, wide_guide, c, y, num=NUM)
    total = found.posterior["w"].sum("w_dim_0")
    np.testing.assert_allclose(found.posterior["total"], total)
    w = torch.tensor(found.prior["w"].values).flatten(0, 1)
    x = torch.tensor(found.prior_predictive["y"].values).flatten(0, 1)
    assert x.shape == (NUM, N)
    residual = x - w @ c.T
    assert residual.std().item() == pytest.approx(0.5, abs=5 * 0.5 / (2 * NUM * N) ** 0.5)
    assert (w.std(0) - 1).abs().max() < 5 / (2 * NUM) ** 0.5


def test_a_guide_over_all_data_at_once_is_exported_without_figures_of_each():
    def model(x):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with dgm.data_plate(x):
            z = pyro.sample("z", dist.Normal(mu, 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    guide, x = AutoMultivariateNormal(model), torch.randn(5)
    guide(x)
    found = dgm.to_arviz(model, guide, x, num=16)
    assert "per_datum" not in as_tree(found).children
    assert dict(found.posterior.sizes) == {"chain": 4, "draw": 4, "datum": 5}
