"""Chains over everything at once, where all data share a draw: against quadrature and closed forms."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoMultivariateNormal
from schools import ERRORS, SCORES, eight_schools, exact_schools
from toys import GlobalMean, Written

import pyro_dgm as dgm
from pyro_dgm.diagnostics import mean_ess


def regression(c, y):
    w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(c @ w, 0.5), obs=y)


def regression_data():
    c = torch.randn(30, 3)
    return c, c @ torch.tensor([1.0, -1.0, 0.5]) + 0.5 * torch.randn(30)


def posterior_of_w(c, y):
    covariance = (torch.eye(3) + c.T @ c / 0.25).inverse()
    return covariance @ (c.T @ y) / 0.25, covariance.diagonal().sqrt()


@pytest.mark.slow
def test_chains_of_eight_schools_have_the_moments_of_quadrature():
    y, s = torch.tensor(SCORES), torch.tensor(ERRORS)
    found = dgm.hmc(eight_schools, y, s, num=200, chains=16, warmup=150, leapfrog=12)
    assert found.draws["tau"].shape == (16, 200)
    assert found.draws["t"].shape == (16, 200, 8)
    assert found.log_joint.shape == (16, 200, 1)
    assert found.num_joint == 8
    assert found.worst_rhat < 1.05
    _, moments = exact_schools(y, s)
    for name in ("mu", "tau"):
        mean, std = moments[name]
        draws = found.draws[name]
        error = std / mean_ess(draws).sqrt()
        assert abs(draws.mean() - mean) < 5 * error
    assert "all 8 data at once" in str(found)


def test_log_joint_of_chains_is_that_of_all_data_in_the_sites_own_unit():
    y, s = torch.tensor(SCORES), torch.tensor(ERRORS)
    found = dgm.hmc(eight_schools, y, s, num=4, chains=2, warmup=4)
    mu, tau, t = (found.draws[name] for name in ("mu", "tau", "t"))
    expected = dist.Normal(0.0, 5.0).log_prob(mu) + dist.HalfCauchy(5.0).log_prob(tau)
    expected = expected + dist.Normal(0.0, 1.0).log_prob(t).sum(-1)
    mean = mu[..., None] + tau[..., None] * t
    expected = expected + dist.Normal(mean, s).log_prob(y).sum(-1)
    torch.testing.assert_close(found.log_joint[..., 0], expected.double())


def test_programs_of_one_particle_at_a_time_have_chains():
    c, y = regression_data()
    assert (
        dgm.preflight(regression, AutoMultivariateNormal(regression), c, y).particles
        == "one at a time"
    )
    pyro.clear_param_store()
    found = dgm.hmc(regression, c, y, num=80, chains=3, warmup=60, leapfrog=5)
    mean, std = posterior_of_w(c, y)
    error = std / mean_ess(found.draws["w"]).sqrt()
    assert ((found.draws["w"].mean((0, 1)) - mean).abs() < 5 * error).all()
    assert (found.draws["w"].std((0, 1)) / std - 1).abs().max() < 0.35


def test_annealing_has_the_evidence_of_all_data():
    x = torch.randn(5)
    covariance = torch.ones(5, 5) + 1.25 * torch.eye(5)
    exact = -dist.MultivariateNormal(torch.zeros(5), covariance).log_prob(x).item()
    found = dgm.ais(GlobalMean(), x, num=32, steps=40)
    assert found.per_datum.shape == (1,)
    assert abs(found.mean - exact) < 5 * found.monte_carlo.item()
    assert found.monte_carlo.item() < 0.3
    assert "nats for all 5 data" in str(found)


def test_annealing_starts_from_a_guide_with_globals():
    x = torch.randn(5)
    covariance = torch.ones(5, 5) + 1.25 * torch.eye(5)
    exact = -dist.MultivariateNormal(torch.zeros(5), covariance).log_prob(x).item()

    def guide(_, x):
        variance = 1 / (1 + len(x) / 1.25)
        mu = pyro.sample("mu", dist.Normal(variance * x.sum() / 1.25, variance**0.5))
        with dgm.data_plate(x):
            pyro.sample("z", dist.Normal(0.2 * mu + 0.8 * x, 0.2**0.5))

    found = dgm.ais(GlobalMean(), x, num=4, steps=2, start=Written(guide))
    assert found.mean == pytest.approx(exact, abs=1e-6)
    auto = AutoMultivariateNormal(eight_schools)
    with pytest.raises(ValueError, match=r"start: expected a guide that scores.*Fix: start=None"):
        dgm.ais(
            eight_schools, torch.tensor(SCORES), torch.tensor(ERRORS), num=2, steps=2, start=auto
        )
    pyro.clear_param_store()


def test_a_guide_is_held_against_joint_chains():
    c, y = regression_data()
    truth = dgm.hmc(regression, c, y, num=60, chains=4, warmup=50, leapfrog=5)
    mean, std = posterior_of_w(c, y)

    def guide(c, y):
        loc = mean + torch.tensor([0.0, 2.0, 0.0]) * std
        pyro.sample("w", dist.Normal(loc, std).to_event(1))

    found = dgm.guide_error(guide, truth, c, y)
    assert found.shift["w"].shape == (3,)
    assert (found.shift["w"] - torch.tensor([0.0, 2.0, 0.0])).abs().max() < 0.7
    with pytest.raises(ValueError, match=r"expected the 30 data of the chains, got 10"):
        dgm.guide_error(guide, truth, c[:10], y[:10])


def test_a_part_of_the_data_has_no_chains():
    with pytest.raises(
        ValueError, match=r"model: expected all 30 data .*share \['mu'\], got 6. Fix"
    ):
        dgm.hmc(GlobalMean(30), torch.randn(6), num=4)
